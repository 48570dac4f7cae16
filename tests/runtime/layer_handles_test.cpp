// Several forwards outstanding at once (1F1B), gradients that are added up or not asked for, and the
// layer's edges: no tokens, wrong shapes.

#include <gtest/gtest.h>

#include <functional>

#include "tests/support/layer_cases.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

// One layer, and two micro-batches of different sizes that share its weights.
struct TwoBatches {
  LayerCase a, b;
  Schedule schedule;
};

TwoBatches two_batches(std::string_view transport, TokenSplit split, int etp) {
  LayerCase a{.layout = layout(4, 2, etp, etp == 1 ? 4 : 2),
              .gpus_per_node = 2,
              .shape = {12, 8, 8, 2, true},
              .tokens = {11, 4}};
  LayerCase b = a;
  b.tokens = {3, 17};
  return {a, b, build_schedule(transport, request(a.layout, split, 2))};
}

struct RankResult {
  RankTensors a, b;  // gradients of weights in a's only
};

using Script = std::function<void(MoeLayer&, RankResult&)>;

std::vector<RankResult> run(const TwoBatches& t, const Script& script) {
  const ReferenceWeights weights = make_weights(t.a);
  std::vector<RankResult> results;
  for (int rank = 0; rank < t.a.layout.world; ++rank)
    results.push_back({RankTensors(t.a, weights, rank), RankTensors(t.b, weights, rank)});
  run_inproc(t.a.layout.world, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    MoeLayer layer = make_layer(t.a, t.schedule, communicator, *device);
    script(layer, results[static_cast<std::size_t>(communicator.rank())]);
  });
  return results;
}

MoeLayer::Handle forward(MoeLayer& layer, RankTensors& t, RankResult& r) {
  return layer.forward(t.x.data(), t.rows, t.y.data(), r.a.weights());
}
void backward(MoeLayer& layer, MoeLayer::Handle& handle, RankTensors& t, RankResult& r) {
  layer.backward(handle, t.dy.data(), t.dx.data(), r.a.weights(), r.a.gradients());
}

void one_after_the_other(MoeLayer& layer, RankResult& r) {
  {
    auto handle = forward(layer, r.a, r);
    backward(layer, handle, r.a, r);
  }
  auto handle = forward(layer, r.b, r);
  backward(layer, handle, r.b, r);
}

void expect_same(const RankResult& x, const RankResult& y) {
  EXPECT_EQ(x.a.y, y.a.y);
  EXPECT_EQ(x.b.y, y.b.y);
  EXPECT_EQ(x.a.dx, y.a.dx);
  EXPECT_EQ(x.b.dx, y.b.dx);
}

void expect_same_weight_gradients(const RankResult& x, const RankResult& y) {
  EXPECT_EQ(x.a.drouter, y.a.drouter);
  EXPECT_EQ(x.a.dgate, y.a.dgate);
  EXPECT_EQ(x.a.dup, y.a.dup);
  EXPECT_EQ(x.a.ddown, y.a.ddown);
}

class LayerHandles : public ::testing::Test {
 protected:
  std::vector<TwoBatches> all_{
      two_batches("flat", TokenSplit::sliced, 2), two_batches("flat", TokenSplit::replicated, 2),
      two_batches("flat", TokenSplit::sliced, 1), two_batches("node_dedup", TokenSplit::sliced, 1)};
};

TEST_F(LayerHandles, TwoOutstanding_EqualOneAfterTheOther) {
  for (const TwoBatches& t : all_) {
    SCOPED_TRACE(t.schedule.name);
    const auto apart = run(t, one_after_the_other);
    const auto interleaved = run(t, [](MoeLayer& layer, RankResult& r) {
      auto first = forward(layer, r.a, r), second = forward(layer, r.b, r);
      backward(layer, first, r.a, r);
      backward(layer, second, r.b, r);
    });
    for (std::size_t rank = 0; rank < apart.size(); ++rank) {
      expect_same(interleaved[rank], apart[rank]);
      expect_same_weight_gradients(interleaved[rank], apart[rank]);
    }
  }
}

