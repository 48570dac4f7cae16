// Host kernels on each instruction set that this CPU has, on one thread and on several: the bits of the portable
// definitions, over random shapes and numbers that are none. (Against references in double: the files of each
// operation.)
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "kernels/cpu_context.hpp"
#include "kernels/exp.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/router.hpp"
#include "kernels/router_score.hpp"
#include "kernels/row_movers.hpp"
#include "kernels/sum_rows.hpp"
#include "tests/kernels/on_device.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::test {
namespace {

using kernels::Bf16;
using kernels::CpuContext;
using kernels::CpuIsa;
using Bytes = std::vector<std::byte>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// 64-byte aligned, so that results may be written past the caches.
struct Rows {
  Rows(Random& random, std::int64_t elements, DType type, bool specials = false)
      : dtype(type),
        count(at(elements)),
        memory(static_cast<std::byte*>(::operator new (bytes() + 64, std::align_val_t{64}))) {
    constexpr float kSpecial[] = {kNan, kInfinity, -kInfinity, 0.0F, -0.0F, 1e-40F, -1e-40F, 3e38F};
    auto state = static_cast<std::uint32_t>(random.whole(0, 1 << 30));
    kernels::with_element(dtype, [&]<class T>(T) {
      for (std::size_t i = 0; i < count; ++i) {
        state = state * 1664525U + 1013904223U;  // Numerical Recipes' generator: many cheap numbers
        const bool special = specials && (state >> 24) % 10 == 0;
        const float x = special ? kSpecial[(state >> 16) % 8] : std::ldexp(static_cast<float>(state >> 8), -23) - 1.0F;
        reinterpret_cast<T*>(memory.get())[i] = kernels::from_float<T>(x);
      }
    });
  }
  std::size_t bytes() const { return count * size_of(dtype); }
  void* data() const { return memory.get(); }
  // The same elements, whatever the sign and payload of NaNs: which of two an addition hands on is nobody's promise.
  bool operator==(const Rows& other) const {
    bool same = count == other.count;
    kernels::with_element(dtype, [&]<class T>(T) {
      for (std::size_t i = 0; same && i < count; ++i) {
        const T a = reinterpret_cast<const T*>(memory.get())[i], b = reinterpret_cast<const T*>(other.memory.get())[i];
        same = std::memcmp(&a, &b, sizeof a) == 0 ||
               (std::isnan(kernels::to_float(a)) && std::isnan(kernels::to_float(b)));
      }
    });
    return same;
  }
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  DType dtype;
  std::size_t count;
  std::unique_ptr<std::byte, Free> memory;
};

class CpuPaths : public ::testing::Test {
 protected:
  static constexpr unsigned kSeeds = 12;
  // Results of `run` on every other path are those of the portable one on one thread.
  template <class Run>
  void expect_portable_bits(Run run) {
    kernels::ThreadPool pool(3);
    for (unsigned seed = 1; seed <= kSeeds; ++seed) {
      const auto expected = run(CpuContext(CpuIsa::portable, nullptr), Random(seed));
      for (const CpuIsa isa : kernels::usable_isas())
        for (kernels::ThreadPool* const threads : {static_cast<kernels::ThreadPool*>(nullptr), &pool}) {
          const auto actual = run(CpuContext(isa, threads), Random(seed));
          ASSERT_TRUE(actual == expected) << name(isa) << (threads ? ", 3 threads" : "") << ", seed " << seed;
        }
    }
  }
};

std::int64_t some_columns(Random& random) {
  constexpr int kEdges[] = {1, 31, 32, 64, 127, 128, 256, 1024, 1030};
  return random.whole(0, 1) == 0 ? kEdges[random.whole(0, 8)] : random.whole(1, 700);
}
DType some_dtype(Random& random) { return random.whole(0, 1) == 0 ? DType::f32 : DType::bf16; }

TEST_F(CpuPaths, GatherRows) {
  expect_portable_bits([](const CpuContext& cpu, Random random) {
    const DType dtype = some_dtype(random);
    const std::int64_t rows = random.whole(0, 60), sources = random.whole(1, 40), columns = some_columns(random);
    const Rows in(random, sources * columns, dtype, true);
    Rows out(random, rows * columns, dtype);
    const Ints map = random.wholes(rows, -1, static_cast<int>(sources) - 1);
    const Floats scale = random.reals(rows);
    gather_rows_cpu({.out = out.data(),
                     .in = in.data(),
                     .source_row = map.data(),
                     .scale = random.whole(0, 1) == 0 ? nullptr : scale.data(),
                     .rows = rows,
                     .columns = columns,
                     .dtype = dtype},
                    cpu);
    return out;
  });
}

TEST_F(CpuPaths, SumRows) {
  expect_portable_bits([](const CpuContext& cpu, Random random) {
    const DType dtype = some_dtype(random);
    const std::int64_t rows = random.whole(0, 40), sources = random.whole(1, 40), columns = some_columns(random);
    const int k = random.whole(0, 16);
    const Rows in(random, sources * columns, dtype, true);
    Rows out(random, rows * columns, dtype, true);
    const Ints map = random.wholes(rows * k, -1, static_cast<int>(sources) - 1);
    const Floats weight = random.reals(rows * k);
    sum_rows_cpu({.out = out.data(),
                  .in = in.data(),
                  .position = map.data(),
                  .weight = random.whole(0, 1) == 0 ? nullptr : weight.data(),
                  .rows = rows,
                  .columns = columns,
                  .k = k,
                  .accumulate = random.whole(0, 1) == 0,
                  .dtype = dtype},
                 cpu);
    return out;
  });
}

TEST_F(CpuPaths, RowDots) {
  expect_portable_bits([](const CpuContext& cpu, Random random) {
    const DType dtype = some_dtype(random);
    const std::int64_t rows = random.whole(0, 40), sources = random.whole(1, 40), columns = some_columns(random);
    const int k = random.whole(0, 16);
    const Rows a(random, rows * columns, dtype), b(random, sources * columns, dtype);
    const Ints map = random.wholes(rows * k, -1, static_cast<int>(sources) - 1);
    Rows out(random, rows * k, DType::f32);
    row_dots_cpu({.out = static_cast<float*>(out.data()),
                  .a = a.data(),
                  .b = b.data(),
                  .position = map.data(),
                  .rows = rows,
                  .columns = columns,
                  .k = k,
                  .dtype = dtype},
                 cpu);
    return out;
  });
}

TEST_F(CpuPaths, OrderedSum) {
  expect_portable_bits([](const CpuContext& cpu, Random random) {
    const DType dtype = some_dtype(random);
    const std::int64_t rows = random.whole(0, 60), columns = some_columns(random);
    const int blocks = random.whole(0, 5);
    Rows in(random, blocks * rows * columns, dtype, true), out(random, rows * columns, dtype);
    const bool in_place = blocks > 0 && random.whole(0, 1) == 0;
    ordered_sum_cpu({.out = in_place ? in.data() : out.data(),
                     .in = in.data(),
                     .rows = rows,
                     .columns = columns,
                     .blocks = blocks,
                     .dtype = dtype},
                    cpu);
    return in_place ? std::move(in) : std::move(out);
  });
}

// More than what caches keep is written past them: 5 MiB, and rows that are not aligned, which are not.
TEST_F(CpuPaths, LargeResults_AreTheSame) {
  kernels::ThreadPool pool(2);
  for (const std::int64_t columns : {512, 500}) {
    Random random(3);
    const std::int64_t rows = 5300;
    const Rows in(random, rows * columns, DType::bf16);
    const Ints map = random.wholes(2 * rows, -1, static_cast<int>(rows) - 1);
    const Floats weight = random.reals(2 * rows);
    EXPECT_EQ(kernels::written_past_caches(in.data(), rows, 2 * columns), columns == 512);
    const auto run = [&](const CpuContext& cpu) {
      Random zeros(1);
      std::vector<Rows> out;
      for (int i = 0; i < 4; ++i) out.emplace_back(zeros, rows * columns, DType::bf16);
      kernels::GatherRows gather{.out = out[0].data(),
                                 .in = in.data(),
                                 .source_row = map.data(),
                                 .rows = rows,
                                 .columns = columns,
                                 .dtype = DType::bf16};
      gather_rows_cpu(gather, cpu);
      gather.out = out[1].data(), gather.scale = weight.data();
      gather_rows_cpu(gather, cpu);
      sum_rows_cpu({.out = out[2].data(),
                    .in = in.data(),
                    .position = map.data(),
                    .weight = weight.data(),
                    .rows = rows,
                    .columns = columns,
                    .k = 2,
                    .accumulate = true,
                    .dtype = DType::bf16},
                   cpu);
      ordered_sum_cpu(
          {.out = out[3].data(), .in = in.data(), .rows = rows, .columns = columns, .blocks = 1, .dtype = DType::bf16},
          cpu);
      return out;
    };
    const auto expected = run({CpuIsa::portable, nullptr});
    for (const CpuIsa isa : kernels::usable_isas())
      EXPECT_TRUE(run({isa, &pool}) == expected) << name(isa) << ", " << columns;
  }
}

struct Routed {
  Floats logits, weights, sums;
  Ints ids;
  bool operator==(const Routed& o) const {
    const auto same = [](const Floats& a, const Floats& b) {
      return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
        return std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(x) && std::isnan(y));
      });
    };
    return same(logits, o.logits) && same(weights, o.weights) && same(sums, o.sums) && ids == o.ids;
  }
};

