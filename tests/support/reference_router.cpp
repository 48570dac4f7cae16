#include "tests/support/reference_router.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "tests/support/autodiff.hpp"
#include "tests/support/reference_layer.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;
using Vars = std::vector<Var>;

Index ix(std::int64_t i) { return static_cast<Index>(i); }

Vars on(Tape& tape, const std::vector<double>& values) {
  Vars out;
  for (const double v : values) out.emplace_back(v, tape);
  return out;
}

struct Weights {
  Vars router, gate, up, down, shared_gate, shared_up, shared_down, mix;
};

Var dot(const Var* a, const Var* b, Index n) {
  Var sum;
  for (Index i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// x (1 + tanh u) / 2 is x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
Var gelu(const Var& x) {
  return x * sigmoid(Var(2 * std::sqrt(2 / std::numbers::pi)) * (x + Var(0.044715) * x * x * x));
}

// down (silu(gate x) up x), or without a gate down gelu(up x)
Vars ffn(const Var* x, const Var* gate, const Var* up, const Var* down, Index hidden, Index width, bool gated) {
  Vars act, out;
  for (Index f = 0; f < width; ++f) {
    const Var u = dot(x, up + f * hidden, hidden), g = gated ? dot(x, gate + f * hidden, hidden) : Var();
    act.push_back(gated ? g * sigmoid(g) * u : gelu(u));
  }
  for (Index m = 0; m < hidden; ++m) out.push_back(dot(act.data(), down + m * width, width));
  return out;
}

struct Scores {
  Vars score, scaled;
  Var log_sum_exp;
};

Scores scores_of(const Var* x, const Vars& router, const LayerShape& s) {
  Scores out;
  Vars logits;
  Var all, sum;
  for (Index e = 0; e < ix(s.experts); ++e) {
    logits.push_back(dot(x, &router[e * ix(s.hidden)], ix(s.hidden)));
    all += exp(logits.back());
  }
  for (const Var& l : logits) out.score.push_back(s.router.scoring == Scoring::sigmoid ? sigmoid(l) : exp(l) / all);
  for (const Var& p : out.score) sum += p;
  for (const Var& p : out.score) out.scaled.push_back(p / sum);
  out.log_sum_exp = log(all);
  return out;
}

template <class Worth>
std::vector<std::int32_t> best(int n, int count, Worth worth) {
  std::vector<std::int32_t> order(ix(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return worth(a) > worth(b); });
  order.resize(ix(count));
  return order;
}

std::vector<std::int32_t> choice_of(const Scores& scores, const WholeWeights& w, const LayerShape& s) {
  const int of_group = s.experts / s.router.groups;
  const auto biased = [&](int e) { return scores.score[ix(e)].v + (w.bias.empty() ? 0 : w.bias[ix(e)]); };
  const auto groups = best(s.router.groups, s.router.topk_groups, [&](int group) {
    std::vector<double> in;
    for (int e = group * of_group; e < (group + 1) * of_group; ++e) in.push_back(biased(e));
    std::sort(in.rbegin(), in.rend());
    return s.router.scoring == Scoring::sigmoid && of_group > 1 ? in[0] + in[1] : in[0];
  });
  return best(s.experts, s.top_k, [&](int e) {
    return std::find(groups.begin(), groups.end(), e / of_group) != groups.end() ? biased(e) : -HUGE_VAL;
  });
}

void add_gradient(const std::vector<double>& d, const Vars& of, std::vector<double>& to) {
  for (Index i = 0; i < of.size(); ++i) to[i] += d[of[i].at];
}

}  // namespace

WholeWeights draw_weights(const LayerShape& s, bool biased, std::uint64_t seed) {
  const auto draw = [&](std::int64_t count, std::uint64_t salt, std::int64_t width) {
    return random_values(ix(count), seed * 100 + salt,
                         2 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, width))));
  };
  WholeWeights w;
  w.router = draw(s.experts * s.hidden, 1, s.hidden);
  w.gate = draw(s.experts * s.ffn * s.hidden, 2, s.hidden), w.up = draw(s.experts * s.ffn * s.hidden, 3, s.hidden);
  w.down = draw(s.experts * s.ffn * s.hidden, 4, s.ffn);
  w.shared_gate = draw(s.shared_ffn * s.hidden, 5, s.hidden), w.shared_up = draw(s.shared_ffn * s.hidden, 6, s.hidden);
  w.shared_down = draw(s.shared_ffn * s.hidden, 7, s.shared_ffn);
  w.mix = draw(static_cast<int>(s.shared_gate) * s.hidden, 8, s.hidden);
  if (biased) w.bias = random_values(ix(s.experts), seed * 100 + 9, 0.3);
  return w;
}

WholeWeights zero_weights_like(const WholeWeights& w) {
  WholeWeights out = w;
  for (auto* v : out.all()) std::fill(v->begin(), v->end(), 0.0);
  return out;
}

