// What a layer has around its routed experts: router options and losses, shared and residual experts, recomputation.
// Every output and gradient against the definition in double (tests/support/reference_router.hpp).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>

#include "kernels/bf16.hpp"
#include "planner/plan/schedule_part.hpp"
#include "planner/schedules/build.hpp"
#include "tests/support/reference_layer.hpp"
#include "tests/support/reference_router.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/dispatch.hpp"
#include "topomoe/error.hpp"
#include "topomoe/moe_layer.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;
using Doubles = std::vector<double>;
using Bytes = std::vector<std::byte>;

Index ix(std::int64_t i) { return static_cast<Index>(i); }

struct Case {
  Layout layout;
  int gpus_per_node = 2;
  std::vector<int> tokens;  // by TP group, or by rank under sequence parallelism; reused cyclically
  LayerShape shape;
  bool biased = false;
  ScheduleRequest request;
  std::string transport = "flat";
};

LayerShape shape_of(DType dtype = DType::f32) { return {12, 8, 8, 3, true, dtype}; }

Layout layout_of(int world, int tp, int etp, int ep, bool sp) {
  Layout l;
  l.world = world, l.tp = tp, l.etp = etp, l.ep = ep, l.sequence_parallel = sp;
  l.dp = world / tp, l.edp = world / (etp * ep);
  return l;
}

SharedPart part_of(const LayerShape& s) {
  return s.shared_ffn == 0                   ? SharedPart::none
         : s.shared_gate == SharedGate::none ? SharedPart::added
                                             : SharedPart::mixed;
}

Case make_case(const Layout& l, const LayerShape& shape, TokenSplit split, int chunks, int back = 0) {
  Case c{l, 2, {}, shape, false, {}, "flat"};
  c.tokens = l.sequence_parallel ? std::vector{4, 3, 0, 5} : std::vector{7, 4, 5};
  c.request = {split, l.tp, l.etp, l.ep, l.sequence_parallel, chunks, chunks, back, back, part_of(shape)};
  return c;
}

int held_by(const Case& c, int rank) {
  return c.tokens[ix(c.layout.sequence_parallel ? rank : rank / c.layout.tp) % c.tokens.size()];
}
// Tokens of a TP group that each of its ranks routes.
std::vector<int> parts_of(const Case& c, int group) {
  const int t = c.layout.tp, whole = held_by(c, group * t);
  std::vector<int> parts;
  for (int i = 0; i < t; ++i)
    parts.push_back(c.layout.sequence_parallel ? held_by(c, group * t + i) : whole * (i + 1) / t - whole * i / t);
  if (t > 1 && c.request.split == TokenSplit::replicated)
    return {c.layout.sequence_parallel ? std::accumulate(parts.begin(), parts.end(), 0) : whole};
  return t == 1 ? std::vector{whole} : parts;
}

Doubles rounded(Doubles v, DType t) {
  if (t == DType::bf16)
    for (double& x : v) x = static_cast<double>(kernels::to_float(kernels::to_bf16(static_cast<float>(x))));
  return v;
}
WholeWeights weights_of(const Case& c) {
  WholeWeights w = draw_weights(c.shape, c.biased, 3);
  for (auto* v : {&w.gate, &w.up, &w.down, &w.shared_gate, &w.shared_up, &w.shared_down})
    *v = rounded(*v, c.shape.dtype);
  return w;
}
Doubles drawn(const Case& c, int group, std::uint64_t salt) {
  int tokens = 0;
  for (const int part : parts_of(c, group)) tokens += part;
  return rounded(random_values(ix(tokens * c.shape.hidden), salt + static_cast<std::uint64_t>(group)), c.shape.dtype);
}

Bytes encode(const Doubles& v, DType t) {
  Bytes out(v.size() * size_of(t));
  for (Index i = 0; i < v.size(); ++i) {
    const auto f = static_cast<float>(v[i]);
    const std::uint16_t h = kernels::to_bf16(f).bits;
    std::memcpy(&out[i * size_of(t)], t == DType::f32 ? static_cast<const void*>(&f) : &h, size_of(t));
  }
  return out;
}
Doubles decode(const Bytes& in, DType t) {
  Doubles out;
  for (Index i = 0; i < in.size(); i += size_of(t)) {
    float f = 0;
    std::uint16_t h = 0;
    if (t == DType::f32)
      std::memcpy(&f, &in[i], 4);
    else
      std::memcpy(&h, &in[i], 2), f = kernels::to_float(kernels::Bf16{h});
    out.push_back(static_cast<double>(f));
  }
  return out;
}

