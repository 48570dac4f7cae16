#include "tests/support/layer_world.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "kernels/bf16.hpp"
#include "runtime/communicator_inproc.hpp"
#include "runtime/device_cpu.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;

// Tokens that are the same on several ranks have the same owner: the TP group, or under SP the rank.
int owner(const LayerCase& c, int rank) { return c.layout.sequence_parallel ? rank : rank / c.layout.tp; }

Values rounded(Values v, DType t) {
  if (t == DType::bf16)
    for (double& x : v) x = static_cast<double>(kernels::to_float(kernels::to_bf16(static_cast<float>(x))));
  return v;
}

ReferenceWeights make_weights(const LayerCase& c) {
  const auto E = static_cast<Index>(c.shape.experts), M = static_cast<Index>(c.shape.hidden), F = static_cast<Index>(c.shape.ffn);
  const double s = 1.0 / std::sqrt(static_cast<double>(M)), f = 1.0 / std::sqrt(static_cast<double>(F));
  return {random_values(E * M, c.seed + 11, 2 * s), rounded(random_values(E * F * M, c.seed + 12, 2 * s), c.dtype),
          rounded(random_values(E * F * M, c.seed + 13, 2 * s), c.dtype), rounded(random_values(E * M * F, c.seed + 14, 2 * f), c.dtype)};
}

Values tensor(const LayerCase& c, int rank, std::uint64_t salt) {
  const auto count = static_cast<Index>(held_tokens(c, rank)) * static_cast<Index>(c.shape.hidden);
  return rounded(random_values(count, c.seed * 1000 + salt * 100 + static_cast<std::uint64_t>(owner(c, rank))), c.dtype);
}

ReferenceWeights zeros(const LayerCase& c) {
  const auto E = static_cast<Index>(c.shape.experts), M = static_cast<Index>(c.shape.hidden), F = static_cast<Index>(c.shape.ffn);
  return {Values(E * M), Values(E * F * M), Values(E * F * M), Values(E * M * F)};
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
    if (t == DType::f32) std::memcpy(&out[i], &in[i * 4], 4);
    else std::memcpy(&h, &in[i * 2], 2), out[i] = kernels::to_float(kernels::Bf16{h});
  }
  return out;
}

// Rows [e0, e1) of experts and columns of the shard, as a rank holds them.
struct Shard {
  Index e0, e1, f0, f1;
};

Values cut_ffn_rows(const Values& w, const Shard& s, Index F, Index M) {  // [E, F, M] -> [local, shard, M]
  Values out;
  for (Index e = s.e0; e < s.e1; ++e)
    out.insert(out.end(), w.begin() + static_cast<long>((e * F + s.f0) * M), w.begin() + static_cast<long>((e * F + s.f1) * M));
  return out;
}

Values cut_ffn_columns(const Values& w, const Shard& s, Index F, Index M) {  // [E, M, F] -> [local, M, shard]
  Values out;
  for (Index e = s.e0; e < s.e1; ++e)
    for (Index m = 0; m < M; ++m)
      out.insert(out.end(), w.begin() + static_cast<long>((e * M + m) * F + s.f0), w.begin() + static_cast<long>((e * M + m) * F + s.f1));
  return out;
}

}  // namespace

int held_tokens(const LayerCase& c, int rank) { return c.tokens[static_cast<Index>(owner(c, rank)) % c.tokens.size()]; }

