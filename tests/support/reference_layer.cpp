#include "tests/support/reference_layer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace topomoe::testing {
namespace {

using Index = std::size_t;

double dot(const double* a, const double* b, Index n) { return std::inner_product(a, a + n, b, 0.0); }

}  // namespace

Values random_values(std::size_t count, std::uint64_t seed, double scale) {
  Values out(count);
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
  for (double& v : out) {
    state += 0x9E3779B97F4A7C15ULL;  // splitmix64
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z ^= z >> 31;
    v = scale * (static_cast<double>(z >> 40) / 8388608.0 - 1.0);
    v = static_cast<double>(static_cast<float>(v));
  }
  return out;
}

ReferenceResult run_reference(const ReferenceLayer& l, const ReferenceWeights& w, const Values& tokens, const Values& output_grads,
                              ReferenceWeights& grads) {
  const auto M = static_cast<Index>(l.hidden), F = static_cast<Index>(l.ffn), E = static_cast<Index>(l.experts),
             K = static_cast<Index>(l.top_k);
  const Index T = tokens.size() / M;
  ReferenceResult r{Values(T * M, 0.0), Values(T * M, 0.0), std::vector<std::int32_t>(T * K)};
  for (Index t = 0; t < T; ++t) {
    const double *x = &tokens[t * M], *dy = &output_grads[t * M];
    double *y = &r.output[t * M], *dx = &r.token_grads[t * M];
    Values p(E);
    for (Index e = 0; e < E; ++e) p[e] = dot(x, &w.router[e * M], M);
    const double top = *std::max_element(p.begin(), p.end());
    for (double& v : p) v = std::exp(v - top);
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& v : p) v /= sum;
    std::vector<Index> order(E);
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return p[a] > p[b]; });
    double chosen = 0;
    for (Index k = 0; k < K; ++k) chosen += p[order[k]];
    const double norm = l.renormalize ? chosen : 1.0;

    Values dweight(K), dp(E, 0.0);
    for (Index k = 0; k < K; ++k) {
      const Index e = order[k];
      r.ids[t * K + k] = static_cast<std::int32_t>(e);
      const double weight = p[e] / norm;
      Values gate(F), up(F), act(F), out(M);
      for (Index f = 0; f < F; ++f) {
        gate[f] = dot(x, &w.gate[(e * F + f) * M], M);
        up[f] = dot(x, &w.up[(e * F + f) * M], M);
        act[f] = gate[f] / (1 + std::exp(-gate[f])) * up[f];
      }
      for (Index m = 0; m < M; ++m) {
        out[m] = dot(act.data(), &w.down[(e * M + m) * F], F);
        y[m] += weight * out[m];
      }
      dweight[k] = dot(dy, out.data(), M);
      Values dact(F, 0.0);
      for (Index m = 0; m < M; ++m)
        for (Index f = 0; f < F; ++f) {
          dact[f] += weight * dy[m] * w.down[(e * M + m) * F + f];
          grads.down[(e * M + m) * F + f] += weight * dy[m] * act[f];
        }
      for (Index f = 0; f < F; ++f) {
        const double s = 1 / (1 + std::exp(-gate[f]));
        const double dgate = dact[f] * up[f] * (s + gate[f] * s * (1 - s)), dup = dact[f] * gate[f] * s;
        for (Index m = 0; m < M; ++m) {
          dx[m] += dgate * w.gate[(e * F + f) * M + m] + dup * w.up[(e * F + f) * M + m];
          grads.gate[(e * F + f) * M + m] += dgate * x[m];
          grads.up[(e * F + f) * M + m] += dup * x[m];
        }
      }
    }
    // weight_k = p_k / norm, norm the sum of the chosen p (or 1).
    double mean = 0;
    for (Index k = 0; k < K; ++k) mean += dweight[k] * p[order[k]] / norm;
    for (Index k = 0; k < K; ++k) dp[order[k]] = (dweight[k] - (l.renormalize ? mean : 0.0)) / norm;
    const double carried = dot(dp.data(), p.data(), E);
    for (Index e = 0; e < E; ++e) {
      const double dlogit = p[e] * (dp[e] - carried);
      for (Index m = 0; m < M; ++m) {
        dx[m] += dlogit * w.router[e * M + m];
        grads.router[e * M + m] += dlogit * x[m];
      }
    }
  }
  return r;
}

}  // namespace topomoe::testing
