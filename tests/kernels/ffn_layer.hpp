// One layer of experts on a device: its tensors, drawn from a seed, and the calls of forward and both halves of
// backward.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/grouped_ffn.hpp"
#include "tests/kernels/ffn_reference.hpp"

namespace topomoe::test {

// Where experts' weights and gradients lie.
struct FfnMatrices {
  ExpertMatrices gate, up, down;
  ExpertGradients gate_grad, up_grad, down_grad;
};

// Weight gradients begin at 0.25, which they are added to. What experts without a gate may not touch is null.
struct FfnLayer {
  FfnLayer(Device& device, FfnShape s, DType type, unsigned seed)
      : shape(std::move(s)),
        dtype(type),
        random(seed),
        in_values(random.reals(shape.rows() * shape.hidden, dtype)),
        w_gate_values(random.reals(shape.weights(), dtype)),
        w_up_values(random.reals(shape.weights(), dtype)),
        w_down_values(random.reals(shape.weights(), dtype)),
        out_grad_values(random.reals(shape.rows() * shape.hidden, dtype)),
        in(device, in_values, dtype),
        w_gate(device, w_gate_values, dtype),
        w_up(device, w_up_values, dtype),
        w_down(device, w_down_values, dtype),
        out_grad(device, out_grad_values, dtype),
        out(device, Floats(in_values.size(), 7.0F), dtype),
        in_grad(device, Floats(in_values.size(), 7.0F), dtype),
        gate(inner(device)),
        up(inner(device)),
        act(inner(device)),
        gate_grad(inner(device)),
        up_grad(inner(device)),
        w_gate_grad(device, Floats(w_gate_values.size(), 0.25F)),
        w_up_grad(device, Floats(w_gate_values.size(), 0.25F)),
        w_down_grad(device, Floats(w_gate_values.size(), 0.25F)) {}

  FfnMatrices in_blocks() const {
    if (!shape.gated()) return {nullptr, w_up.data(), w_down.data(), nullptr, w_up_grad.floats(), w_down_grad.floats()};
    return {w_gate.data(), w_up.data(), w_down.data(), w_gate_grad.floats(), w_up_grad.floats(), w_down_grad.floats()};
  }

  void forward(Device& device) const { forward(device, in_blocks()); }
  void forward(Device& device, const FfnMatrices& m) const {
    issue_forward(device, m);
    device.synchronize(soon());
  }
  void issue_forward(Device& device, const FfnMatrices& m) const {
    device.grouped_ffn(Lane::compute, {.in = in.data(),
                                       .out = out.data(),
                                       .gate = of_gate(gate),
                                       .up = up.data(),
                                       .act = act.data(),
                                       .w_gate = m.gate,
                                       .w_up = m.up,
                                       .w_down = m.down,
                                       .offsets = shape.offsets,
                                       .hidden = shape.hidden,
                                       .ffn = shape.ffn,
                                       .dtype = dtype,
                                       .activation = shape.activation});
  }
  void backward(Device& device, float scale) const { backward(device, scale, in_blocks()); }
  void backward(Device& device, float scale, const FfnMatrices& m) const {
    device.zero(Lane::compute, act.data(), at(shape.rows() * shape.ffn) * size_of(dtype));  // recomputed
    issue_backward(device, scale, m);
    device.synchronize(soon());
  }
  void issue_backward(Device& device, float scale, const FfnMatrices& m) const {
    device.grouped_ffn_dgrad(Lane::compute, {.out_grad = out_grad.data(),
                                             .in_grad = in_grad.data(),
                                             .gate = of_gate(gate),
                                             .up = up.data(),
                                             .gate_grad = of_gate(gate_grad),
                                             .up_grad = up_grad.data(),
                                             .act = act.data(),
                                             .w_gate = m.gate,
                                             .w_up = m.up,
                                             .w_down = m.down,
                                             .offsets = shape.offsets,
                                             .hidden = shape.hidden,
                                             .ffn = shape.ffn,
                                             .dtype = dtype,
                                             .activation = shape.activation});
    device.grouped_ffn_wgrad(Lane::compute, {.in = in.data(),
                                             .out_grad = out_grad.data(),
                                             .act = act.data(),
                                             .gate_grad = of_gate(gate_grad),
                                             .up_grad = up_grad.data(),
                                             .w_gate_grad = m.gate_grad,
                                             .w_up_grad = m.up_grad,
                                             .w_down_grad = m.down_grad,
                                             .scale = scale,
                                             .offsets = shape.offsets,
                                             .hidden = shape.hidden,
                                             .ffn = shape.ffn,
                                             .dtype = dtype,
                                             .activation = shape.activation});
  }

  FfnShape shape;
  DType dtype;
  Random random;
  Floats in_values, w_gate_values, w_up_values, w_down_values, out_grad_values;
  Tensor in, w_gate, w_up, w_down, out_grad, out, in_grad, gate, up, act, gate_grad, up_grad;
  Tensor w_gate_grad, w_up_grad, w_down_grad;

 private:
  Tensor inner(Device& device) const { return {device, Floats(at(shape.rows() * shape.ffn)), dtype}; }
  void* of_gate(const Tensor& tensor) const { return shape.gated() ? tensor.data() : nullptr; }
};

}  // namespace topomoe::test
