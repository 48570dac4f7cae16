#include "tests/support/reference_layer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace topomoe::testing {
namespace {

using Index = std::size_t;

// Roundings of partial sums on a row's longest way: the experts' output of each shard, the sum over
// shards, over a rank's experts, over a node, over nodes; the backward stores two products and adds the
// router's part.
constexpr int kForwardStores = 5, kBackwardStores = 8;

// A value and how far off it may be.
struct Real {
  double v = 0, e = 0;
};

// Real arithmetic of one precision.
struct Arithmetic {
  Precision p;

  Real rounded(double v, double e) const { return {v, e + p.unit * std::abs(v)}; }
  Real add(Real a, Real b) const { return rounded(a.v + b.v, a.e + b.e); }
  Real sub(Real a, Real b) const { return rounded(a.v - b.v, a.e + b.e); }
  Real mul(Real a, Real b) const { return rounded(a.v * b.v, std::abs(a.v) * b.e + std::abs(b.v) * a.e); }
  Real div(Real a, Real b) const { return rounded(a.v / b.v, (a.e + std::abs(a.v / b.v) * b.e) / std::abs(b.v)); }
  // exp of the C library is within an ulp, twice the unit.
  Real exp(Real a) const { return {std::exp(a.v), std::exp(a.v) * (a.e + 2 * p.unit)}; }
  Real sigmoid(Real a) const { return div({1, 0}, add({1, 0}, exp({-a.v, a.e}))); }
  Real stored(Real a) const { return {a.v, a.e + p.store * std::abs(a.v)}; }
};

// A sum in any order and any number of parts.
struct Sum {
  double value = 0, error = 0, magnitude = 0;
  int terms = 0;
  void add(Real t) { value += t.v, error += t.e, magnitude += std::abs(t.v), ++terms; }
  Real done(const Arithmetic& a, int stores = 0) const {
    return {value, error + (terms * a.p.unit + stores * a.p.store) * magnitude};
  }
};

void add_to(Tensor& t, Index i, Real term, double unit) {
  t.value[i] += term.v;
  t.bound[i] += term.e + unit * std::abs(term.v);
}

struct Routing {
  std::vector<Real> p;       // by expert
  std::vector<Index> order;  // experts, most probable first
  Real norm;                 // what chosen probabilities are divided by
  bool decided = true;
};

Routing choose(const ReferenceLayer& l, const ReferenceWeights& w, const double* x, const Arithmetic& a) {
  const auto M = static_cast<Index>(l.hidden), E = static_cast<Index>(l.experts), K = static_cast<Index>(l.top_k);
  Routing r;
  r.p.resize(E);
  for (Index e = 0; e < E; ++e) {
    Sum logit;
    for (Index m = 0; m < M; ++m) logit.add(a.mul({x[m]}, {w.router[e * M + m]}));
    r.p[e] = logit.done(a);
  }
  const Real top = *std::max_element(r.p.begin(), r.p.end(), [](Real b, Real c) { return b.v < c.v; });
  Sum sum;
  for (Real& p : r.p) sum.add(p = a.exp(a.sub(p, top)));
  for (Real& p : r.p) p = a.div(p, sum.done(a));
  r.order.resize(E);
  std::iota(r.order.begin(), r.order.end(), Index{0});
  std::stable_sort(r.order.begin(), r.order.end(), [&](Index b, Index c) { return r.p[b].v > r.p[c].v; });
  for (Index k = 0; k < K && k + 1 < E; ++k) {
    const Real high = r.p[r.order[k]], low = r.p[r.order[k + 1]];
    r.decided = r.decided && high.v - low.v > high.e + low.e;
  }
  Sum chosen;
  for (Index k = 0; k < K; ++k) chosen.add(r.p[r.order[k]]);
  r.norm = l.renormalize ? chosen.done(a) : Real{1, 0};
  return r;
}

// By (token, slot), of tokens that compete in groups of so many.
std::vector<bool> drops(const ReferenceLayer& l, std::span<const std::int32_t> ids, std::vector<int> routed) {
  const auto K = static_cast<Index>(l.top_k);
  if (routed.empty()) routed.push_back(static_cast<int>(ids.size() / K));
  std::vector<bool> dropped;
  for (const int tokens : routed) {
    const auto group = beyond_capacity(ids.subspan(dropped.size(), static_cast<Index>(tokens) * K), l.top_k, l.experts,
                                       l.capacity_factor);
    dropped.insert(dropped.end(), group.begin(), group.end());
  }
  return dropped;
}

}  // namespace

std::vector<bool> beyond_capacity(std::span<const std::int32_t> ids, int top_k, int experts, double factor) {
  std::vector<bool> dropped(ids.size(), false);
  if (factor <= 0) return dropped;
  const Index K = static_cast<Index>(top_k), tokens = ids.size() / K;
  const double capacity = std::ceil(factor * static_cast<double>(ids.size()) / experts);
  std::vector<int> taken(static_cast<Index>(experts), 0);
  for (Index k = 0; k < K; ++k)
    for (Index t = 0; t < tokens; ++t) dropped[t * K + k] = taken[static_cast<Index>(ids[t * K + k])]++ >= capacity;
  return dropped;
}

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

ReferenceGradients zero_gradients(const ReferenceLayer& l) {
  const auto M = static_cast<Index>(l.hidden), F = static_cast<Index>(l.ffn), E = static_cast<Index>(l.experts);
  return {Tensor(E * M), Tensor(E * F * M), Tensor(E * F * M), Tensor(E * M * F)};
}

