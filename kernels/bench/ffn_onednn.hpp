// The three products of experts by oneDNN, with its own packing of the weights and its own threads: what packed experts
// are measured against. Without SwiGLU, which it would do in a pass of its own.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/grouped_ffn.hpp"

namespace topomoe::bench {

// Runs `experts` experts of `rows` rows each, on the tensors of `op` (gate, up and act included), whose weights it
// copies. Empty where oneDNN is not built in.
std::function<void()> onednn_ffn(const kernels::GroupedFfn& op, std::int64_t experts, std::int64_t rows, int threads);

}  // namespace topomoe::bench
