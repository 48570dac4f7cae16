// planner_accuracy [-v]: predicted against measured, table by table; exit 1 when a stated target is missed.
#include <cstring>

#include "tests/planner/accuracy/tables.hpp"

int main(int argc, char** argv) {
  topomoe::accuracy::Report report(argc > 1 && std::strcmp(argv[1], "-v") == 0);
  topomoe::accuracy::nccl(report);
  topomoe::accuracy::deepep(report);
  topomoe::accuracy::gemm(report);
  topomoe::accuracy::moe_kernel(report);
  topomoe::accuracy::fsmoe(report);
  topomoe::accuracy::moeshard(report);
  return report.missed() ? 1 : 0;
}
