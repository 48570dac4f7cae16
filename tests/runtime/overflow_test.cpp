// Memory of bounded size: what the plan's side says is what a layer takes, and what does not fit runs in rounds, in the
// same memory, to the same bits.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>

#include "planner/plan/capacity.hpp"
#include "tests/support/deferred_device.hpp"
#include "tests/support/soon.hpp"
#include "tests/support/whole_layer.hpp"
#include "topomoe/communicator_inproc.hpp"

namespace topomoe::testing {
namespace {

struct Case {
  LayerCase layer;
  Schedule schedule;
};

std::vector<Case> cases(std::vector<int> tokens) {
  std::vector<Case> out;
  for (const std::string_view transport : transport_names())
    for (const auto& l : {layout(4, 1, 1, 4), layout(4, 2, 2, 2), layout(4, 2, 1, 4), layout(4, 2, 1, 4, true)})
      for (const auto split : {TokenSplit::sliced, TokenSplit::replicated})
        for (const auto& [chunks, pieces] : {std::pair{1, 1}, {4, 2}}) {
          const ScheduleRequest r = request(l, split, chunks, pieces);
          if (!applies(transport, l, 2) || !find_transport(transport).refuses(r).empty()) continue;
          out.push_back({{.layout = l, .gpus_per_node = 2, .shape = {12, 8, 8, 2, true}, .tokens = tokens},
                         build_schedule(transport, r)});
        }
  return out;
}

LayerShape shape_of(const LayerCase& c) {
  return {c.shape.hidden, c.shape.ffn, c.shape.experts, c.shape.top_k, c.shape.renormalize, c.dtype};
}

struct Outcome {
  std::vector<std::byte> y[2], dx[2];
  std::vector<float> drouter, dgate, dup, ddown;
  LayerCounters counters;
  long allocations = 0, steady_allocations = 0;
  std::size_t bytes = 0, saved_bytes = 0;  // allocated in all; by a handle
};

constexpr double kZipf = 6;

// Some steps of two micro-batches, both outstanding at once. `zipf` 0: as drawn.
Outcome run(const Case& c, Communicator& inner, const LayerOptions& options, double zipf, int batches = 2) {
  const ReferenceWeights weights = make_weights(c.layer);
  DeferredDevice device(5);
  DeferredCommunicator communicator(inner, device);
  RankTensors t[2] = {{c.layer, weights, inner.rank()}, {c.layer, weights, inner.rank()}};
  for (RankTensors& one : t)
    if (zipf > 0) make_zipf(c.layer, one, zipf);
  Outcome out;
  {
    MoeLayer layer(c.schedule, c.layer.layout, c.layer.gpus_per_node, shape_of(c.layer), communicator, device,
                   std::chrono::seconds(60), options);
    for (int step = 0; step < 4; ++step) {
      if (step == 3) {
        for (auto* g : {&t[0].drouter, &t[0].dgate, &t[0].dup, &t[0].ddown}) std::fill(g->begin(), g->end(), 0);
        out.allocations = device.counts.allocations;
      }
      std::optional<MoeLayer::Handle> handles[2];
      for (int i = 0; i < batches; ++i)
        handles[i].emplace(layer.forward(t[i].x.data(), t[i].rows, t[i].y.data(), t[0].weights()));
      out.saved_bytes = handles[0]->saved_bytes();
      for (int i = 0; i < batches; ++i)
        layer.backward(*handles[i], t[i].dy.data(), t[i].dx.data(), t[0].weights(), t[0].gradients());
      device.synchronize(soon());
    }
    out.counters = layer.counters();
    inner.barrier();
  }
  out.steady_allocations = device.counts.allocations - out.allocations;
  out.bytes = device.counts.bytes;
  for (int i = 0; i < 2; ++i) out.y[i] = t[i].y, out.dx[i] = t[i].dx;
  out.drouter = t[0].drouter, out.dgate = t[0].dgate, out.dup = t[0].dup, out.ddown = t[0].ddown;
  return out;
}

// Nothing overflows: two allocations, of the planner's bytes. Its bucket is rank 0's, of a token more or less.
TEST(Overflow, NothingDoes_MemoryIsThePlannersBucket) {
  for (const Case& c : cases({64})) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.layer));
    const Layout& l = c.layer.layout;
    const LayerOptions options{tokens_of_group(c.layer), 1.5};
    const Capacity capacity{options.tokens, options.skew};
    const RankGroups groups(l, c.layer.gpus_per_node);
    const RowWidths widths = row_widths(shape_of(c.layer), l.etp, l.tp);
    const ExpertPlacement placement(shape_of(c.layer).experts, l.ep, shape_of(c.layer).expert_owners);
    const LayerBytes bucket = layer_bytes(c.schedule, groups, widths, placement, capacity);
    std::mutex mutex;
    run_inproc(l.world, [&](Communicator& inner) {
      const Outcome o = run(c, inner, options, 0, 1);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(o.counters.overflow_rounds, 0);
      EXPECT_EQ(o.allocations, 2);
      EXPECT_EQ(o.steady_allocations, 0);
      const LayerBytes mine = layer_bytes(c.schedule, groups, widths, placement, capacity, inner.rank());
      EXPECT_EQ(o.bytes, mine.pass() + mine.saved) << "rank " << inner.rank();
      const auto planned = static_cast<double>(bucket.pass() + bucket.saved);
      EXPECT_NEAR(static_cast<double>(o.bytes), planned, 0.05 * planned) << "rank " << inner.rank();
    });
  }
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    difference += (x - y) * (x - y), size += y * y;
  }
  return size > 0 ? std::sqrt(difference / size) : difference;
}

