// Rows to fp8 and back, for an exchange of half the bytes: e4m3 with one fp32 scale for each 128 elements of a row, as
// DeepSeek-V3 (arXiv 2412.19437, 3.3) and DeepEP have it. The last group of a row may be shorter.
//
//   scale = max(amax / 448, 2^-126)      amax: the largest |x| of the group's finite elements; 448 is e4m3's largest
//   code  = e4m3(x * (1 / scale))        to nearest, ties to even; what rounding puts beyond 448 is 448
//   out   = code * scale                 fp32, rounded once to dtype
//
// A finite x >= 2^-6 scale comes back to 1 part in 16, less to 2^-10 scale. A group of zeros comes back as zeros, with
// their signs. NaN and infinity become NaN (0x7F), so that what has overflowed still shows, and leave the rest of their
// group as it is. The same bits on every device: each operation above is one of IEEE's. (DeepEP takes amax as no less
// than 1e-4; gradients may be smaller.)
//
// Codes and scales lie in two arrays without gaps; with row_bytes in one: both have so many bytes from a row to the
// next (fp8_row.hpp says how schedules have them). What lies between is left as it is.
//
// Bytes of rows x columns in bf16: 3.03 each way. 8,192 rows of 7,168: 178 MB, 53 us at 3.35 TB/s (H100 SXM's
// datasheet). Not measured.
#pragma once

#include <cstdint>

#include "kernels/gpu_stream.hpp"
#include "topomoe/device.hpp"
#include "topomoe/fp8_row.hpp"

namespace topomoe::kernels {

constexpr std::int64_t kScaleGroup = kFp8ScaleGroup;
constexpr float kLeastScale = 0x1p-126F;  // the least normal number: a denormal one would be lost by -ftz

constexpr std::int64_t scales_of(std::int64_t columns) { return fp8_scales(columns); }

struct ToFp8 {
  std::uint8_t* out = nullptr;  // [rows, columns]
  float* scales = nullptr;      // [rows, scales_of(columns)]
  const void* in = nullptr;     // [rows, columns] of dtype
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_bytes = 0;  // a multiple of 4
  DType dtype = DType::f32;
};

struct FromFp8 {
  void* out = nullptr;               // [rows, columns] of dtype
  const std::uint8_t* in = nullptr;  // [rows, columns]
  const float* scales = nullptr;     // [rows, scales_of(columns)]
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_bytes = 0;
  DType dtype = DType::f32;
};

// From a row to the next: codes, and scales.
template <class Op>
constexpr std::int64_t codes_stride(const Op& op) {
  return op.row_bytes > 0 ? op.row_bytes : op.columns;
}
template <class Op>
constexpr std::int64_t scales_stride(const Op& op) {
  return op.row_bytes > 0 ? op.row_bytes / 4 : scales_of(op.columns);
}

void to_fp8_cpu(const ToFp8& op, const ProgressHook& progress);
void from_fp8_cpu(const FromFp8& op, const ProgressHook& progress);

void to_fp8_gpu(const ToFp8& op, GpuStream stream);
void from_fp8_gpu(const FromFp8& op, GpuStream stream);

}  // namespace topomoe::kernels
