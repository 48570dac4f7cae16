// The machines that the tables were taken on: datasheet figures (NVIDIA's, SM counts from memory), as configs/clusters.
#pragma once

#include "topomoe/calibration.hpp"

namespace topomoe::accuracy {

inline GpuSpec h100_sxm() { return {"H100 SXM 80GB", 80, 3350, 989, 1978, 67, 132, Source::datasheet, ""}; }
inline GpuSpec a100_sxm() { return {"A100 SXM 80GB", 80, 2039, 312, 0, 19.5, 108, Source::datasheet, ""}; }

// GEMM and MoE kernel of H100, fitted on all rows of their tables; without figures where the tables are not there.
Calibration h100_compute();

}  // namespace topomoe::accuracy