// Logits, through a token of one element: weight[e] is expert e's logit for all rows that are 1; tokens vary it.
struct RouterCase {
  kernels::Router op;
  Floats weight, bias, f32;
  std::vector<Bf16> bf16;
};

RouterCase router_case(Random& random) {
  RouterCase c;
  const int of_group = random.whole(1, 40), groups = random.whole(0, 1) == 0 ? 1 : random.whole(1, 25);
  c.op.experts = of_group * groups;
  c.op.options.groups = groups, c.op.options.topk_groups = random.whole(1, groups);
  c.op.options.scoring = random.whole(0, 1) == 0 ? Scoring::sigmoid : Scoring::softmax;
  c.op.options.scale = 1.5F;
  c.op.k = random.whole(1, std::min(c.op.options.topk_groups * of_group, kernels::kMaxTopK));
  c.op.rows = random.whole(0, 80), c.op.hidden = random.whole(0, 1) == 0 ? 1 : random.whole(1, 600);
  c.op.renormalize = random.whole(0, 1) == 0;
  c.op.dtype = some_dtype(random);
  // Of few values, so that many scores are equal; sometimes far apart, so that e^x is 0 or sigmoids saturate.
  const float step = random.whole(0, 3) == 0 ? 60.0F : 0.5F;
  for (std::int64_t i = 0; i < c.op.experts * c.op.hidden; ++i)
    c.weight.push_back(c.op.hidden == 1 ? step * static_cast<float>(random.whole(-3, 3)) : random.real());
  if (random.whole(0, 2) == 0)  // some experts' logits are none, or tell zeros and denormals apart
    for (const float x : {kNan, kInfinity, -kInfinity, -0.0F, 1e-40F, -1e-40F})
      c.weight[at(random.whole(0, static_cast<int>(c.weight.size()) - 1))] = x;
  for (std::int64_t i = 0; i < c.op.rows * c.op.hidden; ++i) {
    float x = c.op.hidden == 1 ? static_cast<float>(random.whole(-1, 2)) : random.real();
    if (random.whole(0, 40 * static_cast<int>(c.op.hidden)) == 0) x = random.whole(0, 1) == 0 ? kNan : kInfinity;
    c.f32.push_back(x);
    c.bf16.push_back(kernels::to_bf16(x));
  }
  if (random.whole(0, 1) == 0)
    for (int e = 0; e < c.op.experts; ++e)
      c.bias.push_back(random.whole(0, 20) == 0 ? kNan : 0.25F * static_cast<float>(random.whole(-2, 2)));
  return c;
}

