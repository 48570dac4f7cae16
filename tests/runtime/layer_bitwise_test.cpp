// Schedules that add in the same order give the same bits (DESIGN 8): outputs and token gradients do not
// depend on the token split, on the number of chunks or pieces, nor on who held a token. fp32.

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/layer_cases.hpp"

namespace topomoe::testing {
namespace {

using PerRank = std::vector<std::vector<float>>;

// Rows of a TP group in its order, whoever holds them: one sequence a group.
PerRank by_group(const LayerCase& c, const PerRank& held) {
  PerRank out;
  for (int rank = 0; rank < c.layout.world; ++rank) {
    const auto& rows = held[static_cast<std::size_t>(rank)];
    if (rank % c.layout.tp == 0) out.emplace_back();
    if (c.layout.sequence_parallel) {
      out.back().insert(out.back().end(), rows.begin(), rows.end());
    } else if (rank % c.layout.tp == 0) {
      out.back() = rows;
    }
  }
  return out;
}

void expect_same_bits(const PerRank& a, const PerRank& b, const char* what) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].size(), b[i].size()) << what << " of " << i;
    EXPECT_TRUE(a[i].empty() || std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) == 0)
        << what << " of " << i;
  }
}

struct Chunking {
  int chunks, pieces, backward_chunks = 0, backward_pieces = 0;
};
constexpr Chunking kChunkings[] = {{1, 1},       {2, 1},       {2, 2},       {3, 1},       {3, 3},
                                   {8, 1},       {8, 2},       {8, 4},       {8, 8},       {1, 1, 4, 2},
                                   {4, 4, 1, 1}, {4, 2, 6, 3}, {6, 2, 6, 3}, {6, 6, 6, 1}, {3, 1, 2, 1}};

// All splits and chunkings of one transport against the first of them, rank by rank.
LayerResult expect_one_answer(const LayerCase& c, std::string_view transport) {
  SCOPED_TRACE(describe(c) + ", " + std::string(transport));
  LayerResult first;
  for (const auto split : {TokenSplit::replicated, TokenSplit::sliced})
    for (const auto& [chunks, pieces, backward_chunks, backward_pieces] : kChunkings) {
      ScheduleRequest r = request(c.layout, split, chunks, pieces);
      r.backward_chunks = backward_chunks, r.backward_pieces = backward_pieces;
      const Schedule schedule = build_schedule(transport, r);
      SCOPED_TRACE(schedule.name);
      LayerResult result = run_layer(c, schedule);
      if (first.output.empty()) {
        first = std::move(result);
        continue;
      }
      expect_same_bits(result.output, first.output, "output of rank");
      expect_same_bits(result.token_grads, first.token_grads, "token gradients of rank");
    }
  // All ranks of a TP group without sequence parallelism hold the same answer.
  if (!c.layout.sequence_parallel)
    for (int rank = 0; rank < c.layout.world; ++rank) {
      const auto r = static_cast<std::size_t>(rank), leader = static_cast<std::size_t>(rank - rank % c.layout.tp);
      EXPECT_EQ(first.output[r], first.output[leader]) << "rank " << rank;
      EXPECT_EQ(first.token_grads[r], first.token_grads[leader]) << "rank " << rank;
    }
  return first;
}

// The same tokens held by every rank of a TP group, and cut over its ranks.
void expect_same_with_and_without_sp(LayerCase c, const std::vector<int>& by_rank, std::string_view transport) {
  c.layout.sequence_parallel = true, c.tokens = by_rank;
  const LayerResult cut = expect_one_answer(c, transport);
  const PerRank output = by_group(c, cut.output), grads = by_group(c, cut.token_grads);
  c.layout.sequence_parallel = false, c.tokens.clear();
  for (int rank = 0; rank < c.layout.world; ++rank) {
    if (rank % c.layout.tp == 0) c.tokens.push_back(0);
    c.tokens.back() += by_rank[static_cast<std::size_t>(rank)];
  }
  const LayerResult whole = expect_one_answer(c, transport);
  expect_same_bits(by_group(c, whole.output), output, "output of TP group");
  expect_same_bits(by_group(c, whole.token_grads), grads, "token gradients of TP group");
}