WholeResult run_whole(const LayerShape& s, const WholeWeights& weights, const std::vector<double>& x,
                      const std::vector<double>& dy, const std::vector<int>& parts, WholeWeights& grads,
                      const std::vector<std::int32_t>* given, const std::vector<double>* seen) {
  const Index M = ix(s.hidden), F = ix(s.ffn), S = ix(s.shared_ffn), K = ix(s.top_k);
  Tape tape;
  const Weights w{on(tape, weights.router),      on(tape, weights.gate),        on(tape, weights.up),
                  on(tape, weights.down),        on(tape, weights.shared_gate), on(tape, weights.shared_up),
                  on(tape, weights.shared_down), on(tape, weights.mix)};
  const Vars tokens = on(tape, x);
  Vars of_experts = tokens;
  for (Index i = 0; seen != nullptr && i < x.size(); ++i)
    of_experts[i] = Var::made((*seen)[i], tokens[i], 1, tokens[i], 0);
  WholeResult r;
  Var objective(0, tape);
  Index first = 0;
  for (const int size : parts) {
    Vars score_sums(ix(s.experts));
    std::vector<double> chosen(ix(s.experts), 0.0);
    Var squares;
    std::vector<Scores> scores;
    for (Index t = first; t < first + ix(size); ++t) {
      scores.push_back(scores_of(&tokens[t * M], w.router, s));
      const auto ids = given != nullptr
                           ? std::vector<std::int32_t>(given->begin() + static_cast<std::ptrdiff_t>(t * K),
                                                       given->begin() + static_cast<std::ptrdiff_t>((t + 1) * K))
                           : choice_of(scores.back(), weights, s);
      r.ids.insert(r.ids.end(), ids.begin(), ids.end());
    }
    const auto dropped = beyond_capacity(std::span(r.ids).subspan(first * K), s.top_k, s.experts, s.capacity_factor);
    for (Index t = first; t < first + ix(size); ++t) {
      const Var* const token = &tokens[t * M];
      const Scores& of = scores[t - first];
      const std::span<const std::int32_t> ids(&r.ids[t * K], K);
      for (Index e = 0; e < score_sums.size(); ++e) score_sums[e] += of.scaled[e];
      squares += of.log_sum_exp * of.log_sum_exp;
      Var sum;
      for (const std::int32_t id : ids) sum += of.score[ix(id)];
      Vars y(M);
      for (Index slot = 0; slot < K; ++slot) {
        const std::int32_t id = ids[slot];
        ++chosen[ix(id)];
        if (dropped[(t - first) * K + slot]) continue;
        const Var weight =
            Var(static_cast<double>(s.router.scale)) * (s.renormalize ? of.score[ix(id)] / sum : of.score[ix(id)]);
        const Index e = ix(id) * F * M;
        const Vars out = ffn(&of_experts[t * M], &w.gate[e], &w.up[e], &w.down[e], M, F, s.gated);
        for (Index m = 0; m < M; ++m) y[m] += weight * out[m];
      }
      if (S > 0) {
        const Vars out = ffn(token, w.shared_gate.data(), w.shared_up.data(), w.shared_down.data(), M, S, s.gated);
        Var a(1), b(1);
        if (s.shared_gate == SharedGate::sigmoid) b = sigmoid(dot(token, w.mix.data(), M));
        if (s.shared_gate == SharedGate::residual) {
          const Var of_routed = exp(dot(token, w.mix.data(), M)), of_shared = exp(dot(token, &w.mix[M], M));
          a = of_routed / (of_routed + of_shared), b = of_shared / (of_routed + of_shared);
        }
        for (Index m = 0; m < M; ++m) y[m] = a * y[m] + b * out[m];
      }
      for (Index m = 0; m < M; ++m) {
        r.y.push_back(y[m].v);
        objective += Var(dy[t * M + m]) * y[m];
      }
    }
    first += ix(size);
    Var balance, z;
    if (size > 0) {
      for (Index e = 0; e < chosen.size(); ++e)
        balance += Var(chosen[e] / (size * s.top_k)) * score_sums[e] / Var(size);
      balance = Var(static_cast<double>(s.router.balance_loss) * s.experts) * balance;
      z = Var(static_cast<double>(s.router.z_loss) / size) * squares;
    }
    r.balance.push_back(balance.v), r.z.push_back(z.v);
    objective += (balance + z) / Var(static_cast<double>(parts.size()));
  }
  r.objective = objective.v;
  const auto d = tape.derivatives(objective.at);
  r.dx.assign(x.size(), 0.0);
  add_gradient(d, tokens, r.dx);
  const Vars* const of[] = {&w.router, &w.gate, &w.up, &w.down, &w.shared_gate, &w.shared_up, &w.shared_down, &w.mix};
  const auto to = grads.all();
  for (Index i = 0; i < to.size(); ++i) add_gradient(d, *of[i], *to[i]);
  return r;
}

}  // namespace topomoe::testing