LayerResult run_layer(const LayerCase& c, const Schedule& schedule, const WrapCommunicator& wrap) {
  const int world = c.layout.world;
  const auto M = static_cast<Index>(c.shape.hidden), F = static_cast<Index>(c.shape.ffn);
  const ReferenceWeights weights = make_weights(c);
  LayerResult result;
  result.output.resize(static_cast<Index>(world)), result.token_grads.resize(static_cast<Index>(world));
  result.forward.resize(static_cast<Index>(world)), result.backward.resize(static_cast<Index>(world));
  result.grads = zeros(c);
  std::mutex mutex;
  run_inproc(world, [&](Communicator& raw) {
    const auto wrapped = wrap ? wrap(raw) : nullptr;
    Communicator& communicator = wrapped ? *wrapped : raw;
    const int rank = communicator.rank();
    const auto device = make_cpu_device();
    const int ep_index = index_in(c.layout, Role::ep, rank, c.gpus_per_node), etp_index = index_in(c.layout, Role::etp, rank, c.gpus_per_node);
    const auto E = c.shape.experts;
    const Shard s{static_cast<Index>(part_begin(E, c.layout.ep, ep_index)), static_cast<Index>(part_begin(E, c.layout.ep, ep_index + 1)),
                  static_cast<Index>(part_begin(c.shape.ffn, c.layout.etp, etp_index)),
                  static_cast<Index>(part_begin(c.shape.ffn, c.layout.etp, etp_index + 1))};
    const auto x = encode(tensor(c, rank, 1), c.dtype), dy = encode(tensor(c, rank, 2), c.dtype);
    std::vector<std::byte> y(x.size()), dx(x.size());
    std::vector<float> router(weights.router.begin(), weights.router.end());
    const auto gate = encode(cut_ffn_rows(weights.gate, s, F, M), c.dtype), up = encode(cut_ffn_rows(weights.up, s, F, M), c.dtype),
               down = encode(cut_ffn_columns(weights.down, s, F, M), c.dtype);
    std::vector<float> drouter(router.size()), dgate(gate.size() / size_of(c.dtype)), dup(dgate.size()), ddown(dgate.size());
    const LayerWeights w{router.data(), gate.data(), up.data(), down.data()};
    const LayerGradients g{drouter.data(), dgate.data(), dup.data(), ddown.data()};
    MoeLayer layer(schedule, c.layout, c.gpus_per_node,
                   {c.shape.hidden, c.shape.ffn, c.shape.experts, c.shape.top_k, c.shape.renormalize, c.dtype}, communicator, *device);
    auto handle = layer.forward(x.data(), held_tokens(c, rank), y.data(), w);
    auto forward = layer.last_trace();
    layer.backward(handle, dy.data(), dx.data(), w, g);
    const std::lock_guard lock(mutex);
    const auto r = static_cast<Index>(rank);
    result.forward[r] = std::move(forward), result.backward[r] = layer.last_trace();
    result.output[r] = decode(y, c.dtype), result.token_grads[r] = decode(dx, c.dtype);
    for (Index i = 0; i < drouter.size(); ++i) result.grads.router[i] += static_cast<double>(drouter[i]);
    Index i = 0, j = 0;
    for (Index e = s.e0; e < s.e1; ++e)
      for (Index f = s.f0; f < s.f1; ++f)
        for (Index m = 0; m < M; ++m, ++i) {
          result.grads.gate[(e * F + f) * M + m] += static_cast<double>(dgate[i]);
          result.grads.up[(e * F + f) * M + m] += static_cast<double>(dup[i]);
        }
    for (Index e = s.e0; e < s.e1; ++e)
      for (Index m = 0; m < M; ++m)
        for (Index f = s.f0; f < s.f1; ++f, ++j) result.grads.down[(e * M + m) * F + f] += static_cast<double>(ddown[j]);
  });
  return result;
}

ExpectedResult expect_layer(const LayerCase& c) {
  const ReferenceWeights weights = make_weights(c);
  ExpectedResult out;
  out.grads = zeros(c);
  int last = -1;
  for (int rank = 0; rank < c.layout.world; ++rank) {
    if (owner(c, rank) == last) {  // the same tokens: their gradients count once
      out.output.push_back(out.output.back()), out.token_grads.push_back(out.token_grads.back()), out.ids.push_back(out.ids.back());
      continue;
    }
    last = owner(c, rank);
    auto r = run_reference(c.shape, weights, tensor(c, rank, 1), tensor(c, rank, 2), out.grads);
    out.output.push_back(std::move(r.output)), out.token_grads.push_back(std::move(r.token_grads)), out.ids.push_back(std::move(r.ids));
  }
  return out;
}

namespace {
template <class A>
double worst(const A& a, const Values& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, largest = 1;
  for (Index i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::isfinite(a[i]) ? std::abs(static_cast<double>(a[i]) - b[i]) : 1e300);
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / largest;
}
}  // namespace

double error(const std::vector<float>& a, const Values& b) { return worst(a, b); }
double error(const Values& a, const Values& b) { return worst(a, b); }

}  // namespace topomoe::testing