const std::vector<int> kTokensOf8{5, 0, 7, 3, 1, 0, 2, 9};

TEST(LayerBits, FlatWholeExperts_SameForEverySplitChunkingAndHolder) {
  LayerCase c{.layout = layout(8, 4, 1, 4), .gpus_per_node = 4, .shape = {12, 6, 8, 2, true}};
  expect_same_with_and_without_sp(c, kTokensOf8, "flat");
  c.layout.expert_order = ExpertOrder::edp_inner;
  expect_same_with_and_without_sp(c, kTokensOf8, "flat");
}

TEST(LayerBits, FlatShardedExperts_SameForEverySplitChunkingAndHolder) {
  LayerCase c{.layout = layout(8, 4, 4, 2), .gpus_per_node = 4, .shape = {12, 12, 4, 3, false}};
  expect_same_with_and_without_sp(c, kTokensOf8, "flat");
}

TEST(LayerBits, TwoLevel_SameForEverySplitChunkingAndHolder) {
  LayerCase c{.layout = layout(8, 2, 1, 8), .gpus_per_node = 4, .shape = {12, 6, 16, 3, true}};
  expect_same_with_and_without_sp(c, kTokensOf8, "two_level");
  c.layout = layout(8, 2, 2, 4), c.shape = {12, 12, 4, 3, false};
  expect_same_with_and_without_sp(c, kTokensOf8, "two_level");
}

// The same rows by the same experts in the same order: even the weights' gradients do not tell which way they came.
TEST(LayerBits, TwoLevel_AddsAsFlatDoes) {
  for (const int etp : {1, 2}) {
    LayerCase c{.layout = layout(8, 2, etp, 8 / etp),
                .gpus_per_node = 4,
                .shape = {12, 12, 16, 3, true},
                .tokens = {5, 0, 7, 3}};
    for (const auto split : {TokenSplit::replicated, TokenSplit::sliced}) {
      SCOPED_TRACE(describe(c) + ", " + std::string(name(split)));
      const LayerResult flat = run_layer(c, build_schedule("flat", request(c.layout, split, 2))),
                        two_level = run_layer(c, build_schedule("two_level", request(c.layout, split, 2)));
      expect_same_bits(two_level.output, flat.output, "output of rank");
      expect_same_bits(two_level.token_grads, flat.token_grads, "token gradients of rank");
      EXPECT_EQ(two_level.grads.gate, flat.grads.gate);
      EXPECT_EQ(two_level.grads.up, flat.grads.up);
      EXPECT_EQ(two_level.grads.down, flat.grads.down);
    }
  }
}

TEST(LayerBits, Gather_SameForEverySplitChunkingAndHolder) {
  LayerCase c{.layout = layout(8, 2, 1, 8), .gpus_per_node = 4, .shape = {12, 6, 16, 3, true}};
  expect_same_with_and_without_sp(c, kTokensOf8, "gather");
  c.layout = layout(8, 2, 2, 4), c.shape = {12, 12, 4, 3, false};
  expect_same_with_and_without_sp(c, kTokensOf8, "gather");
}

// Shards of all experts on every rank of an ETP group that is wider, or narrower, than the TP group.
TEST(LayerBits, GatherOverShardsOfAllExperts_SameForEverySplitChunkingAndHolder) {
  for (const auto& [tp, etp] : {std::pair{2, 8}, {8, 2}, {4, 4}}) {
    LayerCase c{.layout = layout(8, tp, etp, 1), .gpus_per_node = 4, .shape = {12, 2 * etp, 4, 3, true}};
    expect_same_with_and_without_sp(c, kTokensOf8, "gather");
  }
}

TEST(LayerBits, NodeDedup_SameForEverySplitChunkingAndHolder) {
  LayerCase c{.layout = layout(8, 2, 1, 8), .gpus_per_node = 4, .shape = {12, 6, 16, 3, true}};
  expect_same_with_and_without_sp(c, kTokensOf8, "node_dedup");
  c.layout = layout(8, 2, 2, 4), c.shape = {12, 12, 4, 3, false};
  expect_same_with_and_without_sp(c, kTokensOf8, "node_dedup");
}

}  // namespace
}  // namespace topomoe::testing
