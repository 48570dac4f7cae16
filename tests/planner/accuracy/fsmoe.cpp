// FSMoE's layers on its own published fit: the number of pieces that the planner chooses against every number
// from 1 to 64, and what choosing is worth. Nothing is fitted here; there is no measured time to compare with.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "planner/gradient_slack.hpp"
#include "planner/piece_choice.hpp"
#include "tests/planner/accuracy/measurements.hpp"
#include "tests/planner/accuracy/tables.hpp"

namespace topomoe::accuracy {
namespace {

constexpr int kMost = 64;

struct Line {
  double alpha_ms = 0, beta_ms = 0;
};
struct Fit {
  Line exchange, gather, gemm, scatter, all_reduce;
};

struct Layer {
  double matrices, batch, length, hidden, ffn, f;
};

// 2 x 3^6 layers (measurements/README.md): heads, the sixth, change no volume, so that each layer counts thrice.
std::vector<Layer> layers() {
  std::vector<Layer> out;
  for (const double matrices : {2, 3})
    for (const double batch : {1, 2, 4})
      for (const double length : {512, 1024, 2048})
        for (const double hidden : {1024, 2048, 4096})
          for (const double ratio : {2, 3, 4})
            for (const double f : {2.4, 4.8, 2.0}) out.push_back({matrices, batch, length, hidden, ratio * hidden, f});
  return out;
}
constexpr int kHeads = 3;
constexpr double kGpus = 8, kTensorParallel = 8;  // ES and MP of the grid

// Volumes as DATASHEETS.md has them; seconds throughout.
std::vector<PieceStep> chain_of(const Fit& fit, const Layer& l, bool backward) {
  const double tokens = l.f * l.batch * l.length * l.hidden, times = backward ? 2 : 1;
  const auto step = [](Lane lane, const Line& line, double volume, double count) {
    return PieceStep{lane, count * line.alpha_ms * 1e-3, count * line.beta_ms * volume * 1e-3};
  };
  const PieceStep exchange = step(Lane::inter_node, fit.exchange, tokens / kGpus, 1);
  return {exchange, step(Lane::intra_node, fit.gather, tokens, 1),
          step(Lane::compute, fit.gemm, tokens * l.ffn / kGpus, times * l.matrices),
          step(Lane::intra_node, fit.scatter, tokens, 1), exchange};
}

// Backward with the gradients of one layer, ready when it starts, in what the inter-node lane leaves idle.
double with_gradients(const Fit& fit, const std::vector<PieceStep>& chain, double elements, int pieces) {
  const auto tasks = piece_tasks(chain, pieces);
  const auto when = run_timeline(tasks, 0);
  std::vector<Interval> busy;
  double end = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    end = std::max(end, when[i].end_s);
    if (tasks[i].lane == Lane::inter_node) busy.push_back(when[i]);
  }
  const std::vector<GradientPiece> gradient{{elements, 0}};
  const auto plan = place_gradients(idle_windows(busy, 0, end), gradient, [&](double n) {
    return n > 0 ? 1e-3 * (fit.all_reduce.alpha_ms + fit.all_reduce.beta_ms * n) : 0;
  });
  return end + plan.exposed_s;
}

struct Tried {
  std::array<double, kMost> seconds{};
  PieceChoice choice;
  int best() const { return static_cast<int>(std::min_element(seconds.begin(), seconds.end()) - seconds.begin()) + 1; }
  double at(int pieces) const { return seconds[static_cast<std::size_t>(pieces - 1)]; }
};

template <class Price>
Tried try_all(const std::vector<PieceStep>& chain, Price price) {
  Tried t;
  for (int r = 1; r <= kMost; ++r) t.seconds[static_cast<std::size_t>(r - 1)] = price(r);
  t.choice = choose_pieces(chain, kMost, price);
  return t;
}

// Choice over best, priced numbers, and the guess alone.
void report_choice(Report& report, const std::string& name, const std::vector<Tried>& tried,
                   const std::vector<std::vector<PieceStep>>& chains) {
  int within = 0, exact = 0;
  double worst = 0, priced = 0, guess_worst = 0;
  for (std::size_t i = 0; i < tried.size(); ++i) {
    const Tried& t = tried[i];
    const double least = t.at(t.best()), over = t.choice.seconds / least - 1;
    within += over <= 0.01, exact += over <= 1e-12;
    worst = std::max(worst, over), priced += t.choice.priced;
    const auto guess = static_cast<int>(std::lround(std::min(first_guess_of_pieces(chains[i]), 1.0 * kMost)));
    guess_worst = std::max(guess_worst, t.at(guess) / least - 1);
  }
  report.require(
      within == static_cast<int>(tried.size()),
      fmt::format("{}: within 1% of every r from 1 to {} on {} of {} layers ({} exactly), worst {:.2f}%; {:.1f} "
                  "numbers priced a layer; the first guess alone: worst {:.1f}%",
                  name, kMost, kHeads * within, kHeads * static_cast<int>(tried.size()), kHeads * exact, 100 * worst,
                  priced / static_cast<double>(tried.size()), 100 * guess_worst));
}

void report_gains(Report& report, const std::string& name, const std::vector<Tried>& forward,
                  const std::vector<Tried>& backward) {
  std::string line;
  for (const int r : {1, 2, 3, 4, 6, 8, 12, 16, 32}) {
    double gain = 0, most = 0;
    for (std::size_t i = 0; i < forward.size(); ++i) {
      const double ratio =
          (forward[i].at(r) + backward[i].at(r)) / (forward[i].choice.seconds + backward[i].choice.seconds);
      gain += ratio / static_cast<double>(forward.size()), most = std::max(most, ratio);
    }
    line += fmt::format("  r={}: {:.3f}x ({:.2f})", r, gain, most);
  }
  report.note(fmt::format(
      "  {}: mean (most) gain of the chosen r over a fixed one, forward and backward together\n   {}", name, line));
  double common = 0, most = 0;
  int differ = 0, by_value = 0;
  for (std::size_t i = 0; i < forward.size(); ++i) {
    double least = forward[i].at(1) + backward[i].at(1);
    for (int r = 2; r <= kMost; ++r) least = std::min(least, forward[i].at(r) + backward[i].at(r));
    const double ratio = least / (forward[i].choice.seconds + backward[i].choice.seconds);
    common += ratio / static_cast<double>(forward.size()), most = std::max(most, ratio);
    differ += forward[i].best() != backward[i].best();
    by_value += forward[i].at(backward[i].best()) > forward[i].at(forward[i].best()) * 1.01;
  }
  report.note(fmt::format(
      "    over the best r common to both: {:.4f}x ({:.3f}); best r of forward and backward differ in {} of {} "
      "(FSMoE: 912), by more than 1% of forward's time in {}",
      common, most, kHeads * differ, kHeads * static_cast<int>(forward.size()), kHeads * by_value));
}

}  // namespace

