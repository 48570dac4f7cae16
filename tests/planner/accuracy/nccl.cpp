#include "tests/planner/accuracy/measurements.hpp"
#include "tests/planner/accuracy/tables.hpp"

namespace topomoe::accuracy {

void nccl(Report& report) { report.skipped("NCCL", "no model yet"); }

}  // namespace topomoe::accuracy