TEST_F(LayerHandles, BackwardInOtherOrder_EqualsOneAfterTheOther) {
  for (const TwoBatches& t : all_) {
    SCOPED_TRACE(t.schedule.name);
    const auto apart = run(t, one_after_the_other);
    const auto reversed = run(t, [](MoeLayer& layer, RankResult& r) {
      auto first = forward(layer, r.a, r), second = forward(layer, r.b, r);
      backward(layer, second, r.b, r);
      backward(layer, first, r.a, r);
    });
    // Gradients of weights are added in another order, so they are left out.
    for (std::size_t rank = 0; rank < apart.size(); ++rank) expect_same(reversed[rank], apart[rank]);
  }
}

TEST_F(LayerHandles, HandleDroppedOrMoved_LeavesOthersAlone) {
  for (const TwoBatches& t : all_) {
    SCOPED_TRACE(t.schedule.name);
    const auto apart = run(t, one_after_the_other);
    const auto dropped = run(t, [](MoeLayer& layer, RankResult& r) {
      forward(layer, r.b, r);  // for inference: never goes back
      auto handle = forward(layer, r.a, r);
      MoeLayer::Handle moved(std::move(handle));
      backward(layer, moved, r.a, r);
    });
    for (std::size_t rank = 0; rank < apart.size(); ++rank) {
      EXPECT_EQ(dropped[rank].a.y, apart[rank].a.y);
      EXPECT_EQ(dropped[rank].a.dx, apart[rank].a.dx);
      EXPECT_EQ(dropped[rank].b.y, apart[rank].b.y);
    }
  }
}

// Adding is what the contract says: from 1 on, each weight's gradient ends 1 higher, to one rounding.
TEST_F(LayerHandles, GradientsNotZero_AreAddedTo) {
  const TwoBatches& t = all_[0];
  const auto from_zero = run(t, one_after_the_other);
  const auto from_one = run(t, [](MoeLayer& layer, RankResult& r) {
    for (auto* g : {&r.a.drouter, &r.a.dgate, &r.a.dup, &r.a.ddown}) std::fill(g->begin(), g->end(), 1.0F);
    one_after_the_other(layer, r);
  });
  for (std::size_t rank = 0; rank < from_zero.size(); ++rank)
    for (const auto& [zero, one] : {std::pair{&from_zero[rank].a.drouter, &from_one[rank].a.drouter},
                                    {&from_zero[rank].a.dgate, &from_one[rank].a.dgate},
                                    {&from_zero[rank].a.dup, &from_one[rank].a.dup},
                                    {&from_zero[rank].a.ddown, &from_one[rank].a.ddown}})
      for (std::size_t i = 0; i < zero->size(); ++i) ASSERT_NEAR((*one)[i], 1 + (*zero)[i], 1e-5F) << i;
}

TEST_F(LayerHandles, WeightGradientsNotAsked_TokenGradientsSame) {
  for (const TwoBatches& t : all_) {
    SCOPED_TRACE(t.schedule.name);
    const auto asked = run(t, one_after_the_other);
    const auto frozen = run(t, [](MoeLayer& layer, RankResult& r) {
      for (RankTensors* batch : {&r.a, &r.b}) {
        auto handle = forward(layer, *batch, r);
        layer.backward(handle, batch->dy.data(), batch->dx.data(), r.a.weights(), LayerGradients{});
      }
    });
    for (std::size_t rank = 0; rank < asked.size(); ++rank) expect_same(frozen[rank], asked[rank]);
  }
}

TEST(LayerEdges, NobodyHasTokens_EveryScheduleRunsAndAddsNothing) {
  for (const bool sp : {false, true})
    for (const auto split : {TokenSplit::replicated, TokenSplit::sliced}) {
      LayerCase c{.layout = layout(4, 2, 1, 4, sp), .gpus_per_node = 2, .tokens = {0}};
      for (const std::string_view transport : transport_names()) {
        const LayerResult r = run_layer(c, build_schedule(transport, request(c.layout, split, 3)));
        for (const auto& output : r.output) EXPECT_TRUE(output.empty());
        for (const Values* g : {&r.grads.router, &r.grads.gate, &r.grads.up, &r.grads.down})
          EXPECT_EQ(*g, Values(g->size(), 0.0)) << transport;
      }
    }
}

