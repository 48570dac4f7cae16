// SwiGLU or GELU experts over rows sorted by expert, by definition, in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "kernels/grouped_ffn.hpp"
#include "tests/kernels/on_device.hpp"

namespace topomoe::test {

inline std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

struct FfnShape {
  std::vector<std::int64_t> offsets;  // of rows, experts + 1
  std::int64_t hidden, ffn;
  kernels::Activation activation = kernels::Activation::swiglu;
  std::int64_t rows() const { return offsets.back(); }
  std::int64_t weights() const { return (static_cast<std::int64_t>(offsets.size()) - 1) * hidden * ffn; }
  bool gated() const { return activation == kernels::Activation::swiglu; }
};

// The experts in double.
struct FfnReference {
  FfnShape shape;
  Doubles in, w_gate, w_up, w_down;

  static double gelu(double x) {
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  }
  Doubles out_of_row(std::int64_t row, std::int64_t expert) const {
    const std::int64_t base = expert * shape.hidden * shape.ffn;
    Doubles act(at(shape.ffn)), out(at(shape.hidden));
    for (std::int64_t f = 0; f < shape.ffn; ++f) {
      double gate = 0, up = 0;
      for (std::int64_t h = 0; h < shape.hidden; ++h) {
        gate += in[at(row * shape.hidden + h)] * w_gate[at(base + f * shape.hidden + h)];
        up += in[at(row * shape.hidden + h)] * w_up[at(base + f * shape.hidden + h)];
      }
      act[at(f)] = shape.gated() ? gate / (1 + std::exp(-gate)) * up : gelu(up);
    }
    for (std::int64_t h = 0; h < shape.hidden; ++h) {
      for (std::int64_t f = 0; f < shape.ffn; ++f) out[at(h)] += act[at(f)] * w_down[at(base + h * shape.ffn + f)];
    }
    return out;
  }
  template <class F>
  void for_each_row(F&& f) const {
    for (std::size_t e = 0; e + 1 < shape.offsets.size(); ++e) {
      for (std::int64_t row = shape.offsets[e]; row < shape.offsets[e + 1]; ++row) {
        f(row, out_of_row(row, static_cast<std::int64_t>(e)));
      }
    }
  }
  Doubles out() const {
    Doubles all;
    for_each_row([&](std::int64_t, const Doubles& row) { all.insert(all.end(), row.begin(), row.end()); });
    return all;
  }
  double loss(const Floats& out_grad) const {
    double total = 0;
    for_each_row([&](std::int64_t row, const Doubles& values) {
      for (std::int64_t h = 0; h < shape.hidden; ++h) total += values[at(h)] * out_grad[at(row * shape.hidden + h)];
    });
    return total;
  }
};

}  // namespace topomoe::test
