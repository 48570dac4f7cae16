// Time to plan. `plan_bench` plans DeepSeek-V3 training on 16 (Mixtral-8x7B: V3 does not fit), 256 and 8,192
// H100; peak memory: /usr/bin/time -v on one of them (--benchmark_filter=8192).

#include <benchmark/benchmark.h>

#include <fstream>
#include <sstream>

#include "planner/hf_config.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

void plan(benchmark::State& state) {
  const int gpus = static_cast<int>(state.range(0));
  const std::string root = TOPOMOE_SOURCE_DIR "/configs/", model = gpus < 256 ? "mixtral-8x7b" : "deepseek-v3";
  PlanRequest r;
  r.topology = resize_hosts(read_topology_file(root + "clusters/h100-1024x8.json"), gpus, nullptr);
  std::ifstream file(root + "models/" + model + ".json");
  std::stringstream text;
  text << file.rdbuf();
  r.model = read_hf_config(text.str(), model);
  r.job.global_batch = 8192;
  r.job.recompute = Recompute::full;
  for (auto _ : state) {
    const auto p = make_plan(r);
    if (!p)
      state.SkipWithError(p.error().message().c_str());
    else
      state.counters["layouts"] = static_cast<double>(p->layouts_enumerated);
  }
}
BENCHMARK(plan)->Arg(16)->Arg(256)->Arg(8192)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace topomoe

BENCHMARK_MAIN();
