#include "cli/bench_contest.hpp"

#include <algorithm>
#include <span>

#include "cli/calibrations.hpp"
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

Schedule schedule_for(const Variant& v, const ExchangeBench& b) {
  const ScheduleRequest request{.split = v.split == "sliced" ? TokenSplit::sliced : TokenSplit::replicated,
                                .tp = b.layout.tp,
                                .etp = b.layout.etp,
                                .ep = b.layout.ep,
                                .chunks = v.chunks,
                                .pieces = v.chunks};
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

Contest contest_for(const ContestOptions& o, const ExchangeBench& b, bool silent) {
  const bool few = o.variants == std::vector<std::string>{"auto"};
  std::vector<Variant> variants;
  if (few || o.variants == std::vector<std::string>{"all"}) {
    std::span<const int> chunks = kChunkCounts;
    if (few) chunks = kFewChunkCounts;
    if (o.chunks.size() > 1) chunks = o.chunks;
    for (const auto& c : exchange_candidates(b.layout, b.ranks_per_host, static_cast<double>(b.tokens), chunks))
      variants.push_back({std::string(name(c.split)), c.transport, c.chunks});
  } else {
    variants = variants_of(o);
  }
  Contest out;
  for (const Variant& v : variants) out.schedules.push_back(schedule_for(v, b));
  if (o.cluster.empty()) return out;
  const Topology topology = read_topology_file(o.cluster);
  ExchangePricer pricer(topology, calibrations_for(o.calibrations, topology, silent),
                        {.layout = b.layout,
                         .gpus_per_node = b.ranks_per_host,
                         .widths = {static_cast<double>(b.shape.hidden), 1, static_cast<double>(b.shape.experts),
                                    static_cast<double>(b.shape.top_k), static_cast<double>(size_of(b.shape.dtype)), 3},
                         .popularity = expert_popularity(b.routing, b.shape.experts),
                         .tokens = static_cast<double>(b.tokens),
                         .dtype = b.shape.dtype});
  std::vector<double> bounds;
  for (const Schedule& s : out.schedules) {
    const PredictedPass pass = pricer.price(s);
    out.predicted_us.push_back(pass.time_us), bounds.push_back(pass.bound_us);
  }
  if (few) {
    const double most = kHopeless * *std::min_element(out.predicted_us.begin(), out.predicted_us.end());
    for (std::size_t i = bounds.size(); i-- > 0;)
      if (bounds[i] > most) {
        out.schedules.erase(out.schedules.begin() + static_cast<long>(i));
        out.predicted_us.erase(out.predicted_us.begin() + static_cast<long>(i));
      }
  }
  std::vector<int> chunks;
  for (const Schedule& s : out.schedules) chunks.push_back(s.chunks);
  out.picked = pick(out.predicted_us, chunks);
  return out;
}

}  // namespace topomoe::cli
