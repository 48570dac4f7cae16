// Element types of device code, and rows in 16-byte pieces.
//
// As on the host (bf16.hpp), kernels are written once over T = float or __nv_bfloat16, compute in fp32 and round once.
// A row is walked in pieces of eight elements, which are one access of 16 bytes or two, then element by element: its
// tail, or all of it where rows do not begin at multiples of 16 bytes. One body serves both:
//
//   for_each_piece(columns, slices, threadIdx.x, blockDim.x, [&]<int W>(Width<W>, std::int64_t i) {
//     Piece<T, W> value = load_piece<W>(from + i);
//     ...
//   });
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

constexpr int kSlice = 8;

template <int W>
struct Width {};

template <class T, int W>
struct alignas(W == 1 ? alignof(T) : 16) Piece {
  T element[W];
};

template <int W, class T>
__device__ Piece<T, W> load_piece(const T* at) {
  return *reinterpret_cast<const Piece<T, W>*>(at);
}
template <class T, int W>
__device__ void store_piece(T* at, const Piece<T, W>& piece) {
  *reinterpret_cast<Piece<T, W>*>(at) = piece;
}

template <class... Pointers>
bool are_aligned(Pointers... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

// How many slices of each row of `columns` elements of T may be moved whole; null pointers do not count.
template <class T, class... Pointers>
std::int64_t whole_slices(std::int64_t columns, Pointers... pointers) {
  const bool aligned = are_aligned(pointers...) && columns * static_cast<std::int64_t>(sizeof(T)) % 16 == 0;
  return aligned ? columns / kSlice : 0;
}

// Items first, first + stride, ... of a row: its whole slices, then what elements are left.
template <class F>
__device__ void for_each_piece(std::int64_t columns, std::int64_t slices, std::int64_t first, std::int64_t stride,
                               F&& f) {
  for (std::int64_t i = first; i < slices; i += stride) f(Width<kSlice>{}, i * kSlice);
  for (std::int64_t i = slices * kSlice + first; i < columns; i += stride) f(Width<1>{}, i);
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
