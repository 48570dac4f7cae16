#include "tests/support/whole_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <optional>

#include "planner/schedules/build.hpp"
#include "runtime/host_exchange.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;
using Bytes = std::vector<std::byte>;

Index ix(std::int64_t i) { return static_cast<Index>(i); }

int held_by(const WholeCase& c, int rank) {
  return c.tokens[ix(c.layout.sequence_parallel ? rank : rank / c.layout.tp) % c.tokens.size()];
}

// A rank's rows of its TP group's tensor.
Values held_part(const WholeCase& c, int rank, const Values& group) {
  std::ptrdiff_t first = 0;
  if (c.layout.sequence_parallel)
    for (int before = rank - rank % c.layout.tp; before < rank; ++before) first += held_by(c, before);
  return {group.begin() + first * c.shape.hidden, group.begin() + (first + held_by(c, rank)) * c.shape.hidden};
}

WholeWeights weights_of(const WholeCase& c) {
  WholeWeights w = draw_weights(c.shape, c.biased, 3);
  for (auto* v : {&w.gate, &w.up, &w.down, &w.shared_gate, &w.shared_up, &w.shared_down})
    *v = rounded(*v, c.shape.dtype);
  for (int e = 0; e < c.shape.experts && c.first_experts; ++e) w.bias.push_back(-2.0 * e);  // scores are in [0, 1]
  return w;
}

enum class Salt : std::uint64_t { x = 1000, dy = 2000 };

Values drawn(const WholeCase& c, int group, Salt salt) {
  const auto parts = parts_of(c, group);
  const int tokens = std::accumulate(parts.begin(), parts.end(), 0);
  const auto seed = static_cast<std::uint64_t>(salt) + static_cast<std::uint64_t>(group);
  return rounded(random_values(ix(tokens * c.shape.hidden), seed), c.shape.dtype);
}

// Of a tensor [outer, rows, columns] what lies in rows [r0, r1) and columns [c0, c1) of these of the outer ones.
struct Block {
  Index rows, columns;
  std::vector<Index> outer;
  Index r0, r1, c0, c1;
  template <class Visit>
  void each(Visit visit) const {  // visit(index, outer)
    for (const Index o : outer)
      for (Index r = r0; r < r1; ++r)
        for (Index k = c0; k < c1; ++k) visit((o * rows + r) * columns + k, o);
  }
};

int place_of(const WholeCase& c, int rank) { return index_in(c.layout, Role::ep, rank, c.gpus_per_node); }

// What a rank holds of each tensor of WholeWeights::all(), in that order.
std::vector<Block> blocks_of(const WholeCase& c, int rank) {
  const Layout& l = c.layout;
  const auto cut = [](std::int64_t n, int parts, int i) { return ix(n * i / parts); };
  const int ep = place_of(c, rank), etp = index_in(l, Role::etp, rank, c.gpus_per_node),
            tp = index_in(l, Role::tp, rank, c.gpus_per_node);
  const Index M = ix(c.shape.hidden), F = ix(c.shape.ffn), S = ix(c.shape.shared_ffn), E = ix(c.shape.experts),
              G = static_cast<Index>(c.shape.shared_gate);
  std::vector<Index> held;
  for (Index e = 0; e < E; ++e) {
    const auto& owners = c.shape.expert_owners;
    if (owners.empty() ? ix(ep) == e / (E / ix(l.ep)) : std::count(owners[e].begin(), owners[e].end(), ep) > 0)
      held.push_back(e);
  }
  const Index f0 = cut(c.shape.ffn, l.etp, etp), f1 = cut(c.shape.ffn, l.etp, etp + 1);
  const Index s0 = cut(c.shape.shared_ffn, l.tp, tp), s1 = cut(c.shape.shared_ffn, l.tp, tp + 1);
  return {{E, M, {0}, 0, E, 0, M},   {F, M, held, f0, f1, 0, M}, {F, M, held, f0, f1, 0, M}, {M, F, held, 0, M, f0, f1},
          {S, M, {0}, s0, s1, 0, M}, {S, M, {0}, s0, s1, 0, M},  {M, S, {0}, 0, M, s0, s1},  {G, M, {0}, 0, G, 0, M}};
}
bool is_fp32(Index tensor) { return tensor == 0 || tensor == 7; }
bool is_of_experts(Index tensor) { return 1 <= tensor && tensor <= 3; }

// Each replica has the sum over all of them: one counts, another one of each expert.
bool counts_for(const WholeCase& c, Index expert, int place) {
  const ExpertOwners& owners = c.shape.expert_owners;
  return owners.empty() || owners[expert][expert % owners[expert].size()] == place;
}