Routed routed(RouterCase& c, const CpuContext& cpu, bool with_sums = true) {
  Routed out{Floats(at(c.op.rows * c.op.experts)), Floats(at(c.op.rows * c.op.k)), Floats(at(c.op.experts) + 1),
             Ints(at(c.op.rows * c.op.k))};
  c.op.tokens = c.op.dtype == DType::f32 ? static_cast<const void*>(c.f32.data()) : c.bf16.data();
  c.op.weight = c.weight.data(), c.op.bias = c.bias.empty() ? nullptr : c.bias.data();
  c.op.logits = out.logits.data(), c.op.ids = out.ids.data(), c.op.weights = out.weights.data();
  c.op.loss_sums = with_sums ? out.sums.data() : nullptr;
  router_cpu(c.op, cpu);
  return out;
}

TEST_F(CpuPaths, Router) {
  for (unsigned repeat = 0; repeat < 4; ++repeat)
    expect_portable_bits([repeat](const CpuContext& cpu, Random random) {
      for (unsigned i = 0; i < repeat * 1000; ++i) (void)random.whole(0, 1);
      RouterCase c = router_case(random);
      return routed(c, cpu);
    });
}

// More experts than a row of lanes has bits for, and as many equal ones as there are.
TEST_F(CpuPaths, Router_ManyExpertsAllEqual_GoToTheLowest) {
  for (const CpuIsa isa : kernels::usable_isas())
    for (const int experts : {1, 16, 17, 33, 1024}) {
      RouterCase c;
      c.op.experts = experts, c.op.k = std::min(experts, kernels::kMaxTopK), c.op.rows = 3, c.op.hidden = 1;
      c.weight.assign(at(experts), 0.25F);
      c.f32 = {1.0F, 0.0F, kNan};
      const Routed r = routed(c, {isa, nullptr}, false);
      for (int row = 0; row < 3; ++row)
        for (int slot = 0; slot < c.op.k; ++slot)
          ASSERT_EQ(r.ids[at(row * c.op.k + slot)], slot) << name(isa) << experts;
    }
}

