// The experts' product: what a schedule's expert steps take of a rank's device, all ranks at once as they run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "kernels/grouped_ffn.hpp"
#include "runtime/bench.hpp"
#include "runtime/caller_tensor.hpp"
#include "runtime/host_exchange.hpp"
#include "runtime/profile.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using Index = std::size_t;

constexpr int kRounds = 5;
constexpr std::int64_t kMostRows = 8192;  // of one expert: beyond, the curve goes on as it does there
constexpr const char* kSteps[] = {"expert_forward", "expert_dgrad", "expert_wgrad"};

class Experts {
 public:
  // Not zeros, which some devices multiply faster; small, so that gradients stay finite however often they are added.
  Experts(const ExpertShape& s, std::int64_t rows, Device& device)
      : s_(s),
        device_(device),
        x_(filled(rows * s.hidden)),
        dy_(filled(rows * s.hidden)),
        dx_(filled(rows * s.hidden)) {
    for (auto* wide : {&gate_, &up_, &act_, &dgate_, &dup_}) wide->emplace(filled(rows * s.ffn));
    for (auto* weight : {&w_gate_, &w_up_, &w_down_}) weight->emplace(filled(s.experts * s.hidden * s.ffn));
    for (auto* grad : {&g_gate_, &g_up_, &g_down_}) {
      grad->emplace(device, static_cast<Index>(s.experts * s.hidden * s.ffn) * 4);
      device.zero(Lane::compute, (*grad)->memory.get(), (*grad)->bytes);
    }
  }

  void run(int step, std::int64_t rows_each) {
    offsets_.clear();
    for (int e = 0; e <= s_.experts; ++e) offsets_.push_back(e * rows_each);
    if (step == 0)
      device_.grouped_ffn(Lane::compute, {.in = x_.memory.get(),
                                          .out = dx_.memory.get(),
                                          .gate = at(gate_),
                                          .up = at(up_),
                                          .act = at(act_),
                                          .w_gate = at(w_gate_),
                                          .w_up = at(w_up_),
                                          .w_down = at(w_down_),
                                          .offsets = offsets_,
                                          .hidden = s_.hidden,
                                          .ffn = s_.ffn,
                                          .dtype = s_.dtype});
    else if (step == 1)
      device_.grouped_ffn_dgrad(Lane::compute, {.out_grad = dy_.memory.get(),
                                                .in_grad = dx_.memory.get(),
                                                .gate = at(gate_),
                                                .up = at(up_),
                                                .gate_grad = at(dgate_),
                                                .up_grad = at(dup_),
                                                .act = at(act_),
                                                .w_gate = at(w_gate_),
                                                .w_up = at(w_up_),
                                                .w_down = at(w_down_),
                                                .offsets = offsets_,
                                                .hidden = s_.hidden,
                                                .ffn = s_.ffn,
                                                .dtype = s_.dtype});
    else
      device_.grouped_ffn_wgrad(Lane::compute, {.in = x_.memory.get(),
                                                .out_grad = dy_.memory.get(),
                                                .act = at(act_),
                                                .gate_grad = at(dgate_),
                                                .up_grad = at(dup_),
                                                .w_gate_grad = g_gate_->floats(),
                                                .w_up_grad = g_up_->floats(),
                                                .w_down_grad = g_down_->floats(),
                                                .offsets = offsets_,
                                                .hidden = s_.hidden,
                                                .ffn = s_.ffn,
                                                .dtype = s_.dtype});
  }

 private:
  CallerTensor filled(std::int64_t elements) const {
    std::vector<float> values(static_cast<Index>(elements));
    for (Index i = 0; i < values.size(); ++i) values[i] = 0.01F * (static_cast<float>(i * 37 % 101) - 50) / 50;
    return {device_, encode(values, s_.dtype)};
  }
  static void* at(const std::optional<CallerTensor>& t) { return t->memory.get(); }

