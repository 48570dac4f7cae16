// Scores, groups, bias, scale and losses of the router: every row against its definition in double.
#include "kernels/router.hpp"

#include <tuple>

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

struct Shape {
  std::int64_t rows, hidden;
  int experts, k;
};

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

struct Options {
  RouterOptions o;
  bool renormalize = true;
  Floats bias;  // empty: none
};

struct Row {
  Doubles score, scaled;  // by expert; scaled to sum 1
  double log_sum_exp = 0;
};

Row row_of(const double* logits, int experts, Scoring scoring) {
  Row r;
  double all = 0, sum = 0;
  for (int e = 0; e < experts; ++e) all += std::exp(logits[e]);
  for (int e = 0; e < experts; ++e)
    r.score.push_back(scoring == Scoring::sigmoid ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e]) / all);
  for (const double s : r.score) sum += s;
  for (const double s : r.score) r.scaled.push_back(s / sum);
  r.log_sum_exp = std::log(all);
  return r;
}

// Sorted by what they are worth, lower first among equals, and cut: never by k passes as the router does it.
template <class Worth>
Ints best(int n, int count, Worth worth) {
  Ints order(at(n));
  for (int i = 0; i < n; ++i) order[at(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return worth(a) > worth(b); });
  order.resize(at(count));
  return order;
}

Ints chosen(const Row& row, const Options& options, int k) {
  const RouterOptions& o = options.o;
  const int experts = static_cast<int>(row.score.size()), of_group = experts / o.groups;
  const auto biased = [&](int e) {
    return row.score[at(e)] + (options.bias.empty() ? 0.0 : static_cast<double>(options.bias[at(e)]));
  };
  const auto worth = [&](int group) {
    Doubles sorted;
    for (int e = group * of_group; e < (group + 1) * of_group; ++e) sorted.push_back(biased(e));
    std::sort(sorted.rbegin(), sorted.rend());
    return o.scoring == Scoring::sigmoid && of_group > 1 ? sorted[0] + sorted[1] : sorted[0];
  };
  const Ints groups = best(o.groups, o.topk_groups, worth);
  return best(experts, k, [&](int e) {
    const bool allowed = std::find(groups.begin(), groups.end(), e / of_group) != groups.end();
    return allowed ? biased(e) : -HUGE_VAL;
  });
}

class RouterWithOptions : public OnDevice {
 protected:
  struct Run {
    Shape s;
    Options options;
    Floats tokens, weight, logits, weights, sums;
    Ints ids;
    DType dtype;
  };
  Run run(const Shape& s, const Options& options, DType dtype = DType::f32, unsigned seed = 1) {
    Random random(seed);
    const Floats tokens = random.reals(s.rows * s.hidden, dtype);
    return run(s, options, tokens, random.reals(s.experts * s.hidden), dtype);
  }
  Run run(const Shape& s, const Options& options, const Floats& of_tokens, const Floats& of_weight,
          DType dtype = DType::f32) {
    Run r{s, options, of_tokens, of_weight, {}, {}, {}, {}, dtype};
    const Tensor in = tensor(r.tokens, dtype), gate = tensor(r.weight), logits = zeros(s.rows * s.experts),
                 weights = zeros(s.rows * s.k), sums = tensor(Floats(at(s.experts + 1), 7.0F)),
                 bias = tensor(options.bias);
    const IntTensor ids = ints(Ints(at(s.rows * s.k), -7));
    device_->router(Lane::compute, {.tokens = in.data(),
                                    .weight = gate.data(),
                                    .bias = options.bias.empty() ? nullptr : bias.floats(),
                                    .logits = logits.floats(),
                                    .ids = ids.data(),
                                    .weights = weights.floats(),
                                    .loss_sums = sums.floats(),
                                    .rows = s.rows,
                                    .hidden = s.hidden,
                                    .experts = s.experts,
                                    .k = s.k,
                                    .renormalize = options.renormalize,
                                    .options = options.o,
                                    .dtype = dtype});
    device_->synchronize(soon());
    r.logits = logits.read(), r.weights = weights.read(), r.ids = ids.read(), r.sums = sums.read();
    return r;
  }
  // Against the definition, from the logits that the device reports (so that no choice hangs on their last bit).
  static void expect_definition(const Run& r) {
    const Shape& s = r.s;
    Doubles sums(at(s.experts + 1));
    for (std::int64_t row = 0; row < s.rows; ++row) {
      const Doubles logits(r.logits.begin() + row * s.experts, r.logits.begin() + (row + 1) * s.experts);
      const Row expected = row_of(logits.data(), s.experts, r.options.o.scoring);
      const Ints ids = chosen(expected, r.options, s.k);
      double sum = 0;
      for (const int id : ids) sum += expected.score[at(id)];
      for (int slot = 0; slot < s.k; ++slot) {
        ASSERT_EQ(r.ids[at(row * s.k + slot)], ids[at(slot)]) << "row " << row << ", slot " << slot;
        const double weight = static_cast<double>(r.options.o.scale) * expected.score[at(ids[at(slot)])] /
                              (r.options.renormalize ? sum : 1.0);
        EXPECT_NEAR(static_cast<double>(r.weights[at(row * s.k + slot)]), weight, 1e-6 * weight);
      }
      for (int e = 0; e < s.experts; ++e) sums[at(e)] += expected.scaled[at(e)];
      sums.back() += expected.log_sum_exp * expected.log_sum_exp;
    }
    expect_near(r.sums, sums, 1e-5 * (1 + largest(sums)), "loss sums");
  }
};

