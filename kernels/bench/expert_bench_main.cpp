// Kernels beside what the machine gives: see the files that register rows.
#include <benchmark/benchmark.h>

namespace topomoe::bench {
void register_ffn();
}

int main(int argc, char** argv) {
  topomoe::bench::register_ffn();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
