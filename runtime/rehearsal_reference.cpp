#include "runtime/rehearsal_reference.hpp"

#include <algorithm>
#include <cmath>

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

}  // namespace

ReferenceShare::ReferenceShare(const RehearsalData& data, int group, std::int64_t first, std::int64_t last,
                               std::int64_t routed_first, std::int64_t routed_last)
    : data_(data),
      tokens_(static_cast<std::size_t>(last - first)),
      hidden_(static_cast<std::size_t>(data.shape().hidden)),
      k_(static_cast<std::size_t>(data.shape().top_k)) {
  const auto experts = static_cast<std::size_t>(data_.shape().experts);
  x_.resize(tokens_ * hidden_), dy_.resize(tokens_ * hidden_), ids_.resize(tokens_ * k_);
  output.resize(tokens_ * hidden_), token_grads.resize(tokens_ * hidden_);
  probabilities_.resize(tokens_ * experts), dweight_.resize(tokens_ * k_);
  for (std::size_t t = 0; t < tokens_; ++t) {
    const std::int64_t place = first + static_cast<std::int64_t>(t);
    data_.token(group, place, {&x_[t * hidden_], hidden_}, {&ids_[t * k_], k_});
    data_.output_gradient(group, place, {&dy_[t * hidden_], hidden_});
    double* const p = &probabilities_[t * experts];
    for (std::size_t e = 0; e < experts; ++e) p[e] = dot(&x_[t * hidden_], &data_.router()[e * hidden_], hidden_);
    const double top = *std::max_element(p, p + experts);
    double sum = 0;
    for (std::size_t e = 0; e < experts; ++e) sum += p[e] = std::exp(p[e] - top);
    for (std::size_t e = 0; e < experts; ++e) p[e] /= sum;
  }
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

// What the weights of a token's chosen experts are divided by.
double ReferenceShare::norm(std::size_t token) const {
  if (!data_.shape().renormalize) return 1.0;
  const auto experts = static_cast<std::size_t>(data_.shape().experts);
  double sum = 0;
  for (std::size_t k = 0; k < k_; ++k)
    sum += probabilities_[token * experts + static_cast<std::size_t>(ids_[token * k_ + k])];
  return sum;
}

ReferenceShare::ExpertGradients ReferenceShare::run_expert(int index) {
  const auto ffn = static_cast<std::size_t>(data_.shape().ffn),
             experts = static_cast<std::size_t>(data_.shape().experts);
  const RehearsalData::Expert w = data_.expert(index);
  ExpertGradients d{std::vector<double>(ffn * hidden_), std::vector<double>(ffn * hidden_),
                    std::vector<double>(ffn * hidden_)};
  std::vector<double> gate(ffn), up(ffn), act(ffn), dact(ffn);
  for (std::size_t slot = 0; slot < tokens_ * k_; ++slot) {
    if (ids_[slot] != index || dropped_[slot]) continue;
    const std::size_t t = slot / k_;
    const float *const x = &x_[t * hidden_], *const dy = &dy_[t * hidden_];
    const double weight = probabilities_[t * experts + static_cast<std::size_t>(index)] / norm(t);
    for (std::size_t f = 0; f < ffn; ++f) {
      gate[f] = dot(x, &w.gate[f * hidden_], hidden_);
      up[f] = dot(x, &w.up[f * hidden_], hidden_);
      act[f] = gate[f] / (1 + std::exp(-gate[f])) * up[f];  // SwiGLU: silu(gate) * up
    }
    std::fill(dact.begin(), dact.end(), 0.0);
    for (std::size_t m = 0; m < hidden_; ++m) {
      const double out = dot(act.data(), &w.down[m * ffn], ffn);
      output[t * hidden_ + m] += weight * out;
      dweight_[slot] += static_cast<double>(dy[m]) * out;
      const double dout = weight * static_cast<double>(dy[m]);
      add_scaled(dact.data(), dout, &w.down[m * ffn], ffn);
      add_scaled(&d.down[m * ffn], dout, act.data(), ffn);
    }
    double* const dx = &token_grads[t * hidden_];
    for (std::size_t f = 0; f < ffn; ++f) {
      const double sigmoid = 1 / (1 + std::exp(-gate[f]));
      const double dgate = dact[f] * up[f] * sigmoid * (1 + gate[f] * (1 - sigmoid)), dup = dact[f] * gate[f] * sigmoid;
      add_scaled(dx, dgate, &w.gate[f * hidden_], hidden_);
      add_scaled(dx, dup, &w.up[f * hidden_], hidden_);
      add_scaled(&d.gate[f * hidden_], dgate, x, hidden_);
      add_scaled(&d.up[f * hidden_], dup, x, hidden_);
    }
  }
  return d;
}

std::vector<double> ReferenceShare::finish() {
  const auto experts = static_cast<std::size_t>(data_.shape().experts);
  std::vector<double> drouter(experts * hidden_), dp(experts);
  for (std::size_t t = 0; t < tokens_; ++t) {
    const double* const p = &probabilities_[t * experts];
    const double n = norm(t);
    // weight_k = p_k / n; n is the sum of the chosen p, or constant.
    double mean = 0;
    if (data_.shape().renormalize)
      for (std::size_t k = 0; k < k_; ++k)
        mean += dweight_[t * k_ + k] * p[static_cast<std::size_t>(ids_[t * k_ + k])] / n;
    std::fill(dp.begin(), dp.end(), 0.0);
    for (std::size_t k = 0; k < k_; ++k)
      dp[static_cast<std::size_t>(ids_[t * k_ + k])] = (dweight_[t * k_ + k] - mean) / n;
    const double carried = dot(dp.data(), p, experts);
    for (std::size_t e = 0; e < experts; ++e) {
      const double dlogit = p[e] * (dp[e] - carried);
      add_scaled(&token_grads[t * hidden_], dlogit, &data_.router()[e * hidden_], hidden_);
      add_scaled(&drouter[e * hidden_], dlogit, &x_[t * hidden_], hidden_);
    }
  }
  return drouter;
}

}  // namespace topomoe
