#include "cli/bench_contest.hpp"

#include <algorithm>
#include <numeric>
#include <span>

#include "cli/calibrations.hpp"
#include "cli/run_prediction.hpp"
#include "planner/exchange_price.hpp"
#include "planner/schedules/build.hpp"
#include "topology/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct Variant {
  std::string split, transport;
  int chunks;
};

// "sliced:flat:4", or each split with each transport in each number of chunks.
std::vector<Variant> variants_of(const ContestOptions& o) {
  std::vector<Variant> out;
  for (const std::string& text : o.variants) {
    const auto first = text.find(':'), second = text.find(':', first + 1);
    const std::string chunks = second < text.size() ? text.substr(second + 1) : "";
    const bool number = !chunks.empty() && chunks.size() < 5 && chunks.find_first_not_of("0123456789") > chunks.size();
    const std::string split = text.substr(0, first);
    if (!number || std::stoi(chunks) < 1 || (split != "replicated" && split != "sliced"))
      throw InvalidInput("--variants", text, "as sliced:flat:4: replicated or sliced, a transport, chunks");
    out.push_back({split, text.substr(first + 1, second - first - 1), std::stoi(chunks)});
  }
  if (!out.empty()) return out;
  for (const std::string& split : o.split)
    for (const std::string& transport : o.transport)
      for (const int chunks : o.chunks) out.push_back({split, transport, chunks});
  return out;
}

SharedPart shared_part(const LayerShape& s) {
  if (s.shared_ffn == 0) return SharedPart::none;
  return s.shared_gate == SharedGate::none ? SharedPart::added : SharedPart::mixed;
}

Schedule schedule_for(const Variant& v, const BenchCase& b) {
  const ScheduleRequest request{.split = v.split == "sliced" ? TokenSplit::sliced : TokenSplit::replicated,
                                .tp = b.layout.tp,
                                .etp = b.layout.etp,
                                .ep = b.layout.ep,
                                .sequence_parallel = b.layout.sequence_parallel,
                                .chunks = v.chunks,
                                .pieces = v.chunks,
                                .shared = shared_part(b.shape)};
  const Transport& row = find_transport(v.transport);
  if ((row.needs_even_nodes && !even_nodes(b.layout, b.ranks_per_host)) ||
      (row.needs_two_nodes && nodes_spanned(b.layout, 0, b.ranks_per_host) < 2))
    throw InvalidInput("--transport", v.transport,
                       "needs an EP group that is spread evenly over two hosts or more: see --per-host, --ep");
  return build_schedule(v.transport, request);
}

// Beyond so many times the fastest prediction a raw bound need not be timed: a prediction is hardly wrong by that.
constexpr double kHopeless = 1.5;
constexpr int kFewChunkCounts[] = {1, 2, 4, 8, 16};

}  // namespace

Contest contest_for(const ContestOptions& o, const BenchCase& b, const std::optional<Schedule>& planned, bool silent) {
  const bool few = o.variants == std::vector<std::string>{"auto"};
  std::vector<Variant> variants;
  if (few || o.variants == std::vector<std::string>{"all"}) {
    std::span<const int> chunks = kChunkCounts;
    if (few) chunks = kFewChunkCounts;
    if (o.chunks.size() > 1) chunks = o.chunks;
    for (const auto& c : exchange_candidates(b.layout, b.ranks_per_host, static_cast<double>(b.tokens), chunks))
      variants.push_back({std::string(name(c.split)), c.transport, c.chunks});
  } else if (!planned || !o.variants.empty()) {
    variants = variants_of(o);
  }
  Contest out;
  if (planned) out.schedules.push_back(*planned);
  for (const Variant& v : variants) out.schedules.push_back(schedule_for(v, b));
  if (o.cluster.empty()) return out;
  const Topology topology = read_topology_file(o.cluster);
  ExchangePricer pricer(topology, calibrations_for(o.calibrations, topology, silent),
                        {.layout = b.layout,
                         .gpus_per_node = b.ranks_per_host,
                         .widths = priced_widths(b.shape, b.layout),
                         .popularity = expert_popularity(b.routing, b.shape.experts),
                         .tokens = static_cast<double>(b.tokens),
                         .dtype = b.shape.dtype});
  std::vector<double> bounds, whole;
  for (const Schedule& s : out.schedules) {
    std::vector<PredictedPass> passes;
    if (!o.layer) passes.push_back(pricer.price(s));
    if (o.layer) passes.push_back(pricer.price_layer(s, false));
    if (o.layer && b.backward) passes.push_back(pricer.price_layer(s, true));
    auto& times = out.predicted_us.emplace_back();
    bounds.push_back(0);
    for (const PredictedPass& pass : passes) times.push_back(pass.time_us), bounds.back() += pass.bound_us;
    whole.push_back(std::accumulate(times.begin(), times.end(), 0.0));
  }
  if (few) {
    const double most = kHopeless * *std::min_element(whole.begin(), whole.end());
    for (std::size_t i = bounds.size(); i-- > (planned ? 1U : 0U);)
      if (bounds[i] > most) {
        const auto at = static_cast<long>(i);
        out.schedules.erase(out.schedules.begin() + at);
        out.predicted_us.erase(out.predicted_us.begin() + at);
        whole.erase(whole.begin() + at);
      }
  }
  std::vector<int> chunks;
  std::vector<std::string> algorithms;
  for (const Schedule& s : out.schedules) chunks.push_back(s.chunks), algorithms.push_back(s.split + " " + s.transport);
  out.picked = pick(whole, chunks, algorithms);
  return out;
}

}  // namespace topomoe::cli
