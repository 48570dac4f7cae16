// Kernels beside what the machine gives. Rows register themselves in bench_*.cpp.
#include <benchmark/benchmark.h>

BENCHMARK_MAIN();