// A rank's share of the gradients, in one sequence of all whole tensors.
Values share_of(const WholeCase& c, int rank, const std::vector<std::vector<float>>& grads) {
  WholeWeights sum = zero_weights_like(weights_of(c));
  const auto blocks = blocks_of(c, rank);
  Values flat;
  for (Index i = 0; i < blocks.size(); ++i) {
    Values& whole = *sum.all()[i];
    Index at = 0;
    blocks[i].each([&](Index to, Index outer) {
      const float g = grads[i][at++];
      if (!is_of_experts(i) || counts_for(c, outer, place_of(c, rank))) whole[to] += static_cast<double>(g);
    });
    flat.insert(flat.end(), whole.begin(), whole.end());
  }
  return flat;
}

// Largest difference over the largest value. Assumed for tests of this size, as the rehearsal's bounds are: fp32 adds
// tens of terms in another order, bf16 rounds to 8 bits on the way.
template <class Got>
void judge(std::vector<std::string>& wrong, const WholeCase& c, const std::string& what, const Got& got,
           const Values& want) {
  const double bound = c.shape.dtype == DType::f32 ? 1e-5 : 4e-2;
  double difference = got.size() == want.size() ? 0 : HUGE_VAL, largest = 0;
  for (Index i = 0; i < std::min(got.size(), want.size()); ++i) {
    const double off = std::abs(static_cast<double>(got[i]) - want[i]);
    difference = off <= difference ? difference : std::isnan(off) ? HUGE_VAL : off;
    largest = std::max(largest, std::abs(want[i]));
  }
  if (!(difference <= bound * largest))
    wrong.push_back(describe(c) + ": " + what + " off by " + std::to_string(difference) + ", largest " +
                    std::to_string(largest));
}

void judge_report(std::vector<std::string>& wrong, const WholeCase& c, const RouterReport& got, const WholeResult& want,
                  Index part, int tokens) {
  const auto loss = [&](const char* what, double value, double expected) {
    if (!(std::abs(value - expected) <= 1e-5 * (1e-3 + expected)))
      wrong.push_back(describe(c) + ": " + what + " " + std::to_string(value) + ", by definition " +
                      std::to_string(expected));
  };
  loss("balance loss", got.balance_loss, want.balance[part]);
  loss("z loss", got.z_loss, want.z[part]);
  const auto chosen = std::accumulate(got.chosen.begin(), got.chosen.end(), std::int64_t{0});
  // Rounds are cut anew among the ranks of a TP group.
  if (c.options.tokens == 0 && chosen != tokens * c.shape.top_k)
    wrong.push_back(describe(c) + ": " + std::to_string(chosen) + " choices of " + std::to_string(tokens) + " tokens");
}

}  // namespace

std::vector<int> parts_of(const WholeCase& c, int group) {
  const int t = c.layout.tp, whole = held_by(c, group * t);
  std::vector<int> parts;
  for (int i = 0; i < t; ++i)
    parts.push_back(c.layout.sequence_parallel ? held_by(c, group * t + i) : whole * (i + 1) / t - whole * i / t);
  if (t > 1 && c.request.split == TokenSplit::replicated)
    return {c.layout.sequence_parallel ? std::accumulate(parts.begin(), parts.end(), 0) : whole};
  return parts;
}

