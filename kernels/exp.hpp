// e^x of fp32 in plain multiplications and additions, in one order: the same bits on every CPU and GPU, as long as nobody
// contracts them (-ffp-contract=off, --fmad=false). Scores of a router made from it choose the same experts everywhere.
//
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by the polynomial of Cephes' expf (S. Moshier), 2^n by its exponent. At most 2 units
// in the last place off. x is taken as no less than -87 and no more than 87: neither e^x nor 1 / (1 + e^x) is 0, infinite or denormal. A NaN
// stays one.
#pragma once

#include <cstdint>

#if defined(__CUDACC__) || defined(TOPOMOE_SIMT)
#define TOPOMOE_HOST_DEVICE __host__ __device__
#else
#include <bit>
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

TOPOMOE_HOST_DEVICE inline float exp_of(float x) {
  constexpr float kShift = 12582912.0F;  // 1.5 x 2^23: adding it rounds to an integer, which lies in the lowest bits
  const float bounded = x < -87.0F ? -87.0F : x > 87.0F ? 87.0F : x;
  const float shifted = bounded * 1.44269504F + kShift;
  const float n = shifted - kShift;
  const float r = (bounded - n * 0.693359375F) - n * -2.12194440e-4F;  // ln 2 in two parts, the first exact times n
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n == n ? n : 0.0F) + 127);
  return p * float_of_bits(exponent << 23);
}

TOPOMOE_HOST_DEVICE inline float sigmoid_of(float x) { return 1.0F / (1.0F + exp_of(-x)); }

}  // namespace topomoe::kernels