void expect_rounds_change_nothing(const Case& c, const LayerOptions& options, bool allocates_nothing) {
  SCOPED_TRACE(c.schedule.name + ", " + describe(c.layer));
  std::mutex mutex;
  std::vector<std::int64_t> rounds;
  std::vector<float> router, cut_router;
  run_inproc(c.layer.layout.world, [&](Communicator& inner) {
    const Outcome whole = run(c, inner, {}, kZipf), cut = run(c, inner, options, kZipf);
    const std::lock_guard lock(mutex);
    rounds.push_back(cut.counters.overflow_rounds);
    EXPECT_EQ(whole.counters.overflow_rounds, 0);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(cut.y[i], whole.y[i]);
      EXPECT_EQ(cut.dx[i], whole.dx[i]);
    }
    // Sums of up to some hundred terms in fp32, in another order: 100 2^-24 at worst, far less in the mean.
    for (const auto member : {&Outcome::dgate, &Outcome::dup, &Outcome::ddown})
      EXPECT_LT(relative_difference(cut.*member, whole.*member), 2e-6);
    // Who injects a token may change with the rounds, and with it whose share of the router's gradient it is in.
    for (auto* const sum : {&router, &cut_router}) {
      const auto& share = sum == &router ? whole.drouter : cut.drouter;
      sum->resize(share.size());
      for (std::size_t i = 0; i < share.size(); ++i) (*sum)[i] += share[i];
    }
    if (allocates_nothing) {
      EXPECT_EQ(cut.steady_allocations, 0);
    }
  });
  EXPECT_LT(relative_difference(cut_router, router), 2e-6);
  EXPECT_GT(rounds.front(), 0);
}

// All tokens to a few experts, memory for the mean: busy ranks get a part at a time.
TEST(Overflow, NoRoomForSkewUnderZipf_RoundsGiveTheSameBits) {
  for (const Case& c : cases({96})) {
    if (c.layer.layout.ep == 1) continue;
    expect_rounds_change_nothing(c, {tokens_of_group(c.layer), 1.0}, true);
  }
}

