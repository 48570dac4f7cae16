// Experts by oneDNN as well as it can: weights in its own order, its own threads, SwiGLU as what follows the first two
// products inside of them (swish of gate, times gate of up). What packed experts are measured against.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/grouped_ffn.hpp"

namespace topomoe::bench {

// Runs `experts` experts of `rows` rows each, on the tensors of `op` (gate and act included), whose weights it
// copies. Empty where oneDNN is not built in.
std::function<void()> onednn_ffn(const kernels::GroupedFfn& op, std::int64_t experts, std::int64_t rows, int threads);

}  // namespace topomoe::bench