RouterOptions deepseek_v3(int groups, int topk_groups) {
  return {.scoring = Scoring::sigmoid, .groups = groups, .topk_groups = topk_groups, .scale = 2.5F};
}

TEST_F(RouterWithOptions, ScoresGroupsBiasAndScale_MatchTheDefinition) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid})
      for (const auto& [shape, groups, topk_groups] : {std::tuple{Shape{40, 24, 16, 3}, 4, 2},
                                                       {{25, 8, 256, 8}, 8, 4},
                                                       {{9, 5, 12, 4}, 12, 5},
                                                       {{30, 4, 6, 2}, 1, 1},
                                                       {{0, 4, 6, 2}, 3, 2},
                                                       {{7, 6, 66, 5}, 33, 33}})
        for (const bool renormalize : {false, true})
          for (const bool biased : {false, true}) {
            Options options{{scoring, groups, topk_groups, 1.5F}, renormalize, {}};
            if (biased) options.bias = Random(3).reals(shape.experts);
            expect_definition(run(shape, options, dtype, static_cast<unsigned>(groups + shape.k)));
          }
}

// Scores .9 and .1 in one group are worth less under sigmoid than .6 and .6 in the other, more under softmax.
TEST_F(RouterWithOptions, GroupsWorth_IsTwoBestUnderSigmoidAndBestUnderSoftmax) {
  const auto logit = [](double s) { return static_cast<float>(std::log(s / (1 - s))); };
  const Floats weight{logit(.9), logit(.1), logit(.6), logit(.6)};
  for (const auto& [scoring, expected] : {std::pair{Scoring::sigmoid, 2}, {Scoring::softmax, 0}})
    EXPECT_EQ(run({1, 1, 4, 1}, {{.scoring = scoring, .groups = 2, .topk_groups = 1}, true, {}}, {1}, weight).ids,
              Ints{expected});
}

// All scores are sigmoid(0) = 1/2. The bias sends tokens to experts 2 and 3; their weights stay 1/2.
TEST_F(RouterWithOptions, Bias_EntersTheChoiceNotTheWeight) {
  const Run r = run({1, 1, 4, 2}, {{.scoring = Scoring::sigmoid}, false, {0, -9, 1, 1}}, {1}, Floats(4));
  EXPECT_EQ(r.ids, (Ints{2, 3}));
  EXPECT_EQ(r.weights, (Floats{0.5F, 0.5F}));
}