// What rounds save takes blocks of what one pass was planned to save: as many as its rows need, not one a round.
TEST(Overflow, RoundsOfAHandle_ShareBlocks) {
  for (const Case& c : cases({96})) {
    const Layout& l = c.layer.layout;
    if (l.ep == 1) continue;
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.layer));
    const LayerOptions options{tokens_of_group(c.layer), 1.0};
    const RankGroups groups(l, c.layer.gpus_per_node);
    const RowWidths widths = row_widths(shape_of(c.layer), l.etp, l.tp);
    const ExpertPlacement placement(shape_of(c.layer).experts, l.ep);
    std::mutex mutex;
    int of_little = 0;
    run_inproc(l.world, [&](Communicator& inner) {
      const Outcome o = run(c, inner, options, kZipf, 1);
      const std::lock_guard lock(mutex);  // groups are not thread-safe
      const LayerBytes planned =
          layer_bytes(c.schedule, groups, widths, placement, {options.tokens, options.skew}, inner.rank());
      const auto rounds = 1 + static_cast<std::size_t>(o.counters.overflow_rounds) / 4;  // of 4 steps
      const std::size_t blocks = (o.bytes - planned.pass()) / planned.saved;
      EXPECT_EQ(o.bytes, planned.pass() + blocks * planned.saved);
      EXPECT_GT(rounds, 1U);
      EXPECT_LE(blocks, rounds);
      // Slots are aligned, and a block is left when the next one does not fit.
      if (2 * o.saved_bytes < planned.saved) {
        EXPECT_EQ(blocks, 1U) << rounds << " rounds";
        ++of_little;
      }
    });
    EXPECT_GT(of_little, 0) << c.schedule.name << ", " << describe(c.layer);
  }
}

// More tokens than were planned for, unevenly, on some ranks none.
TEST(Overflow, MoreTokensThanPlanned_RoundsGiveTheSameBits) {
  const auto all = cases({20, 5, 0, 11});
  for (std::size_t i = 0; i < all.size(); i += 3) expect_rounds_change_nothing(all[i], {5, 1.0}, false);
}

// What cannot be cut any further gets the memory that it needs.
TEST(Overflow, NoRoomForAToken_StillRuns) {
  for (const Case& c : cases({3, 0, 2, 1})) expect_rounds_change_nothing(c, {0.01, 1.0}, false);
}

// Of one rank.
struct Around {
  WholeRank got;
  long steady_allocations = 0;
};

Around run_around(const WholeCase& c, Communicator& inner) {
  DeferredDevice device(7);
  DeferredCommunicator communicator(inner, device);
  Around out;
  out.got = run_rank(c, communicator, device, 5, [&](int step) {
    if (step == 3) out.steady_allocations = -device.counts.allocations;
    if (step == 4) out.steady_allocations += device.counts.allocations;
  });
  return out;
}

// Whose share of the router's and the gate's gradients a token is in, and which replica it goes to, may change with the
// rounds; and where a node or a rank adds up a token's rows first, with the replica their order.
void expect_rounds_change_nothing(const WholeCase& c) {
  SCOPED_TRACE(describe(c));
  const bool replicated = !c.shape.expert_owners.empty();
  std::mutex mutex;
  std::vector<std::vector<float>> whole_sum(8), cut_sum(8);
  run_inproc(c.layout.world, [&](Communicator& inner) {
    WholeCase bounded = c;
    bounded.options = {c.layout.sequence_parallel ? 80.0 : 40.0, 1};
    const Around whole = run_around(c, inner), cut = run_around(bounded, inner);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(whole.got.counters.overflow_rounds, 0);
    EXPECT_GE(cut.got.counters.overflow_rounds, 10) << describe(c);  // one a forward
    EXPECT_EQ(cut.steady_allocations, 0) << describe(c);
    if (!replicated || c.transport == "flat" || c.transport == "two_level") {
      EXPECT_EQ(cut.got.y, whole.got.y);
      EXPECT_EQ(cut.got.dx, whole.got.dx);
    } else {
      EXPECT_LT(relative_difference(decode(cut.got.y, DType::f32), decode(whole.got.y, DType::f32)), 1e-6);
      EXPECT_LT(relative_difference(decode(cut.got.dx, DType::f32), decode(whole.got.dx, DType::f32)), 1e-6);
    }
    for (std::size_t i = 0; i < 8; ++i) {
      const auto &w = whole.got.grads[i], &b = cut.got.grads[i];
      if (i == 0 || i == 7) {
        whole_sum[i].resize(w.size()), cut_sum[i].resize(w.size());
        for (std::size_t j = 0; j < w.size(); ++j) whole_sum[i][j] += w[j], cut_sum[i][j] += b[j];
      } else {
        EXPECT_LT(relative_difference(b, w), 2e-6) << "tensor " << i;
      }
    }
  });
  for (const std::size_t i : {0U, 7U}) EXPECT_LT(relative_difference(cut_sum[i], whole_sum[i]), 2e-6) << "tensor " << i;
}

