// Bytes handed to the transport, by sender, receiver and pass, counted at the call: equal to what counting
// tokens one by one gives (tests/support/drawn_counts.hpp, which knows no schedules), and to what the
// schedule's own sizes say, which is what the planner prices.

#include <gtest/gtest.h>

#include "tests/support/drawn_counts.hpp"
#include "tests/support/layer_cases.hpp"

namespace topomoe::testing {
namespace {

using Matrix = std::vector<std::vector<Traffic>>;

void expect_same_bytes(const Matrix& actual, const Matrix& expected, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t from = 0; from < actual.size(); ++from)
    for (std::size_t to = 0; to < actual.size(); ++to) {
      const Traffic &a = actual[from][to], &e = expected[from][to];
      EXPECT_EQ(a.payload_bytes, e.payload_bytes) << what << " payload, rank " << from << " to " << to;
      EXPECT_EQ(a.metadata_bytes, e.metadata_bytes) << what << " metadata, rank " << from << " to " << to;
    }
}

double columns(const LayerCase& c, const Buffer& b) {
  switch (b.columns) {
    case Columns::hidden: return c.shape.hidden;
    case Columns::ffn: return c.shape.ffn / c.layout.etp;
    case Columns::top_k: return c.shape.top_k;
    case Columns::experts: return c.shape.experts;
    case Columns::shared_ffn: break;  // no case has any
  }
  return 0;
}

// What the schedule says it sends, counts_exchange apart.
Matrix sizes_of(const LayerCase& c, const Schedule& schedule, const std::vector<Step>& steps,
                const CountSource& counts) {
  const auto world = static_cast<std::size_t>(c.layout.world);
  Matrix out(world, std::vector<Traffic>(world));
  const RankGroups groups(c.layout, c.gpus_per_node);
  for (int me = 0; me < c.layout.world; ++me)
    for (const Step& s : steps) {
      if (s.kind != StepKind::exchange && s.kind != StepKind::all_gather) continue;
      const Buffer& b = schedule.buffers[static_cast<std::size_t>(s.in[0].buffer)];
      const double element = b.element == Element::payload ? static_cast<double>(size_of(c.dtype)) : 4.0;
      for (const int peer : groups.members(s.group, me)) {
        if (peer == me) continue;
        const double rows = rows_of(schedule, s.in[0], groups, counts, me, peer);
        EXPECT_EQ(rows, resolve(schedule, s.in[0], groups, counts, me, peer).rows) << s.name;
        Traffic& t = out[static_cast<std::size_t>(me)][static_cast<std::size_t>(peer)];
        (s.metadata ? t.metadata_bytes : t.payload_bytes) += rows * columns(c, b) * element;
      }
    }
  return out;
}

double counts_exchanged(const std::vector<StepTrace>& trace) {
  double bytes = 0;
  for (const StepTrace& s : trace) bytes += s.kind == StepKind::counts_exchange ? s.metadata_bytes : 0;
  return bytes;
}

void expect_bytes(const LayerCase& c, std::string_view transport, const ScheduleRequest& r) {
  const Schedule schedule = build_schedule(transport, r);
  SCOPED_TRACE(describe(c) + ", " + schedule.name);
  const bool sliced = r.split == TokenSplit::sliced;
  const int backward_chunks = r.backward_chunks > 0 ? r.backward_chunks : r.chunks;
  const bool recut = backward_chunks != r.chunks || (r.backward_pieces > 0 && r.backward_pieces != r.pieces);
  const ExpectedResult reference = expect_layer(c);
  const LayerResult actual = run_layer(c, schedule);

  const TrafficMatrix expected =
      expect_traffic(c, reference.ids, sliced, way_of(transport), {r.chunks, backward_chunks, recut});
  expect_same_bytes(actual.sent_forward, expected.forward, "forward");
  expect_same_bytes(actual.sent_backward, expected.backward, "backward");

  const DrawnCounts counts(c, reference.ids, sliced, schedule.chunks);
  const Matrix said_forward = sizes_of(c, schedule, schedule.forward, counts),
               said_backward = sizes_of(c, schedule, schedule.backward, counts);
  for (std::size_t from = 0; from < actual.forward.size(); ++from) {
    double metadata = counts_exchanged(actual.forward[from]);
    for (std::size_t to = 0; to < actual.forward.size(); ++to) {
      EXPECT_EQ(said_forward[from][to].payload_bytes, expected.forward[from][to].payload_bytes) << from << " to " << to;
      EXPECT_EQ(said_backward[from][to].payload_bytes, expected.backward[from][to].payload_bytes)
          << from << " to " << to;
      EXPECT_EQ(said_backward[from][to].metadata_bytes, expected.backward[from][to].metadata_bytes)
          << from << " to " << to;
      metadata += said_forward[from][to].metadata_bytes - expected.forward[from][to].metadata_bytes;
    }
    EXPECT_EQ(metadata, 0) << "metadata of rank " << from;
    // The trace counts the same bytes by step.
    for (const auto& [trace, sent] :
         {std::pair{&actual.forward, &actual.sent_forward}, {&actual.backward, &actual.sent_backward}}) {
      Traffic traced, counted;
      for (const StepTrace& s : (*trace)[from])
        traced.payload_bytes += s.payload_bytes, traced.metadata_bytes += s.metadata_bytes;
      for (const Traffic& t : (*sent)[from])
        counted.payload_bytes += t.payload_bytes, counted.metadata_bytes += t.metadata_bytes;
      EXPECT_EQ(traced, (Traffic{counted.payload_bytes, counted.metadata_bytes, 0})) << "trace of rank " << from;
    }
  }
}

// Payload that crosses from one node to another, and that stays inside one.
struct Split {
  double inter = 0, intra = 0, metadata = 0;
};
Split payload(const Matrix& sent, int gpus_per_node) {
  Split out;
  for (std::size_t from = 0; from < sent.size(); ++from)
    for (std::size_t to = 0; to < sent.size(); ++to) {
      const auto node = static_cast<std::size_t>(gpus_per_node);
      (from / node == to / node ? out.intra : out.inter) += sent[from][to].payload_bytes;
      out.metadata += sent[from][to].metadata_bytes;
    }
  return out;
}

class LayerBytes : public ::testing::TestWithParam<Fold> {};

TEST_P(LayerBytes, EverySplitAndTransport_EqualsCountByTokens) {
  const Fold f = GetParam();
  Draw draw(static_cast<std::uint64_t>(f.tp * 100 + f.ep * 10 + (f.etp > 1 ? 1 : 0)) + 5000);
  const bool sp = f.tp > 1 && draw.coin();
  DrawnCase drawn = draw_case(f, sp, draw.of({DType::f32, DType::bf16}), 16, draw);
  drawn.c.owners = draw_owners(drawn.c.shape.experts, f.ep, draw);
  drawn.c.shape.capacity_factor = draw.of({0.0, 0.0, 0.75});
  for (const std::string_view transport : transport_names())
    for (const auto split : {TokenSplit::replicated, TokenSplit::sliced}) {
      if (!applies(transport, drawn.c.layout, drawn.c.gpus_per_node)) continue;
      const int chunks = draw.of({1, 2, 3, 4});
      expect_bytes(drawn.c, transport,
                   draw_backward(request(drawn.c.layout, split, chunks, draw.coin() ? chunks : 1), draw));
    }
}
INSTANTIATE_TEST_SUITE_P(Folds, LayerBytes, ::testing::ValuesIn(folds(16)),
                         [](const auto& fold) { return name(fold.param); });

// Two tokens held by both ranks of a TP group, experts 0 and 1 on ranks 0 and 1: small enough to check by hand.
// Sliced: rank r injects token r, for k = 2 experts, one of them the other rank's: 1 row of 4 floats there,
// 1 back, and 1 row of y to the other: 3 x 16 bytes. Replicated: 2 rows there and 2 back, 4 x 16.
TEST(LayerBytesByHand, TwoRanksTwoTokens_EqualsSumOnPaper) {
  LayerCase c{.layout = layout(2, 2, 1, 2), .gpus_per_node = 2, .shape = {4, 2, 2, 2, true}, .tokens = {2}};
  const auto sent = [&](TokenSplit split) {
    return run_layer(c, build_schedule("flat", request(c.layout, split, 1))).sent_forward;
  };
  const auto sliced = sent(TokenSplit::sliced), replicated = sent(TokenSplit::replicated);
  EXPECT_EQ(sliced[0][1].payload_bytes, 48);
  EXPECT_EQ(sliced[1][0].payload_bytes, 48);
  EXPECT_EQ(replicated[0][1].payload_bytes, 64);
  EXPECT_EQ(replicated[1][0].payload_bytes, 64);
}

// MoNTA's claim: at TP 8 over two hosts, slicing puts an eighth of the bytes between them, exactly and for
// any routing, since each token crosses once and not once a tensor rank.
TEST(LayerBytesBetweenHosts, SlicedAtTp8_IsOneEighthOfReplicated) {
  for (const int etp : {8, 1}) {
    // Whole experts share hosts with their EP group unless EDP is inside.
    const auto order = etp == 1 ? ExpertOrder::edp_inner : ExpertOrder::ep_inner;
    LayerCase c{.layout = layout(16, 8, etp, 2, false, order),
                .gpus_per_node = 8,
                .shape = {8, 16, 8, 2, true},
                .tokens = {37, 21}};
    SCOPED_TRACE(describe(c));
    for (const int n : {1, 3}) {
      const auto run = [&](TokenSplit split) {
        return run_layer(c, build_schedule("flat", request(c.layout, split, n)));
      };
      const LayerResult sliced = run(TokenSplit::sliced), replicated = run(TokenSplit::replicated);
      const Split sf = payload(sliced.sent_forward, 8), rf = payload(replicated.sent_forward, 8);
      const Split sb = payload(sliced.sent_backward, 8), rb = payload(replicated.sent_backward, 8);
      EXPECT_GT(sf.inter, 0);
      EXPECT_EQ(8 * sf.inter, rf.inter) << "forward";
      EXPECT_EQ(8 * sb.inter, rb.inter) << "backward";
      EXPECT_EQ(sf.inter, sb.inter) << "rows there and back in both passes";
      RecordProperty(
          "etp" + std::to_string(etp) + "_n" + std::to_string(n) + "_metadata_bytes_sliced_replicated",
          std::to_string(static_cast<long>(sf.metadata)) + " " + std::to_string(static_cast<long>(rf.metadata)));
    }
  }
}

// Fine-grained experts: a token with k = 6 experts reaches at most both nodes, so 1 row crosses at most.
TEST(LayerBytesBetweenHosts, NodeDedup_CrossesOncePerTokenAndNode) {
  LayerCase c{.layout = layout(8, 1, 1, 8),
              .gpus_per_node = 4,
              .shape = {8, 4, 16, 6, true},
              .tokens = {9, 4, 0, 7, 1, 3, 8, 2}};
  const auto run = [&](std::string_view transport) {
    return payload(run_layer(c, build_schedule(transport, request(c.layout, TokenSplit::sliced, 2))).sent_forward, 4);
  };
  const Split dedup = run("node_dedup"), flat = run("flat");
  const ExpectedResult reference = expect_layer(c);
  double crossing_tokens = 0, crossing_pairs = 0;
  for (int rank = 0; rank < 8; ++rank) {
    const auto& ids = reference.ids[static_cast<std::size_t>(rank)];
    for (std::size_t token = 0; token < ids.size(); token += 6) {
      int away = 0;
      for (std::size_t slot = 0; slot < 6; ++slot)
        away += ids[token + slot] / 8 != rank / 4 ? 1 : 0;  // 8 experts a node
      crossing_pairs += away, crossing_tokens += away > 0 ? 1 : 0;
    }
  }
  EXPECT_EQ(dedup.inter, 2 * crossing_tokens * 8 * 4);  // there and back, 8 floats
  EXPECT_EQ(flat.inter, 2 * crossing_pairs * 8 * 4);
}

}  // namespace
}  // namespace topomoe::testing