WholeRank run_rank(const WholeCase& c, Communicator& communicator, Device& device, int steps,
                   const std::function<void(int step)>& after_step) {
  const int rank = communicator.rank(), group = rank / c.layout.tp;
  const DType dtype = c.shape.dtype;
  const Bytes x = encode(held_part(c, rank, drawn(c, group, Salt::x)), dtype),
              dy = encode(held_part(c, rank, drawn(c, group, Salt::dy)), dtype);
  WholeRank out;
  out.y.resize(x.size()), out.dx.resize(x.size());
  WholeWeights all = weights_of(c);
  const auto blocks = blocks_of(c, rank);
  std::vector<Bytes> weights;
  for (Index i = 0; i < blocks.size(); ++i) {
    Values held;
    blocks[i].each([&](Index at, Index) { held.push_back((*all.all()[i])[at]); });
    out.grads.emplace_back(held.size(), 0.0F);
    weights.push_back(encode(held, is_fp32(i) ? DType::f32 : dtype));
  }
  const Bytes bias = encode(all.bias, DType::f32);
  const auto f32 = [](const Bytes& b) { return b.empty() ? nullptr : reinterpret_cast<const float*>(b.data()); };
  const LayerWeights w{.router = f32(weights[0]),
                       .gate = weights[1].data(),
                       .up = weights[2].data(),
                       .down = weights[3].data(),
                       .selection_bias = f32(bias),
                       .shared_gate = weights[4].data(),
                       .shared_up = weights[5].data(),
                       .shared_down = weights[6].data(),
                       .mix = f32(weights[7])};
  auto& d = out.grads;
  const LayerGradients g{d[0].data(), d[1].data(), d[2].data(), d[3].data(),
                         d[4].data(), d[5].data(), d[6].data(), d[7].data()};
  MoeLayer layer(build_schedule(c.transport, c.request), c.layout, c.gpus_per_node, c.shape, communicator, device,
                 std::chrono::seconds(60), c.options);
  Bytes other_y(x.size());  // of a second forward in between: nothing of it may leak into the first one's backward
  for (int i = 0; i < steps; ++i) {
    auto handle = layer.forward(x.data(), held_by(c, rank), out.y.data(), w, nullptr, c.keep);
    const auto other = layer.forward(dy.data(), held_by(c, rank), other_y.data(), w, nullptr, c.keep);
    out.report = handle.router(), out.saved_bytes = handle.saved_bytes();
    layer.backward(handle, dy.data(), out.dx.data(), w, g);
    device.synchronize(soon());
    if (after_step) after_step(i);
  }
  layer.sum_over_replicas(g);
  out.counters = layer.counters();
  communicator.barrier();  // before anyone's memory goes
  return out;
}

std::vector<WholeRank> run_threads(const WholeCase& c, int steps) {
  std::vector<WholeRank> ranks(ix(c.layout.world));
  run_inproc(c.layout.world, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    ranks[ix(communicator.rank())] = run_rank(c, communicator, *device, steps);
  });
  return ranks;
}

std::vector<std::string> check_whole(const std::vector<WholeCase>& cases, Communicator& communicator) {
  std::vector<std::string> wrong;
  HostExchange host(communicator);
  const auto device = make_cpu_device();
  const int rank = communicator.rank();
  for (const WholeCase& c : cases) {
    const WholeRank got = run_rank(c, communicator, *device);
    const bool has_tokens = std::any_of(c.tokens.begin(), c.tokens.end(), [](int n) { return n > 0; });
    if ((got.counters.overflow_rounds > 0) != (c.options.tokens > 0 && has_tokens))
      wrong.push_back(describe(c) + ": " + std::to_string(got.counters.overflow_rounds) + " overflow rounds");
    const WholeWeights weights = weights_of(c);
    WholeWeights expected = zero_weights_like(weights), unused = expected;
    const int t = c.layout.tp, mine = rank / t;
    for (int group = 0; group < c.layout.world / t; ++group) {
      if (rank != 0 && group != mine) continue;
      const auto parts = parts_of(c, group);
      const WholeResult want = run_whole(c.shape, weights, drawn(c, group, Salt::x), drawn(c, group, Salt::dy), parts,
                                         rank == 0 ? expected : unused);
      if (group != mine) continue;
      judge(wrong, c, "output", decode(got.y, c.shape.dtype), held_part(c, rank, want.y));
      judge(wrong, c, "token gradients", decode(got.dx, c.shape.dtype), held_part(c, rank, want.dx));
      const Index part = parts.size() == 1 ? 0 : ix(rank % t);
      judge_report(wrong, c, got.report, want, part, parts[part]);
    }
    Values sum;
    for (const auto& share : host.gather("gradients of weights", share_of(c, rank, got.grads))) {
      sum.resize(share.size());
      for (Index i = 0; i < share.size(); ++i) sum[i] += share[i];
    }
    if (rank != 0) continue;
    const char* const names[] = {"router", "gate", "up", "down", "shared gate", "shared up", "shared down", "mix"};
    auto first = sum.begin();
    for (Index i = 0; i < expected.all().size(); ++i) {
      const Values& want = *expected.all()[i];
      const auto end = first + static_cast<std::ptrdiff_t>(want.size());
      judge(wrong, c, std::string(names[i]) + " gradients", Values(first, end), want);
      first = end;
    }
  }
  return wrong;
}

void expect_definition(const std::vector<WholeCase>& cases) {
  if (cases.empty()) return;
  std::mutex mutex;
  run_inproc(cases.front().layout.world, [&](Communicator& communicator) {
    const auto wrong = check_whole(cases, communicator);
    const std::lock_guard lock(mutex);
    for (const std::string& line : wrong) ADD_FAILURE() << line;
  });
}

}  // namespace topomoe::testing