// Groups of sixteen's multiples and others, of one expert, more of them than a vector has lanes, and more than fit.
TEST_F(CpuPaths, Router_Groups) {
  for (const auto& [groups, of_group] :
       {std::pair{8, 32}, {8, 16}, {8, 20}, {4, 48}, {20, 1}, {64, 16}, {40, 25}, {2, 512}})
    for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid})
      expect_portable_bits([groups = groups, of_group = of_group, scoring](const CpuContext& cpu, Random random) {
        RouterCase c;
        c.op.experts = groups * of_group, c.op.rows = random.whole(1, 40), c.op.hidden = 1;
        c.op.options = {
            .scoring = scoring, .groups = groups, .topk_groups = random.whole(1, groups - 1), .scale = 2.5F};
        c.op.k = random.whole(1, std::min(c.op.options.topk_groups * of_group, kernels::kMaxTopK));
        c.op.renormalize = random.whole(0, 1) == 0;
        c.weight = random.reals(c.op.experts);
        for (float& x : c.weight) x *= 8.0F;
        c.f32 = random.reals(c.op.rows);
        if (random.whole(0, 2) != 0) c.bias = random.reals(c.op.experts);
        return routed(c, cpu);
      });
}

// The choice is that of a stable sort of the values of the contract, which are worked out here anew.
TEST_F(CpuPaths, Router_ChoiceIsAStableSortOfScores) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    Random random(seed);
    RouterCase c = router_case(random);
    c.op.options.groups = c.op.options.topk_groups = 1;
    const Routed r = routed(c, CpuContext{}, false);
    for (std::int64_t row = 0; row < c.op.rows; ++row) {
      const float* logits = &r.logits[at(row * c.op.experts)];
      Floats score(logits, logits + c.op.experts);
      if (c.bias.empty()) {
        // logits as they are
      } else if (c.op.options.scoring == Scoring::sigmoid) {
        for (float& x : score) x = kernels::sigmoid_score(x);
      } else {
        float largest = score[0], part[32] = {};
        for (const float x : score) largest = largest < x ? x : largest;
        for (std::size_t e = 0; e < score.size(); ++e)
          part[e % 32] += score[e] = kernels::exp_below(score[e] - largest);
        for (int half = 16; half > 0; half /= 2)
          for (int i = 0; i < half; ++i) part[i] += part[i + half];
        const float inverse = 1.0F / part[0];
        for (float& x : score) x *= inverse;
      }
      const auto worth = [&](int e) {
        const float x = c.bias.empty() ? score[at(e)] : score[at(e)] + c.bias[at(e)];
        return std::isnan(x) ? -kInfinity : x;
      };
      Ints order(at(c.op.experts));
      for (int e = 0; e < c.op.experts; ++e) order[at(e)] = e;
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return worth(a) > worth(b); });
      for (int slot = 0; slot < c.op.k; ++slot)
        ASSERT_EQ(r.ids[at(row * c.op.k + slot)], order[at(slot)]) << "seed " << seed;
    }
  }
}

