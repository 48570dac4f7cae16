#include "tests/support/layer_world.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

#include "kernels/bf16.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;

constexpr Precision kF32{0x1p-24, 0}, kBf16{0x1p-24, 0x1p-8};

int group_of(const LayerCase& c, int rank) { return rank / c.layout.tp; }

// To where fp32 can be.
Values nudged(Values v, double by, std::uint64_t seed) {
  if (by == 0) return v;
  const Values direction = random_values(v.size(), seed + 77777);
  for (Index i = 0; i < v.size(); ++i) v[i] = static_cast<double>(static_cast<float>(v[i] + by * direction[i]));
  return v;
}

int group_tokens(const LayerCase& c, int group) {
  if (!c.layout.sequence_parallel) return held_tokens(c, group * c.layout.tp);
  int all = 0;
  for (int i = 0; i < c.layout.tp; ++i) all += held_tokens(c, group * c.layout.tp + i);
  return all;
}

enum class Salt : std::uint64_t { x = 1, dy = 2 };

Values group_tensor(const LayerCase& c, int group, Salt salt) {
  const auto count = static_cast<Index>(group_tokens(c, group)) * static_cast<Index>(c.shape.hidden);
  const auto seed = c.seed * 10000 + static_cast<std::uint64_t>(salt) * 1000 + static_cast<std::uint64_t>(group);
  return rounded(nudged(random_values(count, seed), salt == Salt::x ? c.nudge[0] : 0, seed), c.dtype);
}

// The rank's rows of its group's tensor.
template <class T>
std::vector<T> held_part(const LayerCase& c, int rank, const std::vector<T>& group, Index columns) {
  const auto first = static_cast<long>(static_cast<Index>(first_held_token(c, rank)) * columns);
  return {group.begin() + first,
          group.begin() + first + static_cast<long>(static_cast<Index>(held_tokens(c, rank)) * columns)};
}

// Experts and columns [f0, f1) of their ffn, as a rank holds them.
struct Shard {
  std::vector<Index> experts;
  Index f0, f1;
};

Shard shard_of(const LayerCase& c, int rank) {
  const auto part = [](int n, int parts, int index) { return static_cast<Index>(n / parts * index); };
  const Layout& l = c.layout;
  const int ep = index_in(l, Role::ep, rank, c.gpus_per_node), etp = index_in(l, Role::etp, rank, c.gpus_per_node);
  Shard s{{}, part(c.shape.ffn, l.etp, etp), part(c.shape.ffn, l.etp, etp + 1)};
  for (Index e = 0; e < static_cast<Index>(c.shape.experts); ++e)
    if (c.owners.empty() ? static_cast<int>(e) / (c.shape.experts / l.ep) == ep
                         : std::find(c.owners[e].begin(), c.owners[e].end(), ep) != c.owners[e].end())
      s.experts.push_back(e);
  return s;
}

// Visits the shard's elements in the order in which a rank holds them: visit(index in the whole tensor).
template <class Visit>
void each_of_gate(const LayerCase& c, const Shard& s, Visit visit) {  // [E, F, M] -> [local, shard, M]
  const auto M = static_cast<Index>(c.shape.hidden), F = static_cast<Index>(c.shape.ffn);
  for (const Index e : s.experts)
    for (Index f = s.f0; f < s.f1; ++f)
      for (Index m = 0; m < M; ++m) visit((e * F + f) * M + m);
}
template <class Visit>
void each_of_down(const LayerCase& c, const Shard& s, Visit visit) {  // [E, M, F] -> [local, M, shard]
  const auto M = static_cast<Index>(c.shape.hidden), F = static_cast<Index>(c.shape.ffn);
  for (const Index e : s.experts)
    for (Index m = 0; m < M; ++m)
      for (Index f = s.f0; f < s.f1; ++f) visit((e * M + m) * F + f);
}

}  // namespace

