#include "kernels/convert_rows.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/bf16.hpp"
#include "kernels/fp8.hpp"
#include "kernels/progress.hpp"

namespace topomoe::kernels {

void to_fp8_cpu(const ToFp8& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
      const T* in = static_cast<const T*>(op.in) + row * op.columns;
      std::uint8_t* out = op.out + row * codes_stride(op);
      float* scale = op.scales + row * scales_stride(op);
      for (std::int64_t first = 0; first < op.columns; first += kScaleGroup, ++scale) {
        const std::int64_t end = std::min(first + kScaleGroup, op.columns);
        float amax = 0.0F;
        for (std::int64_t i = first; i < end; ++i) {
          const float size = std::abs(to_float(in[i]));
          if (std::isfinite(size)) amax = std::max(amax, size);
        }
        *scale = std::max(amax / kFp8Largest, kLeastScale);
        const float inverse = 1.0F / *scale;
        for (std::int64_t i = first; i < end; ++i) {
          const float x = to_float(in[i]);
          out[i] = std::isfinite(x) ? to_fp8(x * inverse).code : kFp8Nan;
        }
      }
      progress.did(2 * op.columns * Progress::kMovedElement);
    }
  });
}

void from_fp8_cpu(const FromFp8& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    for (std::int64_t row = 0; row < op.rows; ++row) {
      const std::uint8_t* in = op.in + row * codes_stride(op);
      const float* scales = op.scales + row * scales_stride(op);
      T* out = static_cast<T*>(op.out) + row * op.columns;
      for (std::int64_t i = 0; i < op.columns; ++i)
        out[i] = from_float<T>(to_float(Fp8{in[i]}) * scales[i / kScaleGroup]);
      progress.did(op.columns * Progress::kMovedElement);
    }
  });
}

}  // namespace topomoe::kernels
