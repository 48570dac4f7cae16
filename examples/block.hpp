// The rest of a transformer block around a MoE layer, as small as it goes: embeddings, one head of causal attention
// (ALiBi: a score falls by one a position), norms without weights, residuals, and cross entropy, each with its
// backward; Adam. One rank, no library.
//
//   h = e + attention(norm(e)),  y = h + moe(norm(h)),  logits = norm(y) W
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <utility>
#include <vector>

namespace example {

constexpr int kVocabulary = 16, kLength = 8, kWidth = 32;

using Matrix = std::vector<float>;  // rows of the width that its place implies

struct Parameter {
  Matrix value, gradient, mean, square;
  // [rows, columns], drawn with variance 1 / fan_in.
  Parameter(std::int64_t rows, std::int64_t columns, std::mt19937& random, std::int64_t fan_in = 0)
      : value(static_cast<std::size_t>(rows * columns)),
        gradient(value.size()),
        mean(value.size()),
        square(value.size()) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(fan_in > 0 ? fan_in : columns)));
    for (float& v : value) v = normal(random);
  }
  // Rows behind these.
  void append(const Parameter& more) {
    for (const auto& [to, from] :
         {std::pair{&value, &more.value}, {&gradient, &more.gradient}, {&mean, &more.mean}, {&square, &more.square}})
      to->insert(to->end(), from->begin(), from->end());
  }
  // Adam; the gradient is zero afterwards.
  void step(int number, float rate) {
    constexpr float kMean = 0.9F, kSquare = 0.98F;
    const float n = static_cast<float>(number);
    const float of_mean = 1 / (1 - std::pow(kMean, n)), of_square = 1 / (1 - std::pow(kSquare, n));
    for (std::size_t i = 0; i < value.size(); ++i) {
      mean[i] += (1 - kMean) * (gradient[i] - mean[i]);
      square[i] += (1 - kSquare) * (gradient[i] * gradient[i] - square[i]);
      value[i] -= rate * mean[i] * of_mean / (std::sqrt(square[i] * of_square) + 1e-8F);
      gradient[i] = 0;
    }
  }
};

// y[rows, n] = x[rows, m] w[n, m]^T
inline Matrix times(const Matrix& x, const Matrix& w, std::size_t m) {
  const std::size_t n = w.size() / m, rows = x.size() / m;
  Matrix y(rows * n);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t i = 0; i < m; ++i) y[r * n + j] += x[r * m + i] * w[j * m + i];
  return y;
}
// Of the same: adds to dx and to the parameter's gradient.
inline void times_backward(const Matrix& dy, const Matrix& x, Parameter& w, std::size_t m, Matrix& dx) {
  const std::size_t n = w.value.size() / m, rows = x.size() / m;
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t i = 0; i < m; ++i) {
        dx[r * m + i] += dy[r * n + j] * w.value[j * m + i];
        w.gradient[j * m + i] += dy[r * n + j] * x[r * m + i];
      }
}

struct Norm {
  Matrix y, scale;
  const Matrix& forward(const Matrix& x) {
    y = x;
    scale.assign(x.size() / kWidth, 0);
    for (std::size_t r = 0; r < scale.size(); ++r) {
      float* row = &y[r * kWidth];
      float mean = 0, variance = 0;
      for (int i = 0; i < kWidth; ++i) mean += row[i] / kWidth;
      for (int i = 0; i < kWidth; ++i) variance += (row[i] - mean) * (row[i] - mean) / kWidth;
      scale[r] = 1 / std::sqrt(variance + 1e-5F);
      for (int i = 0; i < kWidth; ++i) row[i] = (row[i] - mean) * scale[r];
    }
    return y;
  }
  // Adds to dx.
  void backward(const Matrix& dy, Matrix& dx) const {
    for (std::size_t r = 0; r < scale.size(); ++r) {
      float mean = 0, along = 0;
      for (std::size_t i = r * kWidth; i < (r + 1) * kWidth; ++i)
        mean += dy[i] / kWidth, along += dy[i] * y[i] / kWidth;
      for (std::size_t i = r * kWidth; i < (r + 1) * kWidth; ++i) dx[i] += scale[r] * (dy[i] - mean - y[i] * along);
    }
  }
};

class Block {
 public:
  explicit Block(std::mt19937& random)
      : token_(kVocabulary, kWidth, random),
        query_(kWidth, kWidth, random),
        key_(kWidth, kWidth, random),
        value_(kWidth, kWidth, random),
        out_(kWidth, kWidth, random),
        answer_(kVocabulary, kWidth, random) {}

  std::vector<Parameter*> parameters() { return {&token_, &query_, &key_, &value_, &out_, &answer_}; }