void fsmoe(Report& report) {
  std::ifstream in(measurements_path("fsmoe_constants.json"));
  if (!in) return report.skipped("FSMoE", "no fsmoe_constants.json");
  const auto json = nlohmann::json::parse(in);
  const auto line = [&](std::size_t i) {
    return Line{json.at("alpha").at(i).get<double>(), json.at("beta").at(i).get<double>()};
  };
  const Fit fit{line(0), line(1), line(2), line(3), line(4)};
  std::vector<Tried> forward, backward, reduced;
  std::vector<std::vector<PieceStep>> forward_chains, backward_chains;
  for (const Layer& l : layers()) {
    forward_chains.push_back(chain_of(fit, l, false));
    backward_chains.push_back(chain_of(fit, l, true));
    const auto& f = forward_chains.back();
    const auto& b = backward_chains.back();
    // 3M^2/mp + 3M/mp + M^2/mp + M elements of a GPT block (DATASHEETS.md).
    const double m = l.hidden, gradient = (4 * m * m + 3 * m) / kTensorParallel + m;
    forward.push_back(try_all(f, [&](int r) { return time_in_pieces(f, r); }));
    backward.push_back(try_all(b, [&](int r) { return time_in_pieces(b, r); }));
    reduced.push_back(try_all(b, [&](int r) { return with_gradients(fit, b, gradient, r); }));
  }
  report.note("\nFSMoE's 1,458 layers, its published fit, our timeline");
  report_choice(report, "forward", forward, forward_chains);
  report_choice(report, "backward", backward, backward_chains);
  report_choice(report, "backward, gradients in the slack", reduced, backward_chains);
  report_gains(report, "without gradients", forward, backward);
  report_gains(report, "gradients in the slack", forward, reduced);
  double hidden = 0;
  for (std::size_t i = 0; i < reduced.size(); ++i) {
    const Layer l = layers()[i];
    const double gradient = (4 * l.hidden * l.hidden + 3 * l.hidden) / kTensorParallel + l.hidden;
    const double alone = 1e-3 * (fit.all_reduce.alpha_ms + fit.all_reduce.beta_ms * gradient);
    hidden += (backward[i].choice.seconds + alone) / reduced[i].choice.seconds / static_cast<double>(reduced.size());
  }
  report.note(fmt::format("  gradients in the slack instead of after backward: mean gain {:.3f}x of backward", hidden));
}

}  // namespace topomoe::accuracy