// Shared experts of either kind, replicas whose gradients are summed, handles that keep their routing only, uneven
// tokens: under every transport and intake one of them after another. All tokens go to experts 0 to 2, of which place 0
// holds two or all.
TEST(Overflow, WhateverStandsAroundExperts_RoundsGiveTheSame) {
  using Keep = MoeLayer::Keep;
  const LayerShape plain = whole_shape(), residual = deepseek_v3(with_shared(plain, SharedGate::residual)),
                   added = with_shared(plain, SharedGate::none);
  struct Feature {
    LayerShape shape;
    bool replicated;
    Keep keep;
  };
  std::size_t run = 0;
  for (const Feature& f : {Feature{residual, false, Keep::routing},
                           {added, true, Keep::all},
                           {plain, true, Keep::routing},
                           {residual, false, Keep::all}})
    for (WholeCase c : under_each_transport(each_intake(f.shape, 4, 2))) {
      if (run++ % 5 != 0) continue;
      for (int e = 0; e < f.shape.experts && f.replicated; ++e)
        c.shape.expert_owners.push_back(e == 0  ? std::vector{1, 0}
                                        : e < 3 ? std::vector{0}
                                                : std::vector{e % c.layout.ep});
      c.keep = f.keep;
      c.first_experts = true;
      c.tokens = {40, 36, c.layout.sequence_parallel ? 20 : 0, 40};
      expect_rounds_change_nothing(c);
    }
}

TEST(Overflow, OptionsOutOfRange_AreRefused) {
  const Case c = cases({4}).front();
  run_inproc(c.layer.layout.world, [&](Communicator& inner) {
    DeferredDevice device(1);
    for (const LayerOptions& options : {LayerOptions{-1, 1}, LayerOptions{10, 0.5}, LayerOptions{10, NAN}})
      EXPECT_THROW(MoeLayer(c.schedule, c.layer.layout, c.layer.gpus_per_node, shape_of(c.layer), inner, device,
                            std::chrono::seconds(60), options),
                   InvalidInput);
  });
}

// Rounds would change which tokens are dropped, and what a loss is the mean of.
TEST(Overflow, CapacityFactorOrLosses_AreRefusedBeside) {
  const Case c = cases({4}).front();
  LayerShape drops = shape_of(c.layer), balances = drops;
  drops.capacity_factor = 1.25;
  balances.router.balance_loss = 0.01F;
  run_inproc(c.layer.layout.world, [&](Communicator& inner) {
    DeferredDevice device(1);
    for (const LayerShape& shape : {drops, balances})
      EXPECT_THROW(MoeLayer(c.schedule, c.layer.layout, c.layer.gpus_per_node, shape, inner, device,
                            std::chrono::seconds(60), LayerOptions{64, 1}),
                   InvalidInput);
  });
}

}  // namespace
}  // namespace topomoe::testing