// Of a tensor [outer, rows, columns] what lies in rows [r0, r1) and columns [c0, c1) of outer [o0, o1): visit(index).
struct Block {
  Index rows, columns, o0, o1, r0, r1, c0, c1;
  template <class Visit>
  void each(Visit visit) const {
    for (Index o = o0; o < o1; ++o)
      for (Index r = r0; r < r1; ++r)
        for (Index c = c0; c < c1; ++c) visit((o * rows + r) * columns + c);
  }
};

// What a rank holds of each tensor of WholeWeights::all(), in that order.
std::vector<Block> blocks_of(const Case& c, int rank) {
  const Layout& l = c.layout;
  const auto cut = [](std::int64_t n, int parts, int i) { return ix(n * i / parts); };
  const int ep = index_in(l, Role::ep, rank, c.gpus_per_node), etp = index_in(l, Role::etp, rank, c.gpus_per_node),
            tp = index_in(l, Role::tp, rank, c.gpus_per_node);
  const Index M = ix(c.shape.hidden), F = ix(c.shape.ffn), S = ix(c.shape.shared_ffn), E = ix(c.shape.experts);
  const Index e0 = cut(c.shape.experts, l.ep, ep), e1 = cut(c.shape.experts, l.ep, ep + 1);
  const Index f0 = cut(c.shape.ffn, l.etp, etp), f1 = cut(c.shape.ffn, l.etp, etp + 1);
  const Index s0 = cut(c.shape.shared_ffn, l.tp, tp), s1 = cut(c.shape.shared_ffn, l.tp, tp + 1);
  const Index gates = static_cast<Index>(c.shape.shared_gate);
  return {{E, M, 0, 1, 0, E, 0, M},     {F, M, e0, e1, f0, f1, 0, M},    {F, M, e0, e1, f0, f1, 0, M},
          {M, F, e0, e1, 0, M, f0, f1}, {S, M, 0, 1, s0, s1, 0, M},      {S, M, 0, 1, s0, s1, 0, M},
          {M, S, 0, 1, 0, M, s0, s1},   {gates, M, 0, 1, 0, gates, 0, M}};
}
constexpr Index kTensors = 8;
bool is_fp32(Index tensor) { return tensor == 0 || tensor == 7; }

struct Result {
  std::vector<Bytes> y, dx;  // by rank
  WholeWeights grads;        // summed over ranks
  std::vector<std::vector<float>> raw_grads;
  std::vector<RouterReport> reports;
  std::vector<std::size_t> saved_bytes;
};

Result run(const Case& c, MoeLayer::Keep keep, int backwards = 1) {
  const Schedule schedule = build_schedule(c.transport, c.request);
  for (const std::string& line : check(schedule)) ADD_FAILURE() << schedule.name << ": " << line;
  WholeWeights all = weights_of(c);
  const auto world = ix(c.layout.world);
  Result result{std::vector<Bytes>(world), std::vector<Bytes>(world), zero_weights_like(all), {}, {}, {}};
  result.raw_grads.resize(world), result.reports.resize(world), result.saved_bytes.resize(world);
  std::mutex mutex;
  run_inproc(c.layout.world, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    const int rank = communicator.rank(), group = rank / c.layout.tp;
    const auto r = ix(rank);
    const auto M = c.shape.hidden;
    std::int64_t first = 0;
    if (c.layout.sequence_parallel)
      for (int before = group * c.layout.tp; before < rank; ++before) first += held_by(c, before);
    const auto mine = [&](const Doubles& v) {
      return encode({v.begin() + first * M, v.begin() + (first + held_by(c, rank)) * M}, c.shape.dtype);
    };
    const Bytes x = mine(drawn(c, group, 1000)), dy = mine(drawn(c, group, 2000));
    Bytes y(x.size()), dx(x.size());
    const auto blocks = blocks_of(c, rank);
    std::vector<Bytes> weights;
    std::vector<std::vector<float>> grads;
    for (Index i = 0; i < kTensors; ++i) {
      Doubles held;
      blocks[i].each([&](Index at) { held.push_back((*all.all()[i])[at]); });
      grads.emplace_back(held.size(), 0.0F);
      weights.push_back(encode(held, is_fp32(i) ? DType::f32 : c.shape.dtype));
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
    const LayerGradients g{grads[0].data(), grads[1].data(), grads[2].data(), grads[3].data(),
                           grads[4].data(), grads[5].data(), grads[6].data(), grads[7].data()};
    MoeLayer layer(schedule, c.layout, c.gpus_per_node, c.shape, communicator, *device);
    for (int i = 0; i < backwards; ++i) {
      auto handle = layer.forward(x.data(), held_by(c, rank), y.data(), w, nullptr, keep);
      // A second forward in between, of which nothing may leak into the first one's backward.
      Bytes other_y(y.size());
      auto other = layer.forward(dy.data(), held_by(c, rank), other_y.data(), w, nullptr, keep);
      result.reports[r] = handle.router(), result.saved_bytes[r] = handle.saved_bytes();
      layer.backward(handle, dy.data(), dx.data(), w, g);
    }
    result.y[r] = y, result.dx[r] = dx;
    for (const auto& v : grads) result.raw_grads[r].insert(result.raw_grads[r].end(), v.begin(), v.end());
    const std::lock_guard lock(mutex);
    for (Index i = 0; i < kTensors; ++i) {
      Index at = 0;
      blocks[i].each([&](Index to) { (*result.grads.all()[i])[to] += static_cast<double>(grads[i][at++]); });
    }
  });
  return result;
}