// Both sigmoids are 1: only their logits tell them apart. With a bias, of zeros even, scores decide: the lower of
// equals.
TEST_F(RouterWithOptions, SaturatedSigmoids_AreToldApartByLogitsWithoutBias) {
  for (const auto& [bias, expected] : {std::pair{Floats{}, 1}, {Floats{0, 0}, 0}}) {
    const Run r = run({1, 1, 2, 1}, {{.scoring = Scoring::sigmoid}, false, bias}, {1}, {100, 200});
    EXPECT_EQ(r.ids, Ints{expected});
    EXPECT_EQ(r.weights, Floats{1});
  }
}

// Scores of 1 and 2 are e^-200 / (1 + ...) = 0, but the bias wants them: as likely as each other, forward and backward.
TEST_F(RouterWithOptions, Renormalized_WhereScoresUnderflow_IsASoftmaxOfTheChosen) {
  const Run r = run({1, 1, 3, 2}, {{}, true, {-9, 1, 1}}, {1}, {200, 0, 0});
  EXPECT_EQ(r.ids, (Ints{1, 2}));
  EXPECT_EQ(r.weights, (Floats{0.5F, 0.5F}));
  const Tensor logits = tensor(r.logits), grads = tensor({1, 0}), logit_grads = zeros(3);
  const IntTensor ids = ints(r.ids);
  device_->router_backward(Lane::compute, {.logits = logits.floats(),
                                           .ids = ids.data(),
                                           .weight_grads = grads.floats(),
                                           .logit_grads = logit_grads.floats(),
                                           .rows = 1,
                                           .hidden = 1,
                                           .experts = 3,
                                           .k = 2,
                                           .renormalize = true});
  device_->synchronize(soon());
  EXPECT_EQ(logit_grads.read(), (Floats{0, 0.25F, -0.25F}));  // w (g - sum g w)
}

TEST_F(RouterWithOptions, NanLogit_IsChosenLast) {
  for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid}) {
    const Run two = run({1, 1, 3, 2}, {{.scoring = scoring}, true, {}}, {1}, {NAN, 1, 2});
    EXPECT_EQ(two.ids, (Ints{2, 1}));
    EXPECT_NEAR(two.weights[0] + two.weights[1], 1, 1e-6);
    const Run all = run({1, 1, 3, 3}, {{.scoring = scoring}, false, {}}, {1}, {NAN, 1, 2});
    EXPECT_EQ(all.ids, (Ints{2, 1, 0}));
    EXPECT_TRUE(std::isnan(all.weights[2]));
  }
}

TEST_F(RouterWithOptions, EqualGroups_GoToTheLower) {
  const Run r = run({3, 4, 8, 4}, {deepseek_v3(4, 2), true, {}}, Floats(12), Random(1).reals(32));  // all scores equal
  EXPECT_EQ(r.ids, (Ints{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}));
}

TEST_F(RouterWithOptions, GroupsThatDoNotFit_AreRefused) {
  for (const RouterOptions& o : {RouterOptions{.groups = 3},
                                 {.groups = 0},
                                 {.groups = 4, .topk_groups = 5},
                                 {.groups = 4, .topk_groups = 0},
                                 {.groups = 8, .topk_groups = 1},
                                 {.scale = NAN}})
    EXPECT_THROW(run({1, 4, 8, 2}, {o, true, {}}), InvalidInput);
}

