// Host-side element types. bf16 is the upper half of an fp32: conversion to fp32 is exact, conversion
// back rounds to nearest, ties to even; infinities stay, a NaN stays a (quiet) NaN.
//
// Host kernels are written once over the element type T (float or Bf16) and always compute in fp32;
// with_element() turns a DType into that T.
#pragma once

#include <bit>
#include <cstdint>

#include "topomoe/device.hpp"

namespace topomoe::kernels {

struct Bf16 {
  std::uint16_t bits;
};
static_assert(sizeof(Bf16) == 2);

inline float to_float(float x) { return x; }
inline float to_float(Bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

inline Bf16 to_bf16(float x) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {  // rounding could carry a NaN's payload into infinity
    return {static_cast<std::uint16_t>((bits >> 16) | 0x0040U)};
  }
  bits += 0x7FFFU + ((bits >> 16) & 1U);
  return {static_cast<std::uint16_t>(bits >> 16)};
}

template <class T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline Bf16 from_float<Bf16>(float x) {
  return to_bf16(x);
}

// Calls f(T{}) with T = float or Bf16; the argument only carries the type.
template <class F>
void with_element(DType dtype, F&& f) {
  if (dtype == DType::f32) {
    f(float{});
  } else {
    f(Bf16{});
  }
}

}  // namespace topomoe::kernels
