#include "cli/bench_contest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "cli/calibrations.hpp"
#include "cli/files.hpp"
#include "cli/run_prediction.hpp"
#include "planner/exchange_price.hpp"
#include "planner/schedules/build.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct Variant {
  std::string split, transport;
  int chunks;
};

// "sliced:flat:4", ...
std::vector<Variant> named_variants(const ContestOptions& o) {
  const auto without_say = [](const char* flag, const std::string& value) {
    throw InvalidInput(flag, value, "--variants names split, transport and chunks itself: leave one of the two out");
  };
  if (!o.split.empty()) without_say("--split", o.split[0]);
  if (!o.transport.empty()) without_say("--transport", o.transport[0]);
  if (!o.chunks.empty()) without_say("--chunks", std::to_string(o.chunks[0]));
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
  return out;
}

template <class T>
std::vector<T> given(const std::vector<T>& values, const T& otherwise) {
  return values.empty() ? std::vector<T>{otherwise} : values;
}

// Each split with each transport in each number of chunks.
std::vector<Variant> product(const ContestOptions& o, const std::optional<Schedule>& planned) {
  const std::string split = planned ? planned->split : "sliced", transport = planned ? planned->transport : "flat";
  std::vector<Variant> out;
  for (const std::string& s : given(o.split, split))
    for (const std::string& t : given(o.transport, transport))
      for (const int chunks : given(o.chunks, planned ? planned->chunks : 1)) out.push_back({s, t, chunks});
  return out;
}

// All that the layout allows, of what is asked for.
std::vector<Variant> possible(const ContestOptions& o, const BenchCase& b, std::span<const int> usual_chunks) {
  for (const std::string& transport : o.transport) (void)find_transport(transport);
  const auto asked = [](const auto& values, const auto& value) {
    return values.empty() || std::find(values.begin(), values.end(), value) != values.end();
  };
  std::vector<Variant> out;
  for (const auto& c : exchange_candidates(b.layout, b.ranks_per_host, static_cast<double>(b.tokens),
                                           o.chunks.empty() ? usual_chunks : o.chunks))
    if (asked(o.split, name(c.split)) && asked(o.transport, c.transport))
      out.push_back({std::string(name(c.split)), c.transport, c.chunks});
  if (out.empty())
    throw InvalidInput("--variants", o.variants[0],
                       "this layout allows nothing of what --split, --transport and --chunks leave");
  return out;
}

// Threads are all on one host unless somebody says otherwise.
void require_nodes_of(const Topology& topology, const ContestOptions& o, const BenchCase& b) {
  if (topology.gpu_count() == b.layout.world && topology.gpus_per_node() != b.ranks_per_host)
    throw InvalidInput("--cluster",
                       fmt::format("{}: {} ranks, {} on a node", o.cluster, b.layout.world, topology.gpus_per_node()),
                       fmt::format("the ranks here count as {} on a host: --per-host {} has them as the cluster does",
                                   b.ranks_per_host, topology.gpus_per_node()));
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
                                .shared = shared_part(b.shape),
                                .gated = b.shape.gated,
                                .fp8_dispatch = b.dispatch_dtype == DispatchDType::fp8};
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
  if (few || o.variants == std::vector<std::string>{"all"})
    variants = possible(o, b, few ? std::span<const int>(kFewChunkCounts) : kChunkCounts);
  else if (!o.variants.empty())
    variants = named_variants(o);
  else if (!planned || !o.split.empty() || !o.transport.empty() || !o.chunks.empty())
    variants = product(o, planned);
  Contest out;
  if (planned) out.schedules.push_back(*planned);
  for (const Variant& v : variants) {
    Schedule schedule = schedule_for(v, b);
    if (!planned || schedule.name != planned->name) out.schedules.push_back(std::move(schedule));
  }
  const auto usual = [](const Schedule& s) { return fmt::format("{} {} n={}", s.split, s.transport, s.chunks); };
  if (planned && !silent && out.schedules.size() > 1 && planned->name != usual(*planned))
    say("note: the first is the plan's own schedule: " + planned->name);
  if (o.cluster.empty()) return out;
  const Topology topology = read_topology_file(o.cluster);
  if (!planned) require_nodes_of(topology, o, b);
  ExchangePricer pricer(topology, calibrations_for(o.calibrations, topology, RanksOn::host, silent),
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