ReferenceResult run_reference(const ReferenceLayer& l, const ReferenceWeights& w, const Values& tokens,
                              const Values& output_grads, Precision precision, double additions,
                              ReferenceGradients& grads, const std::vector<int>& routed) {
  const auto M = static_cast<Index>(l.hidden), F = static_cast<Index>(l.ffn), E = static_cast<Index>(l.experts),
             K = static_cast<Index>(l.top_k);
  const Index T = tokens.size() / M;
  const Arithmetic a{precision};
  const double summing = additions * precision.unit;
  ReferenceResult r{Tensor(T * M), Tensor(T * M), std::vector<std::int32_t>(T * K)};
  std::vector<Routing> routings;
  for (Index t = 0; t < T; ++t) {
    routings.push_back(choose(l, w, &tokens[t * M], a));
    for (Index k = 0; k < K; ++k) r.ids[t * K + k] = static_cast<std::int32_t>(routings[t].order[k]);
  }
  const std::vector<bool> dropped = drops(l, r.ids, routed);
  for (Index t = 0; t < T; ++t) {
    const double *x = &tokens[t * M], *dy = &output_grads[t * M];
    const Routing& routing = routings[t];
    r.decided = r.decided && routing.decided;
    const auto& p = routing.p;
    std::vector<Sum> y(M), dx(M);
    std::vector<Real> weights(K), dweight(K);
    for (Index k = 0; k < K; ++k) {
      const Index e = routing.order[k];
      weights[k] = a.div(p[e], routing.norm);
      if (dropped[t * K + k]) continue;  // neither an output nor a gradient
      std::vector<Real> gate(F), up(F), act(F), out(M), wdy(M), dact(F), dgate(F), dup(F);
      for (Index f = 0; f < F; ++f) {
        Sum g, u;
        for (Index m = 0; m < M; ++m) {
          g.add(a.mul({x[m]}, {w.gate[(e * F + f) * M + m]}));
          u.add(a.mul({x[m]}, {w.up[(e * F + f) * M + m]}));
        }
        gate[f] = a.stored(g.done(a)), up[f] = a.stored(u.done(a));
        act[f] = a.stored(a.mul(a.mul(gate[f], a.sigmoid(gate[f])), up[f]));
      }
      Sum dot;
      for (Index m = 0; m < M; ++m) {
        Sum o;
        for (Index f = 0; f < F; ++f) o.add(a.mul(act[f], {w.down[(e * M + m) * F + f]}));
        out[m] = o.done(a, kForwardStores);
        y[m].add(a.mul(weights[k], out[m]));
        dot.add(a.mul({dy[m]}, out[m]));
        wdy[m] = a.stored(a.mul(weights[k], {dy[m]}));
      }
      dweight[k] = dot.done(a);
      for (Index f = 0; f < F; ++f) {
        Sum d;
        for (Index m = 0; m < M; ++m) d.add(a.mul(wdy[m], {w.down[(e * M + m) * F + f]}));
        dact[f] = a.stored(d.done(a));
        const Real s = a.sigmoid(gate[f]);
        dup[f] = a.stored(a.mul(dact[f], a.mul(gate[f], s)));
        const Real slope = a.mul(s, a.add({1, 0}, a.mul(gate[f], a.sub({1, 0}, s))));
        dgate[f] = a.stored(a.mul(a.mul(dact[f], up[f]), slope));
      }
      for (Index f = 0; f < F; ++f)
        for (Index m = 0; m < M; ++m) {
          const Index gu = (e * F + f) * M + m, down = (e * M + m) * F + f;
          dx[m].add(a.mul(dgate[f], {w.gate[gu]}));
          dx[m].add(a.mul(dup[f], {w.up[gu]}));
          add_to(grads.gate, gu, a.mul(dgate[f], {x[m]}), summing);
          add_to(grads.up, gu, a.mul(dup[f], {x[m]}), summing);
          add_to(grads.down, down, a.mul(wdy[m], act[f]), summing);
        }
    }
    // weight_k = p_k / norm, norm the sum of the chosen p (or 1).
    Sum mean, carried;
    for (Index k = 0; k < K; ++k) mean.add(a.mul(dweight[k], weights[k]));
    std::vector<Real> dp(E);
    for (Index k = 0; k < K; ++k) {
      const Real centered = l.renormalize ? a.sub(dweight[k], mean.done(a)) : dweight[k];
      dp[routing.order[k]] = a.div(centered, routing.norm);
      carried.add(a.mul(dp[routing.order[k]], p[routing.order[k]]));
    }
    for (Index e = 0; e < E; ++e) {
      const Real dlogit = a.mul(p[e], a.sub(dp[e], carried.done(a)));
      for (Index m = 0; m < M; ++m) {
        dx[m].add(a.mul(dlogit, {w.router[e * M + m]}));
        add_to(grads.router, e * M + m, a.mul(dlogit, {x[m]}), summing);
      }
    }
    for (Index m = 0; m < M; ++m) {
      const Real out = y[m].done(a, kForwardStores), in = dx[m].done(a, kBackwardStores);
      r.output.value[t * M + m] = out.v, r.output.bound[t * M + m] = out.e;
      r.token_grads.value[t * M + m] = in.v, r.token_grads.bound[t * M + m] = in.e;
    }
  }
  return r;
}

}  // namespace topomoe::testing