  // What the MoE layer reads, of sequences of kLength tokens.
  const Matrix& attend(const std::vector<int>& tokens) {
    tokens_ = tokens;
    Matrix e(tokens.size() * kWidth);
    for (std::size_t t = 0; t < tokens.size(); ++t)
      for (std::size_t i = 0; i < kWidth; ++i)
        e[t * kWidth + i] = token_.value[static_cast<std::size_t>(tokens[t]) * kWidth + i];
    const Matrix& a = first_.forward(e);
    q_ = times(a, query_.value, kWidth), k_ = times(a, key_.value, kWidth), v_ = times(a, value_.value, kWidth);
    context_.assign(e.size(), 0);
    share_.assign(tokens.size() * kLength, 0);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const std::size_t begin = t / kLength * kLength;
      float* share = &share_[t * kLength];
      float most = -1e30F, sum = 0;
      for (std::size_t s = begin; s <= t; ++s)
        most = std::max(most, share[s - begin] = kScale * dot(q_, t, k_, s) - static_cast<float>(t - s));
      for (std::size_t s = begin; s <= t; ++s) sum += share[s - begin] = std::exp(share[s - begin] - most);
      for (std::size_t s = begin; s <= t; ++s) {
        share[s - begin] /= sum;
        for (std::size_t i = 0; i < kWidth; ++i) context_[t * kWidth + i] += share[s - begin] * v_[s * kWidth + i];
      }
    }
    h_ = times(context_, out_.value, kWidth);
    for (std::size_t i = 0; i < h_.size(); ++i) h_[i] += e[i];
    return second_.forward(h_);
  }

  // The mean loss, given what the MoE layer wrote.
  double judge(const Matrix& moe, const std::vector<int>& answers) {
    Matrix y = h_;
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += moe[i];
    chance_ = times(third_.forward(y), answer_.value, kWidth);
    double loss = 0;
    const float rows = static_cast<float>(answers.size());
    for (std::size_t t = 0; t < answers.size(); ++t) {
      float* p = &chance_[t * kVocabulary];
      const float most = *std::max_element(p, p + kVocabulary);
      float sum = 0;
      for (int i = 0; i < kVocabulary; ++i) sum += p[i] = std::exp(p[i] - most);
      for (int i = 0; i < kVocabulary; ++i) p[i] /= sum;
      loss -= std::log(p[answers[t]]) / rows;
      p[answers[t]] -= 1;  // what remains is the gradient of the logits
      for (int i = 0; i < kVocabulary; ++i) p[i] /= rows;
    }
    return loss;
  }

  // The gradient of what the MoE layer wrote.
  const Matrix& judge_backward() {
    Matrix d(h_.size());
    times_backward(chance_, third_.y, answer_, kWidth, d);
    d_h_.assign(h_.size(), 0);
    third_.backward(d, d_h_);
    return d_h_;
  }

  // Given the gradient of what it read.
  void attend_backward(const Matrix& d_moe_in) {
    second_.backward(d_moe_in, d_h_);
    Matrix d_e = d_h_, d_context(h_.size()), d_q(h_.size()), d_k(h_.size()), d_v(h_.size()), d_a(h_.size());
    times_backward(d_h_, context_, out_, kWidth, d_context);
    for (std::size_t t = 0; t < tokens_.size(); ++t) {
      const std::size_t begin = t / kLength * kLength;
      const float* share = &share_[t * kLength];
      const float along = dot(d_context, t, context_, t);
      for (std::size_t s = begin; s <= t; ++s) {
        const float d_score = kScale * share[s - begin] * (dot(d_context, t, v_, s) - along);
        for (std::size_t i = 0; i < kWidth; ++i) {
          d_v[s * kWidth + i] += share[s - begin] * d_context[t * kWidth + i];
          d_q[t * kWidth + i] += d_score * k_[s * kWidth + i];
          d_k[s * kWidth + i] += d_score * q_[t * kWidth + i];
        }
      }
    }
    times_backward(d_q, first_.y, query_, kWidth, d_a);
    times_backward(d_k, first_.y, key_, kWidth, d_a);
    times_backward(d_v, first_.y, value_, kWidth, d_a);
    first_.backward(d_a, d_e);
    for (std::size_t t = 0; t < tokens_.size(); ++t)
      for (std::size_t i = 0; i < kWidth; ++i)
        token_.gradient[static_cast<std::size_t>(tokens_[t]) * kWidth + i] += d_e[t * kWidth + i];
  }

 private:
  static constexpr float kScale = 0.17677669F;  // 1 / sqrt(kWidth)
  static float dot(const Matrix& a, std::size_t row_a, const Matrix& b, std::size_t row_b) {
    float sum = 0;
    for (std::size_t i = 0; i < kWidth; ++i) sum += a[row_a * kWidth + i] * b[row_b * kWidth + i];
    return sum;
  }

  Parameter token_, query_, key_, value_, out_, answer_;
  std::vector<int> tokens_;
  Norm first_, second_, third_;
  Matrix q_, k_, v_, share_, context_, h_, d_h_, chance_;
};

}  // namespace example
