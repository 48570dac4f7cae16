// Scores of a router: e^x and 1 / (1 + e^-x) of fp32 in fused multiply-adds, multiplications and additions, in one
// order and each of them written out: the same bits on every CPU and GPU, as long as nobody contracts what is left
// (-ffp-contract=off, --fmad=false), so that the same experts are chosen everywhere. router_score_simd.hpp has the same
// lines for sixteen at once. (exp.hpp, without FMA, is for what compilers turn into vectors of any instruction set.)
//
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by a polynomial (error 1.3e-7 at most, exact at 0), 2^n by its exponent; fp32's
// ln 2 is off by 1.9e-9, n times. 1 / d: bits subtracted from a constant (5 % off), a Newton step whose constant halves
// the square of that (0.15 %), and a cubic one. Off by 2.5 parts in 2^23 up to |x| = 20, by 4 beyond (all of 1.7
// million x tried). A NaN stays one. Where a CPU has no FMA the library works one out: slow, the same bits.
#pragma once

#include "kernels/exp.hpp"

namespace topomoe::kernels {

// a b + c, rounded once.
TOPOMOE_HOST_DEVICE inline float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

namespace score {
// 1.5 x 2^23 + 127: adding it rounds to the integer n, and n + 127 lies in the lowest bits.
constexpr float kShift = 12583039.0F;
constexpr float kLog2e = 1.44269504F, kLn2 = 0.693147182F;
constexpr float kC5 = 0.00836657499F, kC4 = 0.0418994761F, kC3 = 0.166665428F, kC2 = 0.499991348F;
// Found by trying all: the least error of y (c - d y) for y = bits - bits of d.
constexpr std::uint32_t kReciprocalBits = 0x7EF24000U;
constexpr float kReciprocalStep = 2.0015F;
constexpr float kMost = 87.0F;    // of a sigmoid's |x|: it is neither 0 nor denormal
constexpr float kLeast = -88.0F;  // e^x is 0
}  // namespace score

// Of x <= 0, for a softmax: 0 below -87.7.
TOPOMOE_HOST_DEVICE inline float exp_below(float x) {
  x = x < score::kLeast ? score::kLeast : x;
  const float shifted = fused(x, score::kLog2e, score::kShift);
  const float r = fused(shifted - score::kShift, -score::kLn2, x);
  float p = fused(score::kC5, r, score::kC4);
  p = fused(p, r, score::kC3);
  p = fused(p, r, score::kC2);
  p = fused(p, r, 1.0F);
  p = fused(p, r, 1.0F);
  return p * float_of_bits(bits_of_float(shifted) << 23);
}

// The same of -x, signs moved to where they cost nothing; then 1 over it and 1.
TOPOMOE_HOST_DEVICE inline float sigmoid_score(float x) {
  x = x < -score::kMost ? -score::kMost : x > score::kMost ? score::kMost : x;
  const float shifted = fused(x, -score::kLog2e, score::kShift);
  const float r = fused(shifted - score::kShift, score::kLn2, x);
  float p = fused(-score::kC5, r, score::kC4);
  p = fused(p, r, -score::kC3);
  p = fused(p, r, score::kC2);
  p = fused(p, r, -1.0F);
  p = fused(p, r, 1.0F);
  const float d = fused(p, float_of_bits(bits_of_float(shifted) << 23), 1.0F);
  const float about = float_of_bits(score::kReciprocalBits - bits_of_float(d));
  const float near = about * fused(-d, about, score::kReciprocalStep);
  const float off = fused(-d, near, 1.0F);
  return fused(near, fused(off, off, off), near);
}

}  // namespace topomoe::kernels
