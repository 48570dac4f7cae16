// router_score.hpp over F16 of simd_*.hpp, which is included first: N times 16, step by step for all of them, so that
// none waits for the one before.
#pragma once

#include <cstddef>

#include "kernels/router_score.hpp"

namespace topomoe::kernels {
namespace {

// x becomes the polynomial of what is left of it, power 2^n. kSign -1: of e^-x.
template <int kSign, std::size_t N>
TOPOMOE_INLINE void exponentials(F16 (&x)[N], F16 (&power)[N]) {
  constexpr auto kS = static_cast<float>(kSign);
  F16 r[N];
  for (std::size_t i = 0; i < N; ++i) power[i] = fused(x[i], set(kS * score::kLog2e), set(score::kShift));
  for (std::size_t i = 0; i < N; ++i) r[i] = subtract(power[i], set(score::kShift));
  for (std::size_t i = 0; i < N; ++i) r[i] = fused(r[i], set(-kS * score::kLn2), x[i]);
  for (std::size_t i = 0; i < N; ++i) x[i] = fused(set(kS * score::kC5), r[i], set(score::kC4));
  for (std::size_t i = 0; i < N; ++i) x[i] = fused(x[i], r[i], set(kS * score::kC3));
  for (std::size_t i = 0; i < N; ++i) x[i] = fused(x[i], r[i], set(score::kC2));
  for (std::size_t i = 0; i < N; ++i) x[i] = fused(x[i], r[i], set(kS));
  for (std::size_t i = 0; i < N; ++i) x[i] = fused(x[i], r[i], set(1.0F));
  for (std::size_t i = 0; i < N; ++i) power[i] = power_of(power[i]);
}

// least and most hand on a NaN that comes second.
template <std::size_t N>
TOPOMOE_INLINE void exp_below(F16 (&x)[N]) {
  F16 power[N];
  for (std::size_t i = 0; i < N; ++i) x[i] = most(set(score::kLeast), x[i]);
  exponentials<1>(x, power);
  for (std::size_t i = 0; i < N; ++i) x[i] = multiply(x[i], power[i]);
}

template <std::size_t N>
TOPOMOE_INLINE void sigmoid_score(F16 (&x)[N]) {
  F16 power[N], d[N];
  for (std::size_t i = 0; i < N; ++i) x[i] = least(set(score::kMost), most(set(-score::kMost), x[i]));
  exponentials<-1>(x, power);
  for (std::size_t i = 0; i < N; ++i) d[i] = fused(x[i], power[i], set(1.0F));
  const auto bits = static_cast<std::int32_t>(score::kReciprocalBits);
  for (std::size_t i = 0; i < N; ++i) x[i] = as_floats(subtract(set(bits), as_integers(d[i])));
  for (std::size_t i = 0; i < N; ++i) x[i] = multiply(x[i], fused_less(d[i], x[i], set(score::kReciprocalStep)));
  for (std::size_t i = 0; i < N; ++i) d[i] = fused_less(d[i], x[i], set(1.0F));
  for (std::size_t i = 0; i < N; ++i) x[i] = fused(x[i], fused(d[i], d[i], d[i]), x[i]);
}

}  // namespace
}  // namespace topomoe::kernels
