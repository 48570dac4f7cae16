#include "topomoe/class_loads.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "topology/class_load_builder.hpp"
#include "topology/load_table.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using State = Router::State;

RankPattern checked(const State& state, RankPattern pattern) {
  if (pattern.ranks == 0) pattern.ranks = state.gpus;
  if (pattern.ranks < 1 || pattern.ranks > state.gpus)
    throw InvalidInput("ranks", std::to_string(pattern.ranks), fmt::format("allowed: 1 to {}, the GPUs", state.gpus));
  if (pattern.group == 0) pattern.group = pattern.ranks;
  if (pattern.group < 1 || pattern.ranks % pattern.group != 0)
    throw InvalidInput("group", std::to_string(pattern.group), fmt::format("a divisor of the {} ranks", pattern.ranks));
  if (pattern.stride < 1 || pattern.ranks / pattern.group % pattern.stride != 0)
    throw InvalidInput(
        "stride", std::to_string(pattern.stride),
        fmt::format("a divisor of {}, the number of groups of {}", pattern.ranks / pattern.group, pattern.group));
  return pattern;
}

double checked_bytes(double bytes) {
  if (!(bytes >= 0) || bytes > 1e18)
    throw InvalidInput("bytes", std::to_string(bytes), "0 to 1e18 bytes for each pair");
  return bytes;
}

}  // namespace

FoldedLoads ClassLoadBuilder::fold(const LinkLoads& loads) {
  FoldedLoads result(loads.router());
  const State& state = result.router_.state();
  std::map<std::pair<int, std::vector<double>>, int> known;
  std::vector<double> bytes;
  int last = -1;  // neighbours are mostly equal
  for (const HostRun& run : state.runs) {
    for (int host = run.first_host; host < run.first_host + run.hosts; ++host) {
      const int base = run.first_link + (host - run.first_host) * run.links_per_host;
      bytes.resize(static_cast<std::size_t>(run.links_per_host));
      for (int l = 0; l < run.links_per_host; ++l) bytes[static_cast<std::size_t>(l)] = loads.bytes_on(base + l);
      if (last < 0 || host == run.first_host || result.vectors_[static_cast<std::size_t>(last)].bytes != bytes) {
        const auto [at, is_new] =
            known.emplace(std::pair(run.first_host, bytes), static_cast<int>(result.vectors_.size()));
        if (is_new) result.vectors_.push_back({host, 0, bytes});
        last = at->second;
      }
      ++result.vectors_[static_cast<std::size_t>(last)].hosts;
      result.vector_of_host_.push_back(last);
    }
  }
  for (int id = state.first_fabric_link; id < state.links; ++id) result.fabric_.push_back(loads.bytes_on(id));
  return result;
}

double FoldedLoads::bytes_on(int link) const {
  const State& state = router_.state();
  if (link < 0 || link >= state.links)
    throw InvalidInput("link", std::to_string(link), "allowed: 0 to " + std::to_string(state.links - 1));
  if (link >= state.first_fabric_link) return fabric_[static_cast<std::size_t>(link - state.first_fabric_link)];
  const HostRun& run = state.run_of_link(link);
  const int within = link - run.first_link;
  const int vector = vector_of_host_[static_cast<std::size_t>(run.first_host + within / run.links_per_host)];
  return vector < 0
             ? 0
             : vectors_[static_cast<std::size_t>(vector)].bytes[static_cast<std::size_t>(within % run.links_per_host)];
}

namespace {

template <class Vectors>
LoadTable table_of(const Router& router, const Vectors& vectors, const std::vector<double>& fabric) {
  const State& state = router.state();
  LoadTable table(router);
  for (const auto& own : vectors) {
    const auto next = std::upper_bound(state.runs.begin(), state.runs.end(), own.first_host,
                                       [](int wanted, const HostRun& run) { return wanted < run.first_host; });
    const HostRun& run = *(next - 1);
    const int base = run.first_link + (own.first_host - run.first_host) * run.links_per_host;
    for (std::size_t i = 0; i < own.bytes.size(); ++i) table.add(base + static_cast<int>(i), own.bytes[i], own.hosts);
  }
  for (std::size_t i = 0; i < fabric.size(); ++i)
    table.add(state.first_fabric_link + static_cast<int>(i), fabric[i], 1);
  return table;
}

}  // namespace

Bottleneck FoldedLoads::bottleneck() const { return table_of(router_, vectors_, fabric_).bottleneck(); }
std::vector<ClassLoad> FoldedLoads::by_class() const { return table_of(router_, vectors_, fabric_).by_class(); }

LinkLoads FoldedLoads::unfold() const {
  LinkLoads loads(router_);
  for (int id = 0; id < router_.link_count(); ++id) loads.add_to_link(id, bytes_on(id));
  return loads;
}

FoldedLoads all_to_all_loads(const Router& router, double bytes_per_pair, const RankPattern& given) {
  checked_bytes(bytes_per_pair);
  const RankPattern pattern = checked(router.state(), given);
  if (const auto hosts = on_hosts(router.state(), pattern))
    if (auto loads = ClassLoadBuilder(router, pattern, *hosts).run(bytes_per_pair)) return std::move(*loads);
  constexpr double kMostFlows = 2e9;  // minutes
  if (static_cast<double>(pattern.ranks) * pattern.group > kMostFlows)
    throw InvalidInput("pattern", fmt::format("{} ranks in groups of {}", pattern.ranks, pattern.group),
                       "the hosts differ too much to be folded; take groups that fall on whole hosts, or fewer GPUs");
  LinkLoads loads(router);
  const int span = pattern.group * pattern.stride;
  for (int rank = 0; rank < pattern.ranks; ++rank) {
    const int first = rank / span * span + rank % pattern.stride;
    for (int i = 0; i < pattern.group; ++i)
      if (const int peer = first + i * pattern.stride; peer != rank) loads.add(rank, peer, bytes_per_pair);
  }
  return ClassLoadBuilder::fold(loads);
}

FoldedLoads ring_loads(const Router& router, double bytes, const RankPattern& given) {
  checked_bytes(bytes);
  const RankPattern pattern = checked(router.state(), given);
  LinkLoads loads(router);
  const int span = pattern.group * pattern.stride;
  for (int rank = 0; rank < pattern.ranks; ++rank) {
    const int next = rank + pattern.stride;
    loads.add(rank, next / span == rank / span ? next : next - span, bytes);
  }
  return ClassLoadBuilder::fold(loads);
}

}  // namespace topomoe
