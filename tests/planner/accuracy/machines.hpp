// The machines that the tables were taken on: datasheet figures (NVIDIA's, SM counts from memory), as configs/clusters.
#pragma once

#include "topomoe/topology.hpp"

namespace topomoe::accuracy {

inline GpuSpec h100_sxm() { return {"H100 SXM 80GB", 80, 3350, 989, 1978, 67, 132, Source::datasheet, ""}; }
inline GpuSpec a100_sxm() { return {"A100 SXM 80GB", 80, 2039, 312, 0, 19.5, 108, Source::datasheet, ""}; }

}  // namespace topomoe::accuracy