// A dense layer in disguise: one rank, one expert. Nothing is sent.
TEST(LayerEdges, OneRankOneExpert_SendsNothing) {
  LayerCase c{.layout = layout(1, 1, 1, 1), .gpus_per_node = 1, .shape = {8, 4, 1, 1, true}, .tokens = {5}};
  for (const std::string_view transport : transport_names()) {
    const LayerResult r = run_layer(c, build_schedule(transport, request(c.layout, TokenSplit::sliced, 2)));
    EXPECT_EQ(r.sent_forward[0][0], Traffic{});
    EXPECT_EQ(r.sent_backward[0][0], Traffic{});
    EXPECT_LE(worst_of_bound(r.output[0], expect_layer(c).output[0]), 1);
  }
}

std::string refusal(const LayerCase& c, const Schedule& schedule, int ranks) {
  std::string why = "accepted";
  try {
    run_inproc(ranks, [&](Communicator& communicator) {
      const auto device = make_cpu_device();
      make_layer(c, schedule, communicator, *device);
    });
  } catch (const InvalidInput& e) {
    why = e.what();
  }
  return why;
}

TEST(LayerEdges, ShapeLayoutOrScheduleDoNotFit_SaidByName) {
  const LayerCase c{.layout = layout(4, 2, 2, 2), .gpus_per_node = 2, .tokens = {1}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 1));
  EXPECT_EQ(refusal(c, schedule, 4), "accepted");
  EXPECT_NE(refusal(c, schedule, 2).find("communicator: 2 ranks"), std::string::npos);
  LayerCase odd = c;
  odd.shape.ffn = 25;
  EXPECT_NE(refusal(odd, schedule, 4).find("ffn: 25"), std::string::npos);
  odd = c, odd.shape.top_k = 5;
  EXPECT_NE(refusal(odd, schedule, 4).find("top_k: 5"), std::string::npos);
  odd = c, odd.shape.experts = 3;
  EXPECT_NE(refusal(odd, schedule, 4).find("ep: 2"), std::string::npos);
}

TEST(LayerEdges, ScheduleOfAnotherLayout_IsRefused) {
  const LayerCase c{.layout = layout(4, 2, 2, 2), .gpus_per_node = 2, .tokens = {1}};
  const auto built_for = [&](const Layout& l, TokenSplit split) {
    return refusal(c, build_schedule("gather", request(l, split, 1)), 4);
  };
  EXPECT_EQ(built_for(c.layout, TokenSplit::sliced), "accepted");
  EXPECT_NE(built_for(layout(4, 2, 4, 1), TokenSplit::sliced).find("a part of every expert"), std::string::npos);
  EXPECT_NE(built_for(layout(4, 2, 1, 4), TokenSplit::sliced).find("whole experts"), std::string::npos);
  LayerCase wide = c;
  wide.layout = layout(4, 2, 4, 1);
  const Schedule alike = build_schedule("gather", request(layout(4, 2, 2, 1), TokenSplit::replicated, 1));
  EXPECT_NE(refusal(wide, alike, 4).find("the same tokens"), std::string::npos);
}

// Six ranks of one EP group on nodes of four: 4 + 2, so that rails have different lengths.
TEST(LayerEdges, NodeDedupOnUnevenNodes_IsRefused) {
  const LayerCase c{.layout = layout(6, 1, 1, 6), .gpus_per_node = 4, .shape = {8, 4, 6, 2, true}, .tokens = {3}};
  const std::string why = refusal(c, build_schedule("node_dedup", request(c.layout, TokenSplit::sliced, 1)), 6);
  EXPECT_NE(why.find("gpus_per_node: 4"), std::string::npos) << why;
}

TEST(LayerEdges, NegativeRows_IsRefused) {
  const LayerCase c{.layout = layout(1, 1, 1, 1), .tokens = {1}};
  const ReferenceWeights weights = make_weights(c);
  run_inproc(1, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    RankTensors t(c, weights, 0);
    MoeLayer layer =
        make_layer(c, build_schedule("flat", request(c.layout, TokenSplit::sliced, 1)), communicator, *device);
    EXPECT_THROW(layer.forward(t.x.data(), -1, t.y.data(), t.weights()), InvalidInput);
  });
}

}  // namespace
}  // namespace topomoe::testing
