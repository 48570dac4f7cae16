// What the host kernels make of this machine: each row beside the machine's own limit, measured in the same process and
// between its repetitions (peaks.hpp). Medians. Rows register themselves in bench_*.cpp.
#include <benchmark/benchmark.h>

#include <string>

#include "kernels/bench/peaks.hpp"
#include "kernels/cpu_isa.hpp"

int main(int argc, char** argv) {
  using namespace topomoe;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("isa", std::string(name(kernels::best_isa())));
  benchmark::AddCustomContext("cpus", std::to_string(kernels::allowed_cpus()));
  if (const std::string why = bench::missing(bench::Limit::amx); !why.empty())
    benchmark::AddCustomContext("skipped", why);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
