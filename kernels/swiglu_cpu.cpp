#include "kernels/swiglu.hpp"

#include <cmath>

#include "kernels/bf16.hpp"
#include "kernels/progress.hpp"

namespace topomoe::kernels {
namespace {

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

}  // namespace

void swiglu_cpu(const Swiglu& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    const T* gates = static_cast<const T*>(op.gate);
    const T* ups = static_cast<const T*>(op.up);
    T* acts = static_cast<T*>(op.act);
    for (std::int64_t i = 0; i < op.count; ++i) {
      const float gate = to_float(gates[i]);
      acts[i] = from_float<T>(gate * sigmoid(gate) * to_float(ups[i]));
      progress.did(Progress::kExponential);
    }
  });
}

void swiglu_backward_cpu(const SwigluBackward& op, const ProgressHook& hook) {
  Progress progress(hook);
  with_element(op.dtype, [&]<class T>(T) {
    const T* gates = static_cast<const T*>(op.gate);
    const T* ups = static_cast<const T*>(op.up);
    const T* act_grads = static_cast<const T*>(op.act_grad);
    T* acts = static_cast<T*>(op.act);
    T* gate_grads = static_cast<T*>(op.gate_grad);
    T* up_grads = static_cast<T*>(op.up_grad);
    for (std::int64_t i = 0; i < op.count; ++i) {
      const float gate = to_float(gates[i]);
      const float up = to_float(ups[i]);
      const float act_grad = to_float(act_grads[i]);  // read before gate_grads[i], which may be it, is written
      const float s = sigmoid(gate);
      acts[i] = from_float<T>(gate * s * up);
      up_grads[i] = from_float<T>(act_grad * (gate * s));
      gate_grads[i] = from_float<T>(act_grad * up * s * (1.0F + gate * (1.0F - s)));
      progress.did(Progress::kExponential);
    }
  });
}

}  // namespace topomoe::kernels
