// Kernels with one fault each, and their twins without: what sanitizers and the harness say of them is checked by
// faults_test.cpp, which finds the faulty lines by their comments.
//
//   faults NAME    runs it under the sanitizer that this program is compiled with
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "kernels/dynamic_shared.cuh"
#include "kernels/launch.hpp"

namespace topomoe::kernels {
namespace {

constexpr int kThreads = 64;

template <bool Barrier>
__global__ void reverse(int* out, const int* in) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  if (Barrier) __syncthreads();
  out[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];  // fault: no barrier before
}

// Two tiles in turn: without the second barrier a fast thread overwrites what a slow one still reads.
template <bool Barrier>
__global__ void reverse_twice(int* out, const int* in) {
  __shared__ int tile[kThreads];
  for (int pass = 0; pass < 2; ++pass) {
    tile[threadIdx.x] = in[threadIdx.x];  // fault: no barrier after
    __syncthreads();
    out[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
    if (Barrier) __syncthreads();
  }
}

// A shuffle waits for the warp, but orders no memory.
template <bool Barrier>
__global__ void broadcast(int* out, const int* in) {
  __shared__ int word[kThreads / 32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x % 32 == 0) word[warp] = in[warp];
  const int lane = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) % 32, static_cast<int>(threadIdx.x));
  if (Barrier) __syncwarp();
  out[threadIdx.x] = word[warp] + lane;  // fault: no __syncwarp before
}

template <bool Own>
__global__ void one_word_a_block(int* out) {
  if (threadIdx.x == 0) out[Own ? blockIdx.x : 0] = static_cast<int>(blockIdx.x);  // fault: one word for all blocks
}

template <bool Atomic>
__global__ void count(int* out) {
  if (Atomic) {
    atomicAdd(out, 1);
  } else {
    *out += 1;  // fault: not atomic
  }
}

template <int Beyond>
__global__ void shift(int* out, const int* in) {
  out[threadIdx.x + Beyond] = in[threadIdx.x];  // fault: one element beyond the end
}

// Not inlined: else the compiler itself sees where the tile ends.
[[gnu::noinline]] __device__ int sum_of(const int* words, int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += words[i];  // fault: one element beyond the tile
  return sum;
}

template <int Beyond>
__global__ void shared_sum(int* out, const int* in) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = sum_of(tile, kThreads + Beyond);
}

template <int Beyond>
__global__ void dynamic_sum(int* out, const int* in) {
  int* tile = dynamic_shared<int>();
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < kThreads + Beyond; ++i) sum += tile[i];  // fault: one element beyond what was launched with
  out[threadIdx.x] = sum;
}

template <int First>
__global__ void copy_vectors(int* out, const int* in) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < kThreads / 4 - 1)
    reinterpret_cast<int4*>(out)[i] = *reinterpret_cast<const int4*>(in + First + 4 * i);  // fault: 16 bytes from 4
}

void run(const std::string& name) {
  int *out = nullptr, *in = nullptr;
  TOPOMOE_CUDA_TRY("out", cudaMalloc(reinterpret_cast<void**>(&out), kThreads * sizeof(int)));
  TOPOMOE_CUDA_TRY("in", cudaMalloc(reinterpret_cast<void**>(&in), kThreads * sizeof(int)));
  TOPOMOE_CUDA_TRY("zero", cudaMemsetAsync(in, 0, kThreads * sizeof(int), nullptr));
  TOPOMOE_CUDA_TRY("zero", cudaMemsetAsync(out, 0, kThreads * sizeof(int), nullptr));
  const std::map<std::string, void (*)(int*, const int*)> of_one_block{{"reverse", reverse<true>},
                                                                       {"no_barrier_before", reverse<false>},
                                                                       {"reverse_twice", reverse_twice<true>},
                                                                       {"no_barrier_after", reverse_twice<false>},
                                                                       {"broadcast", broadcast<true>},
                                                                       {"no_syncwarp", broadcast<false>},
                                                                       {"shift", shift<0>},
                                                                       {"beyond_end", shift<1>},
                                                                       {"shared_sum", shared_sum<0>},
                                                                       {"beyond_tile", shared_sum<1>},
                                                                       {"dynamic_sum", dynamic_sum<0>},
                                                                       {"beyond_dynamic", dynamic_sum<1>},
                                                                       {"copy_vectors", copy_vectors<0>},
                                                                       {"misaligned", copy_vectors<1>}};
  const std::map<std::string, void (*)(int*)> of_many{{"word_a_block", one_word_a_block<true>},
                                                      {"one_word", one_word_a_block<false>},
                                                      {"count", count<true>},
                                                      {"count_plainly", count<false>}};
  if (const auto found = of_one_block.find(name); found != of_one_block.end()) {
    launch(name.c_str(), found->second, 1, kThreads, kThreads * sizeof(int), nullptr, out, in);
  } else {
    launch(name.c_str(), of_many.at(name), kThreads, 32, 0, nullptr, out);
  }
  cudaFree(in);
  cudaFree(out);
}

}  // namespace
}  // namespace topomoe::kernels

// ThreadSanitizer sleeps a second before it ends, for threads that there are none of here.
extern "C" const char* __tsan_default_options();                                 // NOLINT
extern "C" const char* __tsan_default_options() { return "atexit_sleep_ms=0"; }  // NOLINT

int main(int, char** arguments) {
  try {
    topomoe::kernels::run(arguments[1]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