Values rounded(Values v, DType t) {
  if (t == DType::bf16)
    for (double& x : v) x = static_cast<double>(kernels::to_float(kernels::to_bf16(static_cast<float>(x))));
  return v;
}

std::vector<std::byte> encode(const Values& v, DType t) {
  std::vector<std::byte> out(v.size() * size_of(t));
  for (Index i = 0; i < v.size(); ++i) {
    const auto f = static_cast<float>(v[i]);
    const std::uint16_t h = kernels::to_bf16(f).bits;
    std::memcpy(&out[i * size_of(t)], t == DType::f32 ? static_cast<const void*>(&f) : &h, size_of(t));
  }
  return out;
}

std::vector<float> decode(const std::vector<std::byte>& in, DType t) {
  std::vector<float> out(in.size() / size_of(t));
  for (Index i = 0; i < out.size(); ++i) {
    std::uint16_t h = 0;
    if (t == DType::f32) {
      std::memcpy(&out[i], &in[i * 4], 4);
    } else {
      std::memcpy(&h, &in[i * 2], 2);
      out[i] = kernels::to_float(kernels::Bf16{h});
    }
  }
  return out;
}

void add_shards(const LayerCase& c, int rank, const RankTensors& t, ReferenceWeights& sum) {
  const Shard s = shard_of(c, rank);
  for (Index i = 0; i < t.drouter.size(); ++i) sum.router[i] += static_cast<double>(t.drouter[i]);
  Index i = 0, j = 0;
  each_of_gate(c, s, [&](Index k) {
    sum.gate[k] += static_cast<double>(t.dgate[i]);
    sum.up[k] += static_cast<double>(t.dup[i++]);
  });
  each_of_down(c, s, [&](Index k) { sum.down[k] += static_cast<double>(t.ddown[j++]); });
}

ReferenceWeights zero_weights(const LayerCase& c) {
  const ReferenceGradients zero = zero_gradients(c.shape);
  return {zero.router.value, zero.gate.value, zero.up.value, zero.down.value};
}

std::string describe(const LayerCase& c) {
  std::string out =
      name(c.layout) + ", " + std::to_string(c.layout.world) + " ranks on nodes of " + std::to_string(c.gpus_per_node);
  out += ", hidden " + std::to_string(c.shape.hidden) + ", ffn " + std::to_string(c.shape.ffn);
  out += ", experts " + std::to_string(c.shape.experts) + ", top " + std::to_string(c.shape.top_k);
  out += std::string(c.shape.renormalize ? " renormalized" : "") + ", tokens";
  for (const int t : c.tokens) out += " " + std::to_string(t);
  if (!c.owners.empty()) out += ", owners";
  for (const auto& its : c.owners)
    for (Index i = 0; i < its.size(); ++i) out += (i == 0 ? " " : "+") + std::to_string(its[i]);
  if (c.shape.capacity_factor > 0) out += ", capacity factor " + std::to_string(c.shape.capacity_factor);
  return out + (c.dtype == DType::bf16 ? ", bf16" : "") + ", seed " + std::to_string(c.seed);
}

int held_tokens(const LayerCase& c, int rank) {
  return c.tokens[static_cast<Index>(c.layout.sequence_parallel ? rank : group_of(c, rank)) % c.tokens.size()];
}

int first_held_token(const LayerCase& c, int rank) {
  int first = 0;
  if (c.layout.sequence_parallel)
    for (int before = group_of(c, rank) * c.layout.tp; before < rank; ++before) first += held_tokens(c, before);
  return first;
}

// Of a size that keeps gates and outputs around 1.
ReferenceWeights make_weights(const LayerCase& c) {
  const auto E = static_cast<Index>(c.shape.experts), M = static_cast<Index>(c.shape.hidden),
             F = static_cast<Index>(c.shape.ffn);
  const double s = 2 / std::sqrt(static_cast<double>(M)), f = 2 / std::sqrt(static_cast<double>(F));
  const auto draw = [&](Index count, std::uint64_t salt, double scale) {
    return nudged(random_values(count, c.seed * 100 + salt, scale), c.nudge[salt - 10], c.seed * 100 + salt);
  };
  return {draw(E * M, 11, s), rounded(draw(E * F * M, 12, s), c.dtype), rounded(draw(E * F * M, 13, s), c.dtype),
          rounded(draw(E * M * F, 14, f), c.dtype)};
}

