// Link loads at scale. `loads_bench` adds up all-to-all of all GPUs, and of expert groups, on 3-tier fat trees of H100
// hosts; peak memory: /usr/bin/time -v on one of them (--benchmark_filter=12500).

#include <benchmark/benchmark.h>

#include "topomoe/build_fabric.hpp"
#include "topomoe/class_loads.hpp"

namespace topomoe {
namespace {

// Rail-optimised, three tiers: units of 32 hosts, pods of 512, 2:1 at the pods.
Topology three_tiers(int hosts, bool one_dead_link) {
  Topology topology = read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/h100-1024x8.json");
  topology.groups[0].count = hosts;
  RailOptimisedShape shape;
  shape.hosts_per_leaf = 32;
  shape.spine_count = 64;
  shape.hosts_per_pod = 512;
  shape.core_count = 64;
  shape.pod_oversubscription = 2;
  shape.latency_us = 1;
  topology.fabric = build_rail_optimised(topology, shape);
  if (one_dead_link) topology.fabric->exceptions = {{"leaf3->pod0", 0}};
  return topology;
}

void report(benchmark::State& state, const FoldedLoads& loads) {
  state.counters["kinds"] = static_cast<double>(loads.kinds_of_host());
  state.counters["links"] = static_cast<double>(loads.router().link_count());
  state.counters["bottleneck_s"] = loads.bottleneck().seconds;
}

// From the topology to the bottleneck.
void all_to_all(benchmark::State& state) {
  const Topology topology = three_tiers(static_cast<int>(state.range(0)), state.range(1) != 0);
  for (auto _ : state) {
    const FoldedLoads loads = all_to_all_loads(Router(topology), 1);
    report(state, loads);
  }
}
BENCHMARK(all_to_all)
    ->ArgNames({"hosts", "dead_link"})
    ->Args({1024, 0})
    ->Args({1024, 1})
    ->Args({12500, 0})
    ->Args({12500, 1})
    ->Unit(benchmark::kMillisecond);

// One double a link, as LinkLoads keeps them.
void all_to_all_unfolded(benchmark::State& state) {
  const Topology topology = three_tiers(static_cast<int>(state.range(0)), true);
  for (auto _ : state) {
    const LinkLoads loads = all_to_all_loads(Router(topology), 1).unfold();
    benchmark::DoNotOptimize(loads.bytes_on(0));
  }
}
BENCHMARK(all_to_all_unfolded)->ArgName("hosts")->Arg(1024)->Arg(12500)->Unit(benchmark::kMillisecond);

// Groups of 64: neighbours, and one GPU of every 64th host.
void groups(benchmark::State& state) {
  const Router router(three_tiers(8192, false));
  const RankPattern pattern{0, 64, static_cast<int>(state.range(0))};
  for (auto _ : state) report(state, all_to_all_loads(router, 1, pattern));
}
BENCHMARK(groups)->ArgName("stride")->Arg(1)->Arg(512)->Unit(benchmark::kMillisecond);

// Flow by flow, of 256 GPUs: what LinkLoads::add costs.
void flow_by_flow(benchmark::State& state) {
  const Router router(three_tiers(32, state.range(0) != 0));
  LinkLoads loads(router);
  for (auto _ : state)
    for (int src = 0; src < 256; ++src)
      for (int dst = 0; dst < 256; ++dst) loads.add(src, dst, 1);
  state.SetItemsProcessed(state.iterations() * 256 * 256);
}
BENCHMARK(flow_by_flow)->ArgName("dead_link")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void ring(benchmark::State& state) {
  const Router router(three_tiers(8192, false));
  for (auto _ : state) report(state, ring_loads(router, 1, {0, 64, 512}));
}
BENCHMARK(ring)->Unit(benchmark::kMillisecond);

void torus(benchmark::State& state) {
  Topology topology = three_tiers(1, false);
  topology.groups[0].count = 23 * 23 * 23;
  topology.fabric = build_torus(topology, {{23, 23, 23}, {100, 1, Source::assumed, "bench"}});
  for (auto _ : state) report(state, all_to_all_loads(Router(topology), 1));
}
BENCHMARK(torus)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace topomoe

BENCHMARK_MAIN();
