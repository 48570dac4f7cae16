#include "kernels/gelu.hpp"

#include <cmath>

#include "kernels/bf16.hpp"
#include "kernels/exp.hpp"
#include "kernels/progress.hpp"

namespace topomoe::kernels {
namespace {

float sigmoid_at(float x) { return sigmoid_of(kGeluSlope * (x + kGeluCubic * (x * x * x))); }

}  // namespace

void gelu_cpu(const Gelu& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    const T* ups = static_cast<const T*>(op.up);
    T* acts = static_cast<T*>(op.act);
    for (std::int64_t i = 0; i < op.count; ++i) {
      const float x = to_float(ups[i]);
      acts[i] = from_float<T>(x * sigmoid_at(x));
      progress.did(Progress::kExponential);
    }
  });
}

void gelu_backward_cpu(const GeluBackward& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    const T* ups = static_cast<const T*>(op.up);
    const T* act_grads = static_cast<const T*>(op.act_grad);
    T* acts = static_cast<T*>(op.act);
    T* up_grads = static_cast<T*>(op.up_grad);
    for (std::int64_t i = 0; i < op.count; ++i) {
      const float x = to_float(ups[i]);
      const float act_grad = to_float(act_grads[i]);  // read before up_grads[i], which may be it, is written
      const float s = sigmoid_at(x);
      const float slope = kGeluSlope * (1.0F + 3.0F * kGeluCubic * (x * x));
      acts[i] = from_float<T>(x * s);
      const float bend = std::abs(x) < kGeluFlat ? x * (s * (1.0F - s)) * slope : 0.0F;
      up_grads[i] = from_float<T>(act_grad * (s + bend));
      progress.did(Progress::kExponential);
    }
  });
}

}  // namespace topomoe::kernels
