// fp8 e4m3 on the host (OCP 8-bit floating point, revision 1.0): sign, 4 bits of exponent with bias 7, 3 of fraction.
// No infinities; the largest is 448, the least 2^-9; all ones but the sign are NaN. What it means to convert rows:
// convert_rows.hpp.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace topomoe::kernels {

struct Fp8 {
  std::uint8_t code;
};
static_assert(sizeof(Fp8) == 1);

constexpr float kFp8Largest = 448.0F;
constexpr std::uint8_t kFp8Nan = 0x7F;

// To nearest, ties to even; beyond 448, infinities too: 448. A NaN: 0x7F.
inline Fp8 to_fp8(float x) {
  if (std::isnan(x)) return {kFp8Nan};
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(x) >> 24 & 0x80U;
  const float size = std::abs(x);
  std::uint32_t code = 0x7E;
  if (size < 0x1p-6F) {
    // Multiples of 2^-9, which is the last bit of fp32 at 2^14: adding rounds. 8 of them are the least normal number.
    code = std::bit_cast<std::uint32_t>(size + 0x1p14F) - std::bit_cast<std::uint32_t>(0x1p14F);
  } else if (size < 464.0F) {  // halfway to what would be 480
    std::uint32_t bits = std::bit_cast<std::uint32_t>(size);
    bits += 0x7FFFFU + (bits >> 20 & 1U);  // 20 bits of fraction go; a carry is the next exponent
    code = (bits >> 20) - ((127U - 7U) << 3);
  }
  return {static_cast<std::uint8_t>(sign | code)};
}

inline float to_float(Fp8 x) {
  const std::uint32_t size = x.code & 0x7FU, sign = static_cast<std::uint32_t>(x.code & 0x80U) << 24;
  if (size == 0x7F) return std::bit_cast<float>(0x7FC00000U | sign);
  // Below 8: so many times 2^-9.
  const float value =
      size < 8 ? static_cast<float>(size) * 0x1p-9F : std::bit_cast<float>((size << 20) + ((127U - 7U) << 23));
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

}  // namespace topomoe::kernels
