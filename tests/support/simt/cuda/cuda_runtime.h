// Stands in for CUDA's header of that name, for the SIMT harness: the language of kernels as a host compiler reads it.
// Included before anything else, as nvcc does.
//
// `__shared__` is static, and the linker puts statics of functions in topomoe::kernels of *.cu files where the
// scheduler overwrites them between blocks (shared.ld); such files may have no other. Dynamic:
// kernels/dynamic_shared.cuh. What is not here is not used yet: add it with CUDA's meaning.
#pragma once

#include <cuda_runtime_api.h>
#include <math.h>  // NOLINT(modernize-deprecated-headers): kernels call isnan() and expf() unqualified

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <tuple>
#include <type_traits>

#include "tests/support/simt/scheduler.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) alignas(n)

constexpr int warpSize = topomoe::simt::kWarp;
using uint3 = topomoe::simt::Index;
static constexpr const topomoe::simt::Index &threadIdx = topomoe::simt::here.thread,
                                            &blockIdx = topomoe::simt::here.block,
                                            &blockDim = topomoe::simt::here.block_size,
                                            &gridDim = topomoe::simt::here.grid_size;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace topomoe::simt {

template <class T>
T shuffled(const char* what, unsigned mask, T value, unsigned source, const Place& place) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = with_warp(WarpOp::shuffle, what, mask, bits, source, place);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned lane() { return linear_thread() % kWarp; }

// *at = change(*at) in one step, ordering nothing; what was there.
template <class T, class F>
T change(T* at, F&& f) {
  T before;
  __atomic_load(at, &before, __ATOMIC_RELAXED);
  for (;;) {
    T after = f(before);
    if (__atomic_compare_exchange(at, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return before;
  }
}

}  // namespace topomoe::simt

// Barriers, shuffles and votes: `place` is where the kernel calls them, and threads meet at one place only.
using SimtPlace = topomoe::simt::Place;

inline void __syncthreads(SimtPlace place = SimtPlace::current()) {
  topomoe::simt::barrier("__syncthreads", false, place);
}
inline int __syncthreads_count(int vote, SimtPlace place = SimtPlace::current()) {
  return topomoe::simt::barrier("__syncthreads_count", vote != 0, place);
}
inline int __syncthreads_or(int vote, SimtPlace place = SimtPlace::current()) {
  return topomoe::simt::barrier("__syncthreads_or", vote != 0, place) > 0 ? 1 : 0;
}
inline int __syncthreads_and(int vote, SimtPlace place = SimtPlace::current()) {
  return topomoe::simt::barrier("__syncthreads_and", vote == 0, place) == 0 ? 1 : 0;
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU, SimtPlace place = SimtPlace::current()) {
  topomoe::simt::with_warp(topomoe::simt::WarpOp::sync, "__syncwarp", mask, 0, 0, place);
}
inline unsigned __ballot_sync(unsigned mask, int vote, SimtPlace place = SimtPlace::current()) {
  return static_cast<unsigned>(
      topomoe::simt::with_warp(topomoe::simt::WarpOp::ballot, "__ballot_sync", mask, vote != 0, 0, place));
}
inline int __any_sync(unsigned mask, int vote, SimtPlace place = SimtPlace::current()) {
  return topomoe::simt::with_warp(topomoe::simt::WarpOp::ballot, "__any_sync", mask, vote != 0, 0, place) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int vote, SimtPlace place = SimtPlace::current()) {
  return topomoe::simt::with_warp(topomoe::simt::WarpOp::ballot, "__all_sync", mask, vote == 0, 0, place) == 0 ? 1 : 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, SimtPlace place = SimtPlace::current()) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return static_cast<unsigned>(
      topomoe::simt::with_warp(topomoe::simt::WarpOp::match, "__match_any_sync", mask, bits, 0, place));
}
// Its own lane: the warp has come apart, which a GPU may always do, and is hardest on who hopes for more.
inline unsigned __activemask() { return 1U << topomoe::simt::lane(); }

// Sources are those of PTX's shfl: a lane outside the segment of `width` lanes gets its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, SimtPlace place = SimtPlace::current()) {
  const unsigned w = static_cast<unsigned>(width), first = topomoe::simt::lane() / w * w;
  return topomoe::simt::shuffled("__shfl_sync", mask, value, first + static_cast<unsigned>(source) % w, place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize, SimtPlace place = SimtPlace::current()) {
  const unsigned lane = topomoe::simt::lane();
  const bool inside = by <= lane % static_cast<unsigned>(width);
  return topomoe::simt::shuffled("__shfl_up_sync", mask, value, inside ? lane - by : lane, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize, SimtPlace place = SimtPlace::current()) {
  const unsigned lane = topomoe::simt::lane(), w = static_cast<unsigned>(width);
  return topomoe::simt::shuffled("__shfl_down_sync", mask, value, lane % w + by < w ? lane + by : lane, place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width = warpSize, SimtPlace place = SimtPlace::current()) {
  const unsigned lane = topomoe::simt::lane(), w = static_cast<unsigned>(width);
  const unsigned other = lane ^ static_cast<unsigned>(with);
  return topomoe::simt::shuffled("__shfl_xor_sync", mask, value, other < lane / w * w + w ? other : lane, place);
}

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [value](T before) { return static_cast<T>(before + value); });
}
template <class T>
T atomicSub(T* at, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [value](T before) { return static_cast<T>(before - value); });
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [value](T before) { return std::max(before, value); });
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [value](T before) { return std::min(before, value); });
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [value](T before) { return before | value; });
}
template <class T>
T atomicAnd(T* at, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [value](T before) { return before & value; });
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return topomoe::simt::change(at, [=](T before) { return before == expected ? value : before; });
}

template <class T>
T __ldg(const T* at) {
  return *at;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float rsqrtf(float x) { return 1.0F / sqrtf(x); }

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

namespace topomoe::simt {
// Bytes that cudaFuncSetAttribute allowed, by kernel.
inline std::map<const void*, std::size_t>& shared_asked_for() {
  static std::map<const void*, std::size_t> bytes;
  return bytes;
}
}  // namespace topomoe::simt

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  topomoe::simt::shared_asked_for()[reinterpret_cast<const void*>(kernel)] = static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  namespace simt = topomoe::simt;
  const auto index = [](dim3 d) { return simt::Index{d.x, d.y, d.z}; };
  const simt::Shape shape{index(config->gridDim), index(config->blockDim), config->dynamicSmemBytes};
  const std::size_t asked = simt::shared_asked_for()[reinterpret_cast<const void*>(kernel)];
  const std::string refusal = simt::refusal(shape, std::max(asked, simt::kSharedUnasked));
  if (!refusal.empty()) return simt::failed(cudaErrorInvalidConfiguration, refusal);
  // Each thread gets its own copy of the parameters.
  const auto thread = [kernel, values = std::tuple<Parameters...>(std::forward<Arguments>(arguments)...)] {
    std::apply(kernel, values);
  };
  return simt::issue([shape, thread] {
    const std::string trouble = simt::launch(
        shape, [](void* f) { (*static_cast<decltype(thread)*>(f))(); },
        const_cast<void*>(static_cast<const void*>(&thread)));
    return trouble.empty() ? cudaSuccess : simt::failed(cudaErrorLaunchFailure, trouble);
  });
}
