// One function a table, one file a function.
#pragma once

#include "tests/planner/accuracy/report.hpp"

namespace topomoe::accuracy {

void nccl(Report&);
void deepep(Report&);
void gemm(Report&);
void moe_kernel(Report&);
void attention(Report&);
void fsmoe(Report&);
void moeshard(Report&);
void training_steps(Report&);

}  // namespace topomoe::accuracy