// Largest difference over the largest value. Assumed for tests of this size, as the rehearsal's bounds are: fp32 adds
// tens of terms in another order, bf16 rounds to 8 bits on the way.
void expect_close(const Doubles& got, const Doubles& want, DType dtype, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double difference = 0, largest = 0;
  for (Index i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(std::isfinite(got[i])) << what;
    difference = std::max(difference, std::abs(got[i] - want[i])), largest = std::max(largest, std::abs(want[i]));
  }
  EXPECT_LE(difference, (dtype == DType::f32 ? 1e-5 : 4e-2) * largest) << what << ", largest " << largest;
}

std::string text_of(const Case& c) {
  return c.transport + " " + std::string(name(c.request.split)) + " " + name(c.layout) +
         " n=" + std::to_string(c.request.chunks) + " gate " + std::to_string(static_cast<int>(c.shape.shared_gate)) +
         " shared " + std::to_string(c.shape.shared_ffn) + (c.layout.sequence_parallel ? " sp" : "") +
         (c.shape.dtype == DType::bf16 ? " bf16" : "");
}

void expect_definition(const Case& c) {
  SCOPED_TRACE(text_of(c));
  const Result got = run(c, MoeLayer::Keep::all);
  const WholeWeights weights = weights_of(c);
  WholeWeights grads = zero_weights_like(weights);
  const auto M = c.shape.hidden;
  for (int group = 0; group < c.layout.world / c.layout.tp; ++group) {
    const auto parts = parts_of(c, group);
    const WholeResult want = run_whole(c.shape, weights, drawn(c, group, 1000), drawn(c, group, 2000), parts, grads);
    std::int64_t first = 0;
    for (int i = 0; i < c.layout.tp; ++i) {
      const int rank = group * c.layout.tp + i;
      const auto mine = [&](const Doubles& v) {
        return Doubles(v.begin() + first * M, v.begin() + (first + held_by(c, rank)) * M);
      };
      expect_close(decode(got.y[ix(rank)], c.shape.dtype), mine(want.y), c.shape.dtype, "output");
      expect_close(decode(got.dx[ix(rank)], c.shape.dtype), mine(want.dx), c.shape.dtype, "token gradients");
      if (c.layout.sequence_parallel) first += held_by(c, rank);
      const Index part = parts.size() == 1 ? 0 : ix(i);
      const RouterReport& report = got.reports[ix(rank)];
      EXPECT_NEAR(report.balance_loss, want.balance[part], 1e-5 * (1e-3 + want.balance[part]));
      EXPECT_NEAR(report.z_loss, want.z[part], 1e-5 * (1e-3 + want.z[part]));
      EXPECT_EQ(std::accumulate(report.chosen.begin(), report.chosen.end(), std::int64_t{0}),
                parts[part] * c.shape.top_k);
    }
  }
  WholeWeights actual = got.grads;
  const char* const names[] = {"router", "gate", "up", "down", "shared gate", "shared up", "shared down", "mix"};
  for (Index i = 0; i < kTensors; ++i) expect_close(*actual.all()[i], *grads.all()[i], c.shape.dtype, names[i]);
}

