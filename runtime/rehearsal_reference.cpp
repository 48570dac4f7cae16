#include "runtime/rehearsal_reference.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/bf16.hpp"
#include "kernels/convert_rows.hpp"

namespace topomoe {
namespace {

// Eight sums side by side, so that compilers may use vectors; in double the order does not matter to us.
template <class A, class B>
double dot(const A* a, const B* b, std::size_t n) {
  double part[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t j = 0; j < 8; ++j) part[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (const double p : part) sum += p;
  return sum;
}

// y += a x
template <class X>
void add_scaled(double* y, double a, const X* x, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] += a * static_cast<double>(x[i]);
}

// kernels/gelu.hpp, in its form with tanh: x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3).
constexpr double kCubic = 0.044715;
double gelu_tanh(double x) { return std::tanh(std::sqrt(2 / std::numbers::pi) * (x + kCubic * x * x * x)); }
double gelu(double x) { return 0.5 * x * (1 + gelu_tanh(x)); }
double gelu_slope(double x) {
  const double t = gelu_tanh(x);
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * std::sqrt(2 / std::numbers::pi) * (1 + 3 * kCubic * x * x);
}

// Rows as conversion to fp8 and back leaves them.
std::vector<float> through_fp8(const std::vector<float>& x, std::size_t hidden, DType dtype) {
  const auto columns = static_cast<std::int64_t>(hidden), rows = static_cast<std::int64_t>(x.size() / hidden);
  std::vector<std::uint8_t> codes(x.size());
  std::vector<float> scales(static_cast<std::size_t>(rows * kernels::scales_of(columns))), out(x.size());
  kernels::to_fp8_cpu({.out = codes.data(), .scales = scales.data(), .in = x.data(), .rows = rows, .columns = columns},
                      {});
  kernels::from_fp8_cpu(
      {.out = out.data(), .in = codes.data(), .scales = scales.data(), .rows = rows, .columns = columns}, {});
  if (dtype == DType::bf16)
    for (float& v : out) v = kernels::to_float(kernels::to_bf16(v));
  return out;
}

}  // namespace

ReferenceShare::ReferenceShare(const RehearsalData& data, int group, std::int64_t first, std::int64_t last,
                               std::int64_t routed_first, std::int64_t routed_last, bool fp8_dispatch)
    : data_(data),
      tokens_(static_cast<std::size_t>(last - first)),
      hidden_(static_cast<std::size_t>(data.shape().hidden)),
      k_(static_cast<std::size_t>(data.shape().top_k)) {
  const auto experts = static_cast<std::size_t>(data_.shape().experts);
  x_.resize(tokens_ * hidden_), dy_.resize(tokens_ * hidden_), ids_.resize(tokens_ * k_);
  output.resize(tokens_ * hidden_), token_grads.resize(tokens_ * hidden_);
  scores_.resize(tokens_ * experts), factors_.assign(2 * tokens_, 1.0), dweight_.resize(tokens_ * k_);
  for (std::size_t t = 0; t < tokens_; ++t) {
    const std::int64_t place = first + static_cast<std::int64_t>(t);
    data_.token(group, place, {&x_[t * hidden_], hidden_}, {&ids_[t * k_], k_});
    data_.output_gradient(group, place, {&dy_[t * hidden_], hidden_});
    const std::vector<double> scores = data_.scores({&x_[t * hidden_], hidden_});
    std::copy(scores.begin(), scores.end(), &scores_[t * experts]);
    const float* const mix = data_.mix().data();
    if (data_.shape().shared_gate == SharedGate::sigmoid) {
      factors_[2 * t + 1] = 1 / (1 + std::exp(-dot(&x_[t * hidden_], mix, hidden_)));
    } else if (data_.shape().shared_gate == SharedGate::residual) {
      const double difference = dot(&x_[t * hidden_], mix, hidden_) - dot(&x_[t * hidden_], mix + hidden_, hidden_);
      factors_[2 * t] = 1 / (1 + std::exp(-difference)), factors_[2 * t + 1] = 1 - factors_[2 * t];
    }
  }
  seen_ = fp8_dispatch ? through_fp8(x_, hidden_, data_.shape().dtype) : x_;
  dropped_.assign(tokens_ * k_, false);
  if (data_.shape().capacity_factor > 0) drop(group, first, routed_first, routed_last);
}

// GShard: each expert takes so many choices of the tokens routed together, first choices first.
void ReferenceShare::drop(int group, std::int64_t first, std::int64_t routed_first, std::int64_t routed_last) {
  const auto routed = static_cast<std::size_t>(routed_last - routed_first);
  const double fair = static_cast<double>(routed * k_) / data_.shape().experts;
  std::vector<float> row(hidden_);
  std::vector<std::int32_t> ids(routed * k_);
  for (std::size_t t = 0; t < routed; ++t)
    data_.token(group, routed_first + static_cast<std::int64_t>(t), row, {&ids[t * k_], k_});
  std::vector<double> taken(static_cast<std::size_t>(data_.shape().experts), 0);
  const auto before = static_cast<std::size_t>(first - routed_first);
  for (std::size_t k = 0; k < k_; ++k)
    for (std::size_t t = 0; t < routed; ++t) {
      const bool full =
          ++taken[static_cast<std::size_t>(ids[t * k_ + k])] > std::ceil(data_.shape().capacity_factor * fair);
      if (t >= before && t < before + tokens_) dropped_[(t - before) * k_ + k] = full;
    }
}

// What the scores of a token's chosen experts are divided by.
double ReferenceShare::norm(std::size_t token) const {
  if (!data_.shape().renormalize) return 1.0;
  const auto experts = static_cast<std::size_t>(data_.shape().experts);
  double sum = 0;
  for (std::size_t k = 0; k < k_; ++k) sum += scores_[token * experts + static_cast<std::size_t>(ids_[token * k_ + k])];
  return sum;
}

double ReferenceShare::weight(std::size_t slot) const {
  const auto experts = static_cast<std::size_t>(data_.shape().experts), t = slot / k_;
  return static_cast<double>(data_.shape().router.scale) * scores_[t * experts + static_cast<std::size_t>(ids_[slot])] /
         norm(t);
}

std::vector<double> ReferenceShare::run_ffn(const RehearsalData::Expert& w, std::size_t width, const float* x,
                                            std::size_t t, double factor, ExpertGradients& d) {
  const float* const dy = &dy_[t * hidden_];
  const bool gated = data_.shape().gated;
  std::vector<double> gate(width), up(width), act(width), dact(width), out(hidden_);
  for (std::size_t f = 0; f < width; ++f) {
    up[f] = dot(x, &w.up[f * hidden_], hidden_);
    if (gated) gate[f] = dot(x, &w.gate[f * hidden_], hidden_);
    act[f] = gated ? gate[f] / (1 + std::exp(-gate[f])) * up[f] : gelu(up[f]);  // SwiGLU: silu(gate) * up
  }
  for (std::size_t m = 0; m < hidden_; ++m) {
    out[m] = dot(act.data(), &w.down[m * width], width);
    const double dout = factor * static_cast<double>(dy[m]);
    add_scaled(dact.data(), dout, &w.down[m * width], width);
    add_scaled(&d.down[m * width], dout, act.data(), width);
  }
  double* const dx = &token_grads[t * hidden_];
  for (std::size_t f = 0; f < width; ++f) {
    if (!gated) {
      const double dup = dact[f] * gelu_slope(up[f]);
      add_scaled(dx, dup, &w.up[f * hidden_], hidden_);
      add_scaled(&d.up[f * hidden_], dup, x, hidden_);
      continue;
    }
    const double sigmoid = 1 / (1 + std::exp(-gate[f]));
    const double dgate = dact[f] * up[f] * sigmoid * (1 + gate[f] * (1 - sigmoid)), dup = dact[f] * gate[f] * sigmoid;
    add_scaled(dx, dgate, &w.gate[f * hidden_], hidden_);
    add_scaled(dx, dup, &w.up[f * hidden_], hidden_);
    add_scaled(&d.gate[f * hidden_], dgate, x, hidden_);
    add_scaled(&d.up[f * hidden_], dup, x, hidden_);
  }
  return out;
}

namespace {

ReferenceShare::ExpertGradients zeros(std::size_t size) {
  return {std::vector<double>(size), std::vector<double>(size), std::vector<double>(size)};
}

}  // namespace

ReferenceShare::ExpertGradients ReferenceShare::run_expert(int index) {
  const auto ffn = static_cast<std::size_t>(data_.shape().ffn);
  const RehearsalData::Expert w = data_.expert(index);
  ExpertGradients d = zeros(ffn * hidden_);
  for (std::size_t slot = 0; slot < tokens_ * k_; ++slot) {
    if (ids_[slot] != index || dropped_[slot]) continue;
    const std::size_t t = slot / k_;
    const std::vector<double> out = run_ffn(w, ffn, &seen_[t * hidden_], t, factors_[2 * t] * weight(slot), d);
    add_scaled(&output[t * hidden_], weight(slot), out.data(), hidden_);
    dweight_[slot] += factors_[2 * t] * dot(&dy_[t * hidden_], out.data(), hidden_);
  }
  return d;
}

ReferenceShare::ExpertGradients ReferenceShare::run_shared(std::vector<double>& mix_gradient) {
  const LayerShape& shape = data_.shape();
  const auto ffn = static_cast<std::size_t>(shape.shared_ffn);
  const RehearsalData::Expert w = data_.shared();
  ExpertGradients d = zeros(ffn * hidden_);
  mix_gradient.assign(data_.mix().size(), 0.0);
  if (ffn == 0) return d;
  for (std::size_t t = 0; t < tokens_; ++t) {
    const double a = factors_[2 * t], b = factors_[2 * t + 1];
    const std::vector<double> out = run_ffn(w, ffn, &x_[t * hidden_], t, b, d);
    double* const y = &output[t * hidden_];
    const float* const dy = &dy_[t * hidden_];
    const double of_routed = dot(dy, y, hidden_), of_shared = dot(dy, out.data(), hidden_);
    for (std::size_t m = 0; m < hidden_; ++m) y[m] = a * y[m] + b * out[m];
    // sigmoid: b (1 - b) of_shared; softmax of two: a b (of_routed - of_shared) for the first, less for the second.
    const bool residual = shape.shared_gate == SharedGate::residual;
    const double first = residual ? a * b * (of_routed - of_shared) : b * (1 - b) * of_shared;
    const int gates = static_cast<int>(shape.shared_gate);
    for (int gate = 0; gate < gates; ++gate) {
      const double dlogit = gate == 0 ? first : -first;
      const auto at = static_cast<std::size_t>(gate) * hidden_;
      add_scaled(&mix_gradient[at], dlogit, &x_[t * hidden_], hidden_);
      add_scaled(&token_grads[t * hidden_], dlogit, &data_.mix()[at], hidden_);
    }
  }
  return d;
}

std::vector<double> ReferenceShare::finish() {
  const auto experts = static_cast<std::size_t>(data_.shape().experts);
  const double scale = static_cast<double>(data_.shape().router.scale);
  std::vector<double> drouter(experts * hidden_), ds(experts);
  for (std::size_t t = 0; t < tokens_; ++t) {
    const double* const s = &scores_[t * experts];
    const double n = norm(t);
    const auto score = [&](std::size_t k) { return s[static_cast<std::size_t>(ids_[t * k_ + k])]; };
    // weight_k = scale s_k / n; n is the sum of the chosen s, or constant.
    double mean = 0;
    if (data_.shape().renormalize)
      for (std::size_t k = 0; k < k_; ++k) mean += scale * dweight_[t * k_ + k] * score(k) / n;
    std::fill(ds.begin(), ds.end(), 0.0);
    for (std::size_t k = 0; k < k_; ++k)
      ds[static_cast<std::size_t>(ids_[t * k_ + k])] = (scale * dweight_[t * k_ + k] - mean) / n;
    const bool sigmoid = data_.shape().router.scoring == Scoring::sigmoid;
    const double carried = sigmoid ? 0 : dot(ds.data(), s, experts);
    for (std::size_t e = 0; e < experts; ++e) {
      const double dlogit = sigmoid ? s[e] * (1 - s[e]) * ds[e] : s[e] * (ds[e] - carried);
      add_scaled(&token_grads[t * hidden_], dlogit, &data_.router()[e * hidden_], hidden_);
      add_scaled(&drouter[e * hidden_], dlogit, &x_[t * hidden_], hidden_);
    }
  }
  return drouter;
}

}  // namespace topomoe
