// e^x of fp32 in plain multiplications and additions, in one order: what compilers turn into vectors of whatever
// instructions there are, with the same bits (-ffp-contract=off). Scores of a router: router_score.hpp, with FMA.
//
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by a polynomial (error 1.3e-7 at most, exact at 0), 2^n by its exponent. At most
// 2 units in the last place off. A NaN stays one.
#pragma once

#include <cstdint>

#if defined(__CUDACC__) || defined(TOPOMOE_SIMT)
#define TOPOMOE_HOST_DEVICE __host__ __device__
#else
#define TOPOMOE_HOST_DEVICE
#endif

namespace topomoe::kernels {

TOPOMOE_HOST_DEVICE inline float float_of_bits(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return __builtin_bit_cast(float, bits);
#endif
}
TOPOMOE_HOST_DEVICE inline std::uint32_t bits_of_float(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  return __builtin_bit_cast(std::uint32_t, x);
#endif
}

// Of x between -87 and 87; anything of others, but a NaN of a NaN.
TOPOMOE_HOST_DEVICE inline float exp_inside(float x) {
  // 1.5 x 2^23 + 127: adding it rounds to the integer n, and n + 127 lies in the lowest bits.
  constexpr float kShift = 12583039.0F;
  const float shifted = x * 1.44269504F + kShift;
  const float n = shifted - kShift;
  const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;  // ln 2 in two parts, the first exact times n
  float p = 0.00836657499F;
  p = p * r + 0.0418994761F;
  p = p * r + 0.166665428F;
  p = p * r + 0.499991348F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return p * float_of_bits(bits_of_float(shifted) << 23);
}

// x counts as no less than -87 and no more than 87: neither e^x nor 1 / (1 + e^x) is 0, infinite or denormal.
TOPOMOE_HOST_DEVICE inline float exp_of(float x) { return exp_inside(x < -87.0F ? -87.0F : x > 87.0F ? 87.0F : x); }

TOPOMOE_HOST_DEVICE inline float sigmoid_of(float x) { return 1.0F / (1.0F + exp_of(-x)); }

}  // namespace topomoe::kernels
