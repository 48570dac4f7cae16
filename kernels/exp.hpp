// e^x of fp32 in plain multiplications and additions, in one order: the same bits on every CPU and GPU, as long as
// nobody contracts them (-ffp-contract=off, --fmad=false). Scores of a router made from it choose the same experts
// everywhere.
//
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by the polynomial of Cephes' expf (S. Moshier), 2^n by its exponent. At most 2
// units in the last place off. A NaN stays one.
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

// Beyond, 2^n is no normal number.
constexpr float kLargestExponent = 87.0F;

// Of x between -87 and 87; anything of others, but a NaN of a NaN.
TOPOMOE_HOST_DEVICE inline float exp_inside(float x) {
  constexpr float kShift = 12582912.0F;  // 1.5 x 2^23: adding it rounds to an integer, which lies in the lowest bits
  const float shifted = x * 1.44269504F + kShift;
  const float n = shifted - kShift;
  const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;  // ln 2 in two parts, the first exact times n
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  return p * float_of_bits((bits_of_float(shifted) << 23) + 0x3F800000U);
}

// x counts as no less than -87 and no more than 87: neither e^x nor 1 / (1 + e^x) is 0, infinite or denormal.
TOPOMOE_HOST_DEVICE inline float exp_of(float x) {
  return exp_inside(x < -kLargestExponent ? -kLargestExponent : x > kLargestExponent ? kLargestExponent : x);
}

// Of x <= 0, for a softmax: 0 below -87.
TOPOMOE_HOST_DEVICE inline float exp_below(float x) { return x < -kLargestExponent ? 0.0F : exp_inside(x); }

TOPOMOE_HOST_DEVICE inline float sigmoid_of(float x) { return 1.0F / (1.0F + exp_of(-x)); }

}  // namespace topomoe::kernels