// The loss whose gradient backward computes, with ids as the device chose them:
//   sum grads . weights + sum over rows of score_grads . scaled scores + z_grad / 2 sum (log sum exp)^2
TEST_F(RouterWithOptions, Backward_MatchesFiniteDifferences) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid})
      for (const bool renormalize : {false, true})
        for (const int losses : {0, 1, 2, 3}) {
          const Shape s{3, 6, 8, 3};
          const Run r = run(s, {{scoring, 4, 3, 1.75F}, renormalize, Random(2).reals(s.experts)}, dtype, 5);
          Random random(7);
          const Floats grads = random.reals(s.rows * s.k), score_grads = random.reals(s.experts),
                       tokens_before = random.reals(s.rows * s.hidden, dtype),
                       weight_before = random.reals(s.experts * s.hidden);
          const bool balances = (losses & 1) != 0;
          const float z_grad = (losses & 2) != 0 ? 0.25F : 0.0F;
          const Tensor in = tensor(r.tokens, dtype), gate = tensor(r.weight), logits = tensor(r.logits),
                       weight_grads = tensor(grads), of_scores = tensor(score_grads),
                       logit_grads = zeros(s.rows * s.experts), token_grads = tensor(tokens_before, dtype),
                       weight_grad = tensor(weight_before);
          const IntTensor ids = ints(r.ids);
          device_->router_backward(Lane::compute, {.tokens = in.data(),
                                                   .weight = gate.data(),
                                                   .logits = logits.floats(),
                                                   .ids = ids.data(),
                                                   .weight_grads = weight_grads.floats(),
                                                   .score_grads = balances ? of_scores.floats() : nullptr,
                                                   .z_grad = z_grad,
                                                   .logit_grads = logit_grads.floats(),
                                                   .token_grads = token_grads.data(),
                                                   .weight_grad = weight_grad.floats(),
                                                   .rows = s.rows,
                                                   .hidden = s.hidden,
                                                   .experts = s.experts,
                                                   .k = s.k,
                                                   .renormalize = renormalize,
                                                   .options = r.options.o,
                                                   .dtype = dtype});
          device_->synchronize(soon());
          Doubles tokens(r.tokens.begin(), r.tokens.end()), weight(r.weight.begin(), r.weight.end());
          const auto loss = [&] {
            double total = 0;
            for (std::int64_t row = 0; row < s.rows; ++row) {
              Doubles l(at(s.experts));
              for (std::int64_t e = 0; e < s.experts; ++e)
                for (std::int64_t i = 0; i < s.hidden; ++i)
                  l[at(e)] += tokens[at(row * s.hidden + i)] * weight[at(e * s.hidden + i)];
              const Row scores = row_of(l.data(), s.experts, scoring);
              double sum = 0, weighted = 0;
              for (std::int64_t slot = row * s.k; slot < (row + 1) * s.k; ++slot) {
                sum += scores.score[at(r.ids[at(slot)])];
                weighted += 1.75 * static_cast<double>(grads[at(slot)]) * scores.score[at(r.ids[at(slot)])];
              }
              total += renormalize ? weighted / sum : weighted;
              for (int e = 0; balances && e < s.experts; ++e)
                total += static_cast<double>(score_grads[at(e)]) * scores.scaled[at(e)];
              total += static_cast<double>(z_grad) / 2 * scores.log_sum_exp * scores.log_sum_exp;
            }
            return total;
          };
          Doubles expected_tokens = differences(tokens, loss), expected_weight = differences(weight, loss);
          for (std::size_t i = 0; i < tokens.size(); ++i) expected_tokens[i] += static_cast<double>(tokens_before[i]);
          for (std::size_t i = 0; i < weight.size(); ++i) expected_weight[i] += static_cast<double>(weight_before[i]);
          expect_near(token_grads.read(), expected_tokens, 1e-5 + unit_roundoff(dtype) * largest(expected_tokens),
                      "token gradient");
          expect_near(weight_grad.read(), expected_weight, 1e-5, "weight gradient");
        }
}

TEST_F(RouterWithOptions, Row_AloneOrAmongOthers_HasTheSameBits) {
  const Options options{deepseek_v3(8, 3), true, Random(5).reals(64)};
  const Run all = run({37, 16, 64, 6}, options);
  for (const std::int64_t row : {0, 17, 36}) {
    const Run alone = run({1, 16, 64, 6}, options,
                          Floats(all.tokens.begin() + row * 16, all.tokens.begin() + (row + 1) * 16), all.weight);
    EXPECT_EQ(alone.ids, Ints(all.ids.begin() + row * 6, all.ids.begin() + (row + 1) * 6));
    EXPECT_TRUE(same_bits(alone.weights.data(), &all.weights[at(row * 6)], 6));
  }
}

}  // namespace
}  // namespace topomoe::test