LayerShape with_shared(LayerShape s, SharedGate gate) {
  s.shared_ffn = 10, s.shared_gate = gate;
  return s;
}
LayerShape deepseek_v3(LayerShape s) {
  s.router = {.scoring = Scoring::sigmoid, .groups = 4, .topk_groups = 2, .scale = 2.5F};
  return s;
}

// Every way in which ranks of a TP group may hold and inject tokens.
std::vector<Case> each_intake(const LayerShape& shape, int chunks = 2, int back = 0) {
  std::vector<Case> out{make_case(layout_of(4, 1, 1, 4, false), shape, TokenSplit::sliced, chunks, back)};
  for (const int etp : {1, 2})
    for (const bool sp : {false, true})
      for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated})
        out.push_back(make_case(layout_of(4, 2, etp, etp == 1 ? 4 : 2, sp), shape, split, chunks, back));
  return out;
}

TEST(WholeReference, Gradients_AreItsOwnDifferences) {
  for (const SharedGate gate : {SharedGate::none, SharedGate::sigmoid, SharedGate::residual})
    for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid}) {
      LayerShape s{3, 2, 4, 2, true};
      s.shared_ffn = 2, s.shared_gate = gate;
      s.router = {scoring, 2, 2, 1.5F, 0.7F, 0.3F};
      WholeWeights w = draw_weights(s, true, 5), grads = zero_weights_like(w), unused = grads;
      Doubles x = random_values(15, 1);
      const Doubles dy = random_values(15, 2);
      const WholeResult r = run_whole(s, w, x, dy, {2, 3}, grads);
      const auto difference = [&](double& v) {
        constexpr double h = 1e-6;
        const double at = v;
        v = at + h;
        const double above = run_whole(s, w, x, dy, {2, 3}, unused, &r.ids).objective;
        v = at - h;
        const double below = run_whole(s, w, x, dy, {2, 3}, unused, &r.ids).objective;
        v = at;
        return (above - below) / (2 * h);
      };
      for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(r.dx[i], difference(x[i]), 1e-7);
      for (Index t = 0; t < kTensors; ++t)
        for (Index i = 0; i < w.all()[t]->size(); ++i)
          EXPECT_NEAR((*grads.all()[t])[i], difference((*w.all()[t])[i]), 1e-7);
    }
}