  ExpertShape s_;
  Device& device_;
  CallerTensor x_, dy_, dx_;
  std::optional<CallerTensor> gate_, up_, act_, dgate_, dup_, w_gate_, w_up_, w_down_, g_gate_, g_up_, g_down_;
  std::vector<std::int64_t> offsets_;
};

struct Point {
  int step;
  std::int64_t rows_each;
};

}  // namespace

std::optional<std::vector<CalibrationCurve>> profile_experts(std::span<const ExpertShape> shapes,
                                                             const ProfileBudget& budget, Communicator& communicator,
                                                             Device& device) {
  HostExchange host(communicator);
  std::vector<CalibrationCurve> out;
  for (const ExpertShape& shape : shapes) {
    if (shape.hidden < 1 || shape.ffn < 1 || shape.experts < 1)
      throw InvalidInput("expert shape", std::to_string(shape.hidden) + " x " + std::to_string(shape.ffn),
                         "hidden, ffn and experts are at least 1");
    const auto row_bytes = static_cast<std::int64_t>(size_of(shape.dtype)) * std::max(shape.hidden, shape.ffn);
    const std::int64_t most = std::clamp<std::int64_t>(
        static_cast<std::int64_t>(budget.most_bytes) / row_bytes / shape.experts, 1, kMostRows);
    Experts experts(shape, most * shape.experts, device);
    const auto time_us = [&](const Point& p) {
      device.synchronize(Clock::now() + budget.deadline);
      communicator.barrier();
      const auto begin = Clock::now();
      experts.run(p.step, p.rows_each);
      device.synchronize(Clock::now() + budget.deadline);
      return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
    };
    const auto slowest = [&](double mine) {
      double us = mine;
      for (const auto& one : host.gather_on_all("agree on a time", {mine})) us = std::max(us, one[0]);
      return us;
    };
    // Sizes upward until the rounds of one would take more than their share of the time.
    const double share_us = budget.seconds * 1e6 / static_cast<double>(shapes.size()) / (2 * kRounds);
    std::vector<Point> points;
    double spent_us = 0;
    for (std::int64_t rows = 1; rows <= most; rows *= 4) {
      double round_us = 0;
      for (const int step : {0, 1, 2}) round_us += slowest(time_us({step, rows}));
      if (rows > 1 && spent_us + round_us > share_us) break;
      spent_us += round_us;
      for (const int step : {0, 1, 2}) points.push_back({step, rows});
    }
    std::vector<double> mine;
    for (int round = 0; round < kRounds; ++round)
      for (const Point& p : points) mine.push_back(time_us(p));
    const auto all = host.gather("gather the times", mine);
    if (communicator.rank() != 0) continue;
    for (const int step : {0, 1, 2}) {
      CalibrationCurve& curve =
          out.emplace_back(CalibrationCurve{.operation = kSteps[step],
                                            .dtype = shape.dtype == DType::bf16 ? "bf16" : "fp32",
                                            .size_unit = "rows",
                                            .parameters = {{"hidden", static_cast<double>(shape.hidden)},
                                                           {"ffn", static_cast<double>(shape.ffn)},
                                                           {"experts", static_cast<double>(shape.experts)}}});
      std::vector<double> off;
      for (Index i = 0; i < points.size(); ++i) {
        if (points[i].step != step) continue;
        std::vector<double> times(kRounds, 0.0);
        for (Index round = 0; round < times.size(); ++round)
          for (const auto& of_rank : all) times[round] = std::max(times[round], of_rank[round * points.size() + i]);
        const double t = std::max(1e-3, median(times));
        for (const double x : times) off.push_back(std::abs(x / t - 1));
        curve.knots.push_back({static_cast<double>(points[i].rows_each * shape.experts), t});
      }
      std::sort(off.begin(), off.end());
      curve.spread = off[off.size() * 9 / 10];
    }
  }
  if (communicator.rank() != 0) return std::nullopt;
  return out;
}

}  // namespace topomoe
