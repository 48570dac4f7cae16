// accuracy_tables [-v] [--pairs FILE] [--or-skip]: predicted against measured, table by table; exit 1 when a stated
// target is missed. -v: every pair beside its group; FILE: every pair as CSV; --or-skip: exit 77 without measurements.
#include <cstdio>
#include <string>

#include "tests/planner/accuracy/measurements.hpp"
#include "tests/planner/accuracy/tables.hpp"

int main(int argc, char** argv) {
  bool every_pair = false, or_skip = false;
  std::string pairs;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "-v")
      every_pair = true;
    else if (word == "--or-skip")
      or_skip = true;
    else if (word == "--pairs" && i + 1 < argc)
      pairs = argv[++i];
    else
      return std::fprintf(stderr, "accuracy_tables [-v] [--pairs FILE] [--or-skip]\n"), 2;
  }
  if (or_skip && topomoe::accuracy::read_table("nccl_single_node.csv").empty())
    return std::printf("no %s\n", topomoe::accuracy::measurements_path("").c_str()), 77;
  topomoe::accuracy::Report report(every_pair, pairs);
  report.note("measured times: " + topomoe::accuracy::measurements_path(""));
  topomoe::accuracy::nccl(report);
  topomoe::accuracy::deepep(report);
  topomoe::accuracy::gemm(report);
  topomoe::accuracy::moe_kernel(report);
  topomoe::accuracy::attention(report);
  topomoe::accuracy::fsmoe(report);
  topomoe::accuracy::moeshard(report);
  topomoe::accuracy::training_steps(report);
  report.note(report.missed() ? "\na stated target is missed" : "\nevery stated target is met");
  return report.missed() ? 1 : 0;
}
