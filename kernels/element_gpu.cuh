// Element types of device code, and rows in 16-byte pieces.
//
// As on the host (bf16.hpp), kernels are written once over T = float or __nv_bfloat16, compute in fp32
// and round once. Vector<T> is 16 bytes of elements: four floats or eight bf16.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "topomoe/device.hpp"

namespace topomoe::kernels {

__device__ inline float load(float x) { return x; }
__device__ inline float load(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ inline T stored(float x);
template <>
__device__ inline float stored<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 stored<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <class T, int Width>
struct alignas(sizeof(T) * Width) Vector {
  T element[Width];
};

// Elements in a 16-byte vector.
template <class T>
constexpr int kVectorWidth = 16 / static_cast<int>(sizeof(T));

// Whether rows of `columns` elements that start at these pointers can be read 16 bytes at a time.
template <class T, class... Pointers>
bool can_vectorize(std::int64_t columns, Pointers... pointers) {
  return columns % kVectorWidth<T> == 0 && ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls f(T{}) with T = float or __nv_bfloat16.
template <class F>
void with_gpu_element(DType dtype, F&& f) {
  if (dtype == DType::f32) {
    f(float{});
  } else {
    f(__nv_bfloat16{});
  }
}

}  // namespace topomoe::kernels
