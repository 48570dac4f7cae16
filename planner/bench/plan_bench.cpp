// Time to plan. `plan_bench` plans DeepSeek-V3 training on 16 (Mixtral-8x7B: V3 does not fit), 256 and 8,192
// H100; peak memory: /usr/bin/time -v on one of them (--benchmark_filter=8192). what_if: Mixtral-8x22B on 1,024
// H100 under 10 NIC rates times 10 NVLink rates, 100 plans on all cores.

#include <benchmark/benchmark.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "planner/hf_config.hpp"
#include "planner/whatif/whatif.hpp"

namespace topomoe {
namespace {

const std::string kConfigs = TOPOMOE_SOURCE_DIR "/configs/";

Topology h100s(int gpus) {
  return resize_hosts(read_topology_file(kConfigs + "clusters/h100-1024x8.json"), gpus, nullptr);
}

Model model_named(const std::string& name) {
  std::ifstream file(kConfigs + "models/" + name + ".json");
  std::stringstream text;
  text << file.rdbuf();
  return read_hf_config(text.str(), name);
}

void plan(benchmark::State& state) {
  const int gpus = static_cast<int>(state.range(0));
  PlanRequest r;
  r.topology = h100s(gpus);
  r.model = model_named(gpus < 256 ? "mixtral-8x7b" : "deepseek-v3");
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

void what_if(benchmark::State& state) {
  WhatIf w;
  w.clusters.push_back({"h100", h100s(1024), ""});
  w.base.model = model_named("mixtral-8x22b");
  w.base.job.micro_batch = 0;
  w.base.job.recompute = Recompute::automatic;
  w.settings = {parse_setting("nic.GBps=10,20,30,40,50,60,80,100,150,200"),
                parse_setting("nvlink.GBps=100,200,300,350,400,450,500,600,800,900")};
  WhatIfRun run;
  run.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  for (auto _ : state) {
    int planned = 0;
    for (const WhatIfOutcome& outcome : run_what_if(w, run))
      planned += outcome.status == WhatIfOutcome::Status::planned;
    state.counters["planned"] = planned;
  }
}
BENCHMARK(what_if)->Unit(benchmark::kSecond)->MeasureProcessCPUTime()->UseRealTime()->Iterations(1);

}  // namespace
}  // namespace topomoe

BENCHMARK_MAIN();
