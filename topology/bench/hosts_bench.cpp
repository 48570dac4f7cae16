// What is said of many hosts of which no two are alike: time must grow as they do.
#include <benchmark/benchmark.h>

#include <array>

#include "many_hosts.hpp"
#include "topology/show/diff.hpp"
#include "topomoe/doctor.hpp"

namespace topomoe::bench {
namespace {

template <class Say>
void say(benchmark::State& state, Say what) {
  const Topology topology = many_hosts(static_cast<int>(state.range(0)), 0, true);
  for (auto _ : state) benchmark::DoNotOptimize(what(topology));
  state.counters["a_host"] = benchmark::Counter(
      static_cast<double>(state.range(0)), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void facts(benchmark::State& state) { say(state, facts_json); }
void text(benchmark::State& state) { say(state, show_text); }
void json(benchmark::State& state) { say(state, show_json); }
void doctor(benchmark::State& state) {
  say(state, [](const Topology& topology) { return diagnose(std::array{topology}).size(); });
}
void diff(benchmark::State& state) {
  say(state, [](const Topology& topology) { return differences(topology, topology).size(); });
}
void write_json(benchmark::State& state) { say(state, write_cluster_json); }
void read_json(benchmark::State& state) {
  const std::string text = write_cluster_json(many_hosts(static_cast<int>(state.range(0)), 0, true));
  say(state, [&](const Topology&) { return read_cluster_json(text, "bench").host_count(); });
}
void write_xml(benchmark::State& state) { say(state, write_nccl_xml); }
void draw(benchmark::State& state) { say(state, write_svg); }

void hosts(benchmark::internal::Benchmark* own) {
  own->ArgName("hosts")->Arg(64)->Arg(512)->Arg(4096)->Unit(benchmark::kMillisecond);
}
BENCHMARK(facts)->Apply(hosts);
BENCHMARK(text)->Apply(hosts);
BENCHMARK(json)->Apply(hosts);
BENCHMARK(doctor)->Apply(hosts);
BENCHMARK(diff)->Apply(hosts);
BENCHMARK(write_json)->Apply(hosts);
BENCHMARK(read_json)->ArgName("hosts")->Arg(64)->Arg(512)->Arg(2048)->Unit(benchmark::kMillisecond);  // 64 MiB at most
BENCHMARK(write_xml)->Apply(hosts);
BENCHMARK(draw)->Apply(hosts);

}  // namespace
}  // namespace topomoe::bench

BENCHMARK_MAIN();
