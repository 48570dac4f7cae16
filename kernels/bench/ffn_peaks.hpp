// What the machine gives at most, measured beside a benchmark: fractions of it mean something only in the same process,
// at the same time and on the same threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/thread_pool.hpp"
#include "topomoe/device.hpp"

namespace topomoe::bench {

// 1e9 bytes a second, read from end to end once by all threads. Cold where the memory is larger than the caches.
double read_GBps(kernels::ThreadPool& pool, std::span<const std::byte> memory);

// 1e9 operations a second out of registers alone, about a millisecond of them: tiles of bf16 with random contents (of
// zeros AMX multiplies a quarter faster, by the power that it saves), or fp32 FMAs. 0: no AMX, no AVX-512.
double multiply_GFLOPS(kernels::ThreadPool& pool, DType dtype);

}  // namespace topomoe::bench
