#include "topomoe/pattern_load.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "topology/class_load_builder.hpp"
#include "topology/load_table.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

struct Sent {
  double buffer_bytes = 0, sent_bytes = 0;
};

void require_exchange(const Topology& topology, const std::string& pattern, bool exchanges) {
  const int gpus = topology.gpu_count();
  if (gpus == 0)
    throw InvalidInput(topology.name, "no GPUs are described",
                       "traffic goes from GPU to GPU: give a file that has them (an NCCL dump, a cluster JSON)");
  if (!exchanges)
    throw InvalidInput("pattern", pattern,
                       fmt::format("no two of the {} GPUs exchange anything: take another pattern", gpus));
}

PatternLoad finished(const Router& router, std::string pattern, Sent sent, FoldedLoads loads) {
  PatternLoad out{std::move(pattern),
                  router.topology().gpu_count(),
                  sent.buffer_bytes,
                  sent.sent_bytes,
                  std::move(loads),
                  {},
                  {},
                  0,
                  0};
  out.bottleneck = out.loads.bottleneck();
  for (const ClassLoad& load : out.loads.by_class()) {
    const LinkInfo info = router.link(load.link);
    LoadedClass own{load, info.source, info.source_note, 0, load.seconds / out.bottleneck.seconds};
    out.classes.push_back(std::move(own));
  }
  const LoadTable table(router);
  std::vector<LoadedClass*> of_class(LoadTable::kClasses.size(), nullptr);
  for (LoadedClass& own : out.classes) of_class[table.class_of(own.link)] = &own;
  for (int id = 0; id < router.link_count(); ++id) {
    const double bytes = out.loads.bytes_on(id);
    if (bytes <= 0) continue;
    LoadedClass& own = *of_class[table.class_of(id)];
    // Sums of equal traffic differ in the last bits.
    own.links_as_loaded += bytes / (router.link_GBps_per_direction(id) * 1e9) >= own.seconds * (1 - 1e-9);
  }
  out.algorithm_GBps = out.buffer_bytes / out.bottleneck.seconds / 1e9;
  out.bus_GBps = out.sent_bytes / out.bottleneck.seconds / 1e9;
  return out;
}

// GPU numbers by their place in the host, hosts in order.
std::vector<std::vector<int>> rails_of(const Topology& topology) {
  std::vector<std::vector<int>> rails;
  int first = 0;
  for (const HostGroup& group : topology.groups) {
    const auto gpus = topology.templates[static_cast<std::size_t>(group.template_index)].gpus.size();
    rails.resize(std::max(rails.size(), gpus));
    for (int host = 0; host < group.count; ++host)
      for (std::size_t i = 0; i < gpus; ++i) rails[i].push_back(first++);
  }
  return rails;
}

PatternLoad rail_load(const Router& router, double bytes) {
  const Topology& topology = router.topology();
  const std::vector<std::vector<int>> rails = rails_of(topology);
  std::size_t most = 0, least = rails.empty() ? 0 : rails[0].size();
  double flows = 0;
  for (const std::vector<int>& rail : rails) {
    most = std::max(most, rail.size()), least = std::min(least, rail.size());
    flows += static_cast<double>(rail.size()) * static_cast<double>(rail.size());
  }
  require_exchange(topology, "rail", most > 1);
  const auto members = static_cast<double>(most);
  const Sent sent{bytes, bytes * (members - 1) / members};
  if (least == most) {
    const RankPattern pattern{0, static_cast<int>(most), static_cast<int>(rails.size())};
    return finished(router, "rail", sent, all_to_all_loads(router, bytes / members, pattern));
  }
  constexpr double kMostFlows = 2e9;  // minutes
  if (flows > kMostFlows)
    throw InvalidInput("pattern", "rail", "hosts differ in their GPUs, and are too many to look at each pair");
  LinkLoads loads(router);
  for (const std::vector<int>& rail : rails)
    for (const int src : rail)
      for (const int dst : rail)
        if (src != dst) loads.add(src, dst, bytes / static_cast<double>(rail.size()));
  return finished(router, "rail", sent, ClassLoadBuilder::fold(loads));
}

}  // namespace

const char* name(TrafficPattern pattern) {
  switch (pattern) {
    case TrafficPattern::alltoall: return "alltoall";
    case TrafficPattern::rail: return "rail";
    case TrafficPattern::pairs: break;
  }
  return "pairs";
}

PatternLoad pattern_load(const Router& router, TrafficPattern pattern, double bytes) {
  if (!(bytes > 0) || bytes > 1e18)
    throw InvalidInput("bytes", fmt::format("{}", bytes), "above 0, at most 1e18 bytes a GPU");
  const int gpus = router.topology().gpu_count();
  if (pattern == TrafficPattern::rail) return rail_load(router, bytes);
  require_exchange(router.topology(), name(pattern), gpus > 1);
  if (pattern == TrafficPattern::alltoall)
    return finished(router, name(pattern), {bytes, bytes * (gpus - 1) / gpus}, all_to_all_loads(router, bytes / gpus));
  LinkLoads loads(router);
  for (int gpu = 0; gpu < gpus; ++gpu) loads.add(gpu, (gpu + gpus / 2) % gpus, bytes);
  return finished(router, name(pattern), {bytes, bytes}, ClassLoadBuilder::fold(loads));
}

PatternLoad pattern_load(const Router& router, const TrafficMatrix& matrix) {
  const auto n = static_cast<std::size_t>(router.topology().gpu_count());
  require_exchange(router.topology(), matrix.source, true);
  if (matrix.gpus != router.topology().gpu_count() || matrix.bytes.size() != n * n)
    throw InvalidInput(matrix.source, fmt::format("a matrix of {} GPUs", matrix.gpus),
                       fmt::format("{} x {}, the GPUs of this cluster", n, n));
  LinkLoads loads(router);
  Sent most;
  for (std::size_t src = 0; src < n; ++src) {
    double kept = 0, sent = 0;
    for (std::size_t dst = 0; dst < n; ++dst) {
      const double bytes = matrix.bytes[src * n + dst];
      (src == dst ? kept : sent) += bytes;
      if (bytes > 0) loads.add(static_cast<int>(src), static_cast<int>(dst), bytes);
    }
    if (sent > most.sent_bytes) most = {kept + sent, sent};
  }
  require_exchange(router.topology(), matrix.source, most.sent_bytes > 0);
  return finished(router, matrix.source, most, ClassLoadBuilder::fold(loads));
}

}  // namespace topomoe