namespace {

Values of_all_groups(const LayerCase& c, Salt salt) {
  Values all;
  for (int g = 0; g < c.layout.world / c.layout.tp; ++g) {
    const Values mine = group_tensor(c, g, salt);
    all.insert(all.end(), mine.begin(), mine.end());
  }
  return all;
}

}  // namespace

Values make_tokens(const LayerCase& c) { return of_all_groups(c, Salt::x); }
Values make_output_grads(const LayerCase& c) { return of_all_groups(c, Salt::dy); }

RankTensors::RankTensors(const LayerCase& c, const ReferenceWeights& all, int rank) : rows(held_tokens(c, rank)) {
  const auto M = static_cast<Index>(c.shape.hidden);
  x = encode(held_part(c, rank, group_tensor(c, group_of(c, rank), Salt::x), M), c.dtype);
  dy = encode(held_part(c, rank, group_tensor(c, group_of(c, rank), Salt::dy), M), c.dtype);
  y.resize(x.size()), dx.resize(x.size());
  router.assign(all.router.begin(), all.router.end());
  Values g, u, d;
  const Shard s = shard_of(c, rank);
  each_of_gate(c, s, [&](Index i) { g.push_back(all.gate[i]), u.push_back(all.up[i]); });
  each_of_down(c, s, [&](Index i) { d.push_back(all.down[i]); });
  gate = encode(g, c.dtype), up = encode(u, c.dtype), down = encode(d, c.dtype);
  drouter.resize(router.size()), dgate.resize(g.size()), dup.resize(g.size()), ddown.resize(g.size());
}

double tokens_of_group(const LayerCase& c) {
  int most = 0;
  for (int rank = 0; rank < c.layout.world; ++rank) most = std::max(most, held_tokens(c, rank));
  return most * (c.layout.sequence_parallel ? c.layout.tp : 1);
}

void make_zipf(const LayerCase& c, RankTensors& t, double exponent) {
  const auto M = static_cast<Index>(c.shape.hidden);
  const float one = 1;
  for (Index row = 0; row < static_cast<Index>(t.rows); ++row)
    std::memcpy(&t.x[row * M * sizeof one], &one, sizeof one);
  for (Index e = 0; e < static_cast<Index>(c.shape.experts); ++e)
    t.router[e * M] = static_cast<float>(-exponent * std::log(static_cast<double>(e + 1)));
}

MoeLayer make_layer(const LayerCase& c, const Schedule& schedule, Communicator& communicator, Device& device,
                    std::chrono::milliseconds deadline) {
  const LayerShape shape{c.shape.hidden,      c.shape.ffn, c.shape.experts, c.shape.top_k,
                         c.shape.renormalize, c.dtype,     c.owners,        c.shape.capacity_factor};
  return {schedule, c.layout, c.gpus_per_node, shape, communicator, device, deadline};
}

LayerResult run_layer(const LayerCase& c, const Schedule& schedule, bool packed) {
  const auto world = static_cast<Index>(c.layout.world);
  const ReferenceWeights weights = make_weights(c);
  LayerResult result;
  result.output.resize(world), result.token_grads.resize(world);
  result.forward.resize(world), result.backward.resize(world);
  result.sent_forward.resize(world), result.sent_backward.resize(world);
  result.grads = zero_weights(c);
  std::mutex mutex;
  run_inproc(c.layout.world, [&](Communicator& raw) {
    CountingCommunicator communicator(raw);
    const auto device = make_cpu_device();
    const auto r = static_cast<Index>(communicator.rank());
    RankTensors t(c, weights, communicator.rank());
    MoeLayer layer = make_layer(c, schedule, communicator, *device);
    if (packed) TOPOMOE_ASSERT(layer.pack_weights(t.weights()));
    auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
    result.forward[r] = layer.last_trace().steps, result.sent_forward[r] = communicator.sent();
    communicator.reset();
    layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
    result.backward[r] = layer.last_trace().steps, result.sent_backward[r] = communicator.sent();
    result.output[r] = decode(t.y, c.dtype), result.token_grads[r] = decode(t.dx, c.dtype);
    const std::lock_guard lock(mutex);
    add_shards(c, communicator.rank(), t, result.grads);
  });
  return result;
}