TEST(Exp, StaysWithinTwoUnitsInTheLastPlace) {
  for (int i = -8700; i <= 8700; ++i) {
    const float x = 0.00999F * static_cast<float>(i) + 1e-4F * static_cast<float>(i % 7);
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_LE(std::abs(kernels::exp_of(x) - exact), exact * std::ldexp(2.0, -23)) << x;
  }
  EXPECT_EQ(kernels::exp_of(0.0F), 1.0F);
  EXPECT_TRUE(std::isnan(kernels::exp_of(kNan)));
}

TEST(RouterScores, StayNearThoseOfDouble) {
  const double unit = std::ldexp(1.0, -23);
  for (int i = -87000; i <= 87000; ++i) {
    const float x = 0.000999F * static_cast<float>(i) + 1e-5F * static_cast<float>(i % 7);
    const double exact = 1 / (1 + std::exp(-static_cast<double>(x)));
    const double units = std::abs(x) < 20 ? 2.5 : 4;
    ASSERT_LE(std::abs(kernels::sigmoid_score(x) - exact), exact * units * unit) << x;
    if (x > 0) continue;
    const double power = std::exp(static_cast<double>(x));
    ASSERT_LE(std::abs(kernels::exp_below(x) - power), power * units * unit) << x;
  }
  EXPECT_EQ(kernels::exp_below(0.0F), 1.0F);
  EXPECT_EQ(kernels::exp_below(-87.9F), 0.0F);
  EXPECT_EQ(kernels::exp_below(-kInfinity), 0.0F);
  EXPECT_TRUE(std::isnan(kernels::exp_below(kNan)));
  EXPECT_EQ(kernels::sigmoid_score(0.0F), 0.5F);
  EXPECT_GT(kernels::sigmoid_score(-kInfinity), std::numeric_limits<float>::min());
  EXPECT_EQ(kernels::sigmoid_score(kInfinity), 1.0F);
  EXPECT_TRUE(std::isnan(kernels::sigmoid_score(kNan)));
}

TEST(CpuDevice, Options_ChangeNoBits) {
  Random random(1);
  const Floats values = random.reals(200 * 96, DType::bf16);
  const Ints map = random.wholes(200, -1, 199);
  const auto gathered = [&](Device& device) {
    const Tensor in(device, values, DType::bf16), out(device, Floats(values.size()), DType::bf16);
    const IntTensor rows(device, map);
    device.gather_rows(Lane::compute, {.out = out.data(),
                                       .in = in.data(),
                                       .source_row = rows.data(),
                                       .rows = 200,
                                       .columns = 96,
                                       .dtype = DType::bf16});
    return out.read();
  };
  const Floats expected = gathered(*make_cpu_device());
  for (const CpuIsa isa : kernels::usable_isas())
    for (const int threads : {0, 1, 3})
      EXPECT_TRUE(
          same_bits(gathered(*make_cpu_device({}, {.threads = threads, .isa = std::string(name(isa))})), expected));
  EXPECT_THROW(make_cpu_device({}, {.isa = "sse9"}), InvalidInput);
}

}  // namespace
}  // namespace topomoe::test