TEST(LayerRouter, SigmoidGroupsBiasAndScale_MatchTheDefinition) {
  for (Case c : each_intake(deepseek_v3(shape_of()))) {
    c.biased = true;
    expect_definition(c);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(LayerRouter, BalanceAndZLoss_AddTheirGradients) {
  for (const bool sigmoid : {false, true}) {
    LayerShape s = sigmoid ? deepseek_v3(shape_of()) : shape_of();
    s.router.balance_loss = 2, s.router.z_loss = 0.5;  // far larger than anyone's, to be seen
    for (const Case& c : each_intake(s)) {
      expect_definition(c);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

// All tokens alike, so that top_k experts get all of them: each f_e is 1/k, and P_e the scores. With equal logits
// every P_e is 1/E: E sum f_e P_e = E k (1/k) / E = 1; log sum exp of zeros is log E.
TEST(LayerRouter, EqualLogits_LossesByHand) {
  LayerShape s = shape_of();
  s.router.balance_loss = 0.25, s.router.z_loss = 2;
  run_inproc(1, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    const std::vector<float> zeros(ix(s.experts * s.hidden * s.ffn), 0.0F), x(ix(3 * s.hidden), 1.0F);
    std::vector<float> y(x.size());
    MoeLayer layer(build_schedule("flat", {}), layout_of(1, 1, 1, 1, false), 1, s, communicator, *device);
    const LayerWeights w{zeros.data(), zeros.data(), zeros.data(), zeros.data()};
    const auto handle = layer.forward(x.data(), 3, y.data(), w);
    EXPECT_NEAR(handle.router().balance_loss, 0.25, 1e-7);
    EXPECT_NEAR(handle.router().z_loss, 2 * std::log(8) * std::log(8), 1e-5);
    EXPECT_EQ(handle.router().chosen, (std::vector<std::int64_t>{3, 3, 3, 0, 0, 0, 0, 0}));
    const auto none = layer.forward(x.data(), 0, y.data(), w);
    EXPECT_EQ(none.router().balance_loss, 0);
    EXPECT_EQ(none.router().z_loss, 0);
  });
}

TEST(LayerShared, EachGateAndIntake_MatchesTheDefinition) {
  for (const SharedGate gate : {SharedGate::none, SharedGate::sigmoid, SharedGate::residual})
    for (const Case& c : each_intake(with_shared(shape_of(), gate), 2, 3)) {
      expect_definition(c);
      if (::testing::Test::HasFailure()) return;
    }
}

TEST(LayerShared, EachTransport_MatchesTheDefinition) {
  LayerShape s = deepseek_v3(with_shared(shape_of(), SharedGate::residual));
  s.router.balance_loss = 0.5, s.router.z_loss = 0.1F;
  for (const Transport& t : transports())
    for (Case c : each_intake(s, 3)) {
      c.transport = t.name;
      if (!t.refuses(c.request).empty()) continue;
      expect_definition(c);
      if (::testing::Test::HasFailure()) return;
    }
}

TEST(LayerShared, Bf16_MatchesTheDefinition) {
  for (const SharedGate gate : {SharedGate::none, SharedGate::sigmoid, SharedGate::residual}) {
    LayerShape s = with_shared(shape_of(DType::bf16), gate);
    s.router.balance_loss = 0.5, s.router.z_loss = 0.1F;
    for (const Case& c : each_intake(s)) expect_definition(c);
  }
}

TEST(LayerShared, Steps_FillTheComputeLaneBetweenFirstDispatchAndExperts) {
  for (const Transport& t : transports()) {
    const ScheduleRequest r{.tp = 2, .ep = 4, .chunks = 4, .pieces = 2, .shared = SharedPart::added};
    const Schedule s = build_schedule(t.name, r);
    for (const auto* steps : {&s.forward, &s.backward}) {
      const auto first = [&](auto is) { return std::find_if(steps->begin(), steps->end(), is) - steps->begin(); };
      const auto sent = first([](const Step& step) {
        return (step.kind == StepKind::exchange || step.kind == StepKind::all_gather) && step.chunk == 0 &&
               !step.beside;
      });
      const auto shared = first([](const Step& step) {
        return step.kind == StepKind::shared_forward || step.kind == StepKind::shared_dgrad;
      });
      const auto experts = first([](const Step& step) {
        return step.kind == StepKind::expert_forward || step.kind == StepKind::expert_dgrad;
      });
      EXPECT_LT(sent, shared) << t.name;
      EXPECT_LT(shared, experts) << t.name;
      EXPECT_EQ((*steps)[ix(shared)].lane, Lane::compute);
    }
  }
}

// The parts that dispatch() and combine() run are those of the same schedule without a shared expert.
TEST(LayerShared, PartsOfASchedule_LeaveItOut) {
  for (const Transport& t : transports())
    for (const bool sp : {false, true}) {
      ScheduleRequest r{.tp = 2, .ep = 4, .sequence_parallel = sp, .chunks = 2, .pieces = 2};
      const Schedule plain = build_schedule(t.name, r);
      r.shared = SharedPart::added;
      const Schedule with = build_schedule(t.name, r);
      for (const Part part : {Part::dispatch, Part::combine, Part::exchange}) {
        const auto names = [&](const Schedule& s) {
          std::vector<std::string> out;
          const auto chosen = steps_of(s, part);
          for (Index i = 0; i < chosen.size(); ++i)
            if (chosen[i] != 0) out.push_back(s.forward[i].name);
          return out;
        };
        EXPECT_EQ(names(with), names(plain)) << t.name;
      }
    }
}

// Taking the shared expert out of a schedule gives the schedule that is built without one.
TEST(LayerShared, WithoutIt_ASchedulesStepsAreThoseOfOneBuiltWithoutIt) {
  for (const Transport& t : transports())
    for (const SharedPart shared : {SharedPart::added, SharedPart::mixed})
      for (const int tp : {1, 2})
        for (const bool sp : {false, true})
          for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
            ScheduleRequest r{split, tp, 1, 4, sp && tp > 1, 2, 1, 3, 3};
            const Schedule plain = build_schedule(t.name, r);
            r.shared = shared;
            const Schedule stripped = without_shared(build_schedule(t.name, r));
            EXPECT_EQ(check(stripped), std::vector<std::string>());
            for (const auto& [a, b] :
                 {std::pair{&stripped.forward, &plain.forward}, {&stripped.backward, &plain.backward}}) {
              ASSERT_EQ(a->size(), b->size());
              for (Index i = 0; i < a->size(); ++i) {
                EXPECT_EQ((*a)[i].name, (*b)[i].name);
                // What a lost step waited for may be waited for once more.
                EXPECT_TRUE(std::includes((*a)[i].after.begin(), (*a)[i].after.end(), (*b)[i].after.begin(),
                                          (*b)[i].after.end()))
                    << (*a)[i].name;
              }
            }
          }
}

TEST(LayerShared, ShapeAndScheduleThatDisagree_AreRefused) {
  const auto refusal = [](const LayerShape& shape, SharedPart part) -> std::string {
    std::string why;
    run_inproc(1, [&](Communicator& communicator) {
      const auto device = make_cpu_device();
      try {
        MoeLayer layer(build_schedule("flat", {.shared = part}), layout_of(1, 1, 1, 1, false), 1, shape, communicator,
                       *device);
        layer.forward(nullptr, 0, nullptr, {});
      } catch (const InvalidInput& e) {
        why = e.what();
      }
    });
    return why;
  };
  const LayerShape plain = shape_of(), added = with_shared(plain, SharedGate::none),
                   mixed = with_shared(plain, SharedGate::sigmoid);
  EXPECT_NE(refusal(added, SharedPart::none).find("without a shared expert"), std::string::npos);
  EXPECT_NE(refusal(plain, SharedPart::added).find("for a shared expert that is added"), std::string::npos);
  EXPECT_NE(refusal(added, SharedPart::mixed).find("with a gate"), std::string::npos);
  EXPECT_NE(refusal(added, SharedPart::added).find("weights.shared_gate"), std::string::npos);
  EXPECT_NE(refusal(mixed, SharedPart::added).find("that is added"), std::string::npos);
  LayerShape bad = plain;
  bad.router.groups = 3;
  EXPECT_NE(refusal(bad, SharedPart::none).find("shape.router: groups"), std::string::npos);
}

// Gradients are added to: two passes make twice those of one, exactly (doubling rounds nothing).
TEST(LayerGradients, OfAllWeights_AreAddedTo) {
  LayerShape s = with_shared(deepseek_v3(shape_of()), SharedGate::residual);
  s.router.balance_loss = 1;
  const Case c = make_case(layout_of(4, 2, 1, 4, false), s, TokenSplit::sliced, 1);
  const Result once = run(c, MoeLayer::Keep::all), twice = run(c, MoeLayer::Keep::all, 2);
  for (Index rank = 0; rank < once.raw_grads.size(); ++rank)
    for (Index i = 0; i < once.raw_grads[rank].size(); ++i)
      ASSERT_NEAR(twice.raw_grads[rank][i], 2 * once.raw_grads[rank][i],
                  1e-5F * (1 + std::abs(once.raw_grads[rank][i])));
}

TEST(LayerRecompute, KeptRouting_GivesTheSameBitsFromFewerBytes) {
  for (const auto& [dtype, gate] : {std::pair{DType::f32, SharedGate::residual}, {DType::bf16, SharedGate::none}}) {
    LayerShape s = with_shared(deepseek_v3(shape_of(dtype)), gate);
    s.router.balance_loss = 0.5, s.router.z_loss = 0.1F;
    for (const Transport& t : transports())
      for (Case c : each_intake(s, 2, 3)) {
        c.transport = t.name;
        if (!t.refuses(c.request).empty()) continue;
        SCOPED_TRACE(text_of(c));
        const Result all = run(c, MoeLayer::Keep::all, 2), routing = run(c, MoeLayer::Keep::routing, 2);
        EXPECT_EQ(all.y, routing.y);
        EXPECT_EQ(all.dx, routing.dx);
        EXPECT_EQ(all.raw_grads, routing.raw_grads);
        for (Index r = 0; r < all.saved_bytes.size(); ++r) {
          const auto parts = parts_of(c, static_cast<int>(r) / c.layout.tp);
          const int routed = parts.size() == 1 ? parts[0] : parts[r % parts.size()];
          // ids, weights and logits: 4 bytes each.
          EXPECT_EQ(routing.saved_bytes[r], ix(routed * (2 * s.top_k + s.experts) * 4));
          EXPECT_LE(2 * routing.saved_bytes[r], all.saved_bytes[r]);
        }
        if (::testing::Test::HasFailure()) return;
      }
  }
}

}  // namespace
}  // namespace topomoe::testing