ExpectedResult expect_layer(const LayerCase& c, bool sliced) {
  const ReferenceWeights weights = make_weights(c);
  const auto M = static_cast<Index>(c.shape.hidden), K = static_cast<Index>(c.shape.top_k);
  const int groups = c.layout.world / c.layout.tp;
  // Tokens that are routed together.
  const auto routed = [&](int g) {
    const int t = c.layout.tp, all = group_tokens(c, g);
    std::vector<int> parts;
    for (int i = 0; i < t && sliced; ++i)
      parts.push_back(c.layout.sequence_parallel ? held_tokens(c, g * t + i) : all * (i + 1) / t - all * i / t);
    return sliced ? parts : std::vector{all};
  };
  // A gradient gets one term a token; replicas scale theirs by 1/t, and shares of ranks are added up.
  double additions = c.layout.world + 2;
  for (int g = 0; g < groups; ++g) additions += group_tokens(c, g);
  ExpectedResult out;
  out.grads = zero_gradients(c.shape);
  for (int g = 0; g < groups; ++g) {
    const auto r = run_reference(c.shape, weights, group_tensor(c, g, Salt::x), group_tensor(c, g, Salt::dy),
                                 c.dtype == DType::bf16 ? kBf16 : kF32, additions, out.grads, routed(g));
    out.decided = out.decided && r.decided;
    for (int rank = g * c.layout.tp; rank < (g + 1) * c.layout.tp; ++rank) {
      for (const auto& [whole, parts] : {std::pair{&r.output, &out.output}, {&r.token_grads, &out.token_grads}}) {
        Tensor& part = parts->emplace_back();
        part.value = held_part(c, rank, whole->value, M), part.bound = held_part(c, rank, whole->bound, M);
      }
      out.ids.push_back(held_part(c, rank, r.ids, K));
    }
  }
  return out;
}

namespace {

template <class A>
double worst(const A& a, const Tensor& b) {
  if (a.size() != b.value.size()) return std::numeric_limits<double>::infinity();
  double most = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b.value[i]);
    if (difference == 0) continue;
    // NaN compares false with everything: let it fail.
    const double share = difference / b.bound[i];
    most = share <= most ? most : std::isnan(share) ? std::numeric_limits<double>::infinity() : share;
  }
  return most;
}

template <class A>
void add_distance(const A& a, const Tensor& b, Distance& d) {
  for (Index i = 0; i < b.value.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b.value[i];
    d.difference += difference * difference, d.size += b.value[i] * b.value[i];
  }
}

}  // namespace

double worst_of_bound(const std::vector<float>& a, const Tensor& b) { return worst(a, b); }
double worst_of_bound(const Values& a, const Tensor& b) { return worst(a, b); }

Distance distance(const LayerResult& a, const ExpectedResult& b) {
  Distance d;
  for (Index r = 0; r < a.output.size(); ++r) {
    add_distance(a.output[r], b.output[r], d);
    add_distance(a.token_grads[r], b.token_grads[r], d);
  }
  add_distance(a.grads.router, b.grads.router, d);
  add_distance(a.grads.gate, b.grads.gate, d);
  add_distance(a.grads.up, b.grads.up, d);
  add_distance(a.grads.down, b.grads.down, d);
  return d;
}

}  // namespace topomoe::testing
