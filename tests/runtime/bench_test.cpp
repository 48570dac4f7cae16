// The benches on threads: bytes and flops by hand, and every schedule of the table.

#include "runtime/bench.hpp"

#include <gtest/gtest.h>

#include "planner/schedules/build.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

Schedule schedule(std::string_view transport, TokenSplit split, const Layout& l, int chunks) {
  return build_schedule(transport,
                        {.split = split, .tp = l.tp, .etp = l.etp, .ep = l.ep, .chunks = chunks, .pieces = chunks});
}

template <class Run>
std::vector<BenchRow> on_threads(const BenchCase& b, Run run) {
  std::optional<std::vector<BenchRow>> rows;
  run_inproc(b.layout.world, [&](Communicator& c) {
    const auto device = make_cpu_device();
    if (auto mine = run(c, *device)) rows = std::move(mine);
  });
  return rows.value_or(std::vector<BenchRow>());
}
std::vector<BenchRow> bench(const std::vector<Schedule>& schedules, const BenchCase& b) {
  return on_threads(b, [&](Communicator& c, Device& d) { return bench_exchange(schedules, b, c, d); });
}
std::vector<BenchRow> layer_bench(const std::vector<Schedule>& schedules, const BenchCase& b) {
  return on_threads(b, [&](Communicator& c, Device& d) { return bench_layer(schedules, b, c, d); });
}

// All 8 experts of top-8: each token goes to every expert, 4 of them on the other host, whatever is drawn.
// 16 tokens of 4 floats: T k P = 16 * 8 * 16 = 2048. Replicated: 4 ranks each send 16 * 4 rows of 16 bytes to the other
// host, 4096 in all, 2048 out of either NIC. Sliced: half as many each; then each rank gives its TP partner, inside,
// what it got and what it kept, 64 rows: 8 tokens * 4 experts * 2 sources.
TEST(ExchangeBench, EveryExpertChosen_MovesTheBytesOfPaper) {
  BenchCase b{.layout = make_layout(4, 2, 1, 1, 2, 2), .ranks_per_host = 2, .tokens = 16, .repeat = 2};
  b.shape = {.hidden = 4, .ffn = 2, .experts = 8, .top_k = 8};
  b.nic_payload_GBps = 0.001;
  const auto rows =
      bench({schedule("flat", TokenSplit::replicated, b.layout, 1), schedule("flat", TokenSplit::sliced, b.layout, 1),
             schedule("flat", TokenSplit::sliced, b.layout, 4)},
            b);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].inter_bytes, 4096);
  EXPECT_EQ(rows[0].intra_bytes, 0);
  EXPECT_EQ(rows[0].nic_bytes, 2048);
  EXPECT_EQ(rows[0].bound_us, 2048);  // 1 MB/s is a byte each us
  for (const int sliced : {1, 2}) {
    const BenchRow& row = rows[static_cast<std::size_t>(sliced)];
    EXPECT_EQ(row.inter_bytes, 2048);
    EXPECT_EQ(row.intra_bytes, 4 * 64 * 16);
    EXPECT_EQ(row.bound_us, 1024);
    EXPECT_EQ(row.algorithm, "sliced flat");
  }
  EXPECT_EQ(rows[2].chunks, 4);
  for (const BenchRow& row : rows) {
    EXPECT_EQ(row.bytes_agree, true) << row.algorithm;
    EXPECT_EQ(row.bytes_per_rank, 2048);
    EXPECT_EQ(row.hosts, 2);
    ASSERT_EQ(row.times_us.size(), 2U);
    for (const double us : row.times_us) EXPECT_GT(us, 0);
  }
}

TEST(ExchangeBench, EveryTransport_HandsOverWhatWasDrawn) {
  BenchCase b{.layout = make_layout(8, 1, 1, 1, 1, 8), .ranks_per_host = 4, .tokens = 60, .routing = zipf_routing(1.2)};
  b.shape = {.hidden = 8, .ffn = 1, .experts = 16, .top_k = 4};
  std::vector<Schedule> schedules;
  for (const Transport& t : transports())
    for (const int chunks : {1, 3}) {
      const ScheduleRequest r{.ep = 8, .chunks = chunks, .pieces = chunks};
      if (t.refuses(r).empty()) schedules.push_back(build_schedule(t.name, r));
    }
  ASSERT_GE(schedules.size(), 6U);
  const auto rows = bench(schedules, b);
  ASSERT_EQ(rows.size(), schedules.size());
  double flat = 0, dedup = 0;
  for (const BenchRow& row : rows) {
    EXPECT_EQ(row.bytes_agree, true) << row.algorithm << " n=" << row.chunks;
    EXPECT_GT(row.inter_bytes, 0) << row.algorithm;
    EXPECT_FALSE(row.bound_us) << "no rate was given";
    if (row.algorithm == "sliced flat") flat = row.inter_bytes;
    if (row.algorithm == "sliced node_dedup") dedup = row.inter_bytes;
  }
  EXPECT_LT(dedup, flat);
}

TEST(ExchangeBench, LayoutWithoutExchange_IsRefused) {
  BenchCase b{.layout = make_layout(1, 1, 1, 1, 1, 1), .tokens = 8};
  b.shape = {.hidden = 4, .ffn = 1, .experts = 4, .top_k = 2};
  const auto only = schedule("flat", TokenSplit::sliced, b.layout, 1);
  EXPECT_THROW(bench({only}, b), InvalidInput);
}

// As above with rows of 32 bytes, there and back: 16 tokens to 4 remote experts from 4 ranks are 8192 bytes each way,
// 4096 out of either NIC; sliced: half. The gradients go the same ways. Each rank has a shard of 4 experts, 4 wide, and
// gets all 16 tokens of both ends of its EP group for each: 128 rows, 6 * 8 * 4 flops a row, twice that backward.
TEST(LayerBench, EveryExpertChosen_MovesTheBytesOfPaperBothWays) {
  BenchCase b{.layout = make_layout(4, 2, 1, 1, 2, 2), .ranks_per_host = 2, .tokens = 16, .repeat = 2};
  b.shape = {.hidden = 8, .ffn = 8, .experts = 8, .top_k = 8};
  b.nic_payload_GBps = 0.001;
  const std::vector<Schedule> both{schedule("flat", TokenSplit::replicated, b.layout, 1),
                                   schedule("flat", TokenSplit::sliced, b.layout, 2)};
  auto rows = layer_bench(both, b);
  ASSERT_EQ(rows.size(), 4U);
  for (const std::size_t i : {0U, 1U, 2U, 3U}) {
    const BenchRow& row = rows[i];
    SCOPED_TRACE(row.algorithm + " " + row.pass);
    EXPECT_EQ(row.pass, i % 2 == 0 ? "forward" : "backward");
    EXPECT_EQ(row.inter_bytes, i < 2 ? 2 * 8192 : 8192);
    EXPECT_EQ(row.bound_us, i < 2 ? 2 * 4096 : 4096);
    EXPECT_EQ(row.expert_flops, (i % 2 == 0 ? 1 : 2) * 128 * 6 * 8 * 4);
    EXPECT_EQ(row.chunks, i < 2 ? 1 : 2);
    EXPECT_EQ(row.bytes_per_rank, 16 * 8 * 32);
    EXPECT_EQ(row.bytes_agree, true);
    ASSERT_EQ(row.times_us.size(), 2U);
    for (const double us : row.times_us) EXPECT_GT(us, 0);
  }
  // The larger of the two is the bound; of one that is not known nothing comes.
  b.rank_TFLOPps = 1e-6;
  rows = layer_bench(both, b);
  EXPECT_EQ(rows[0].bound_us, 24576);
  EXPECT_EQ(rows[1].bound_us, 49152);
  b.nic_payload_GBps = b.rank_TFLOPps = 0, b.backward = false;
  rows = layer_bench(both, b);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[1].pass, "forward");
  EXPECT_FALSE(rows[1].bound_us);
}

// The layer's own router decides: bytes agree only if it chose what was drawn.
TEST(LayerBench, EveryTransport_HandsOverWhatWasDrawn) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool sequence_parallel : {false, true}) {
      BenchCase b{
          .layout = make_layout(8, 2, 1, 1, 1, 8), .ranks_per_host = 4, .tokens = 31, .routing = zipf_routing(1.2)};
      b.layout.sequence_parallel = sequence_parallel;
      b.shape = {.hidden = 24, .ffn = 8, .experts = 16, .top_k = 6, .dtype = dtype};
      std::vector<Schedule> schedules;
      for (const Transport& t : transports())
        for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated}) {
          const ScheduleRequest r{
              .split = split, .tp = 2, .ep = 8, .sequence_parallel = sequence_parallel, .chunks = 3, .pieces = 3};
          if (t.refuses(r).empty()) schedules.push_back(build_schedule(t.name, r));
        }
      ASSERT_GE(schedules.size(), 4U);
      for (const BenchRow& row : layer_bench(schedules, b)) {
        EXPECT_EQ(row.bytes_agree, true) << row.algorithm << " " << row.pass << (sequence_parallel ? " SP" : "");
        EXPECT_GT(row.inter_bytes, 0) << row.algorithm;
      }
    }
}

// DeepSeek-V3's router: sigmoid scores, 2 of 4 groups.
TEST(LayerBench, RouterOfGroups_ChoosesWhatWasDrawn) {
  BenchCase b{.layout = make_layout(4, 1, 1, 1, 1, 4), .ranks_per_host = 2, .tokens = 40};
  b.shape = {.hidden = 16,
             .ffn = 4,
             .experts = 16,
             .top_k = 5,
             .router = {.scoring = Scoring::sigmoid, .groups = 4, .topk_groups = 2}};
  for (const BenchRow& row : layer_bench({schedule("node_dedup", TokenSplit::sliced, b.layout, 1)}, b))
    EXPECT_EQ(row.bytes_agree, true) << row.pass;
}

TEST(LayerBench, MoreExpertsThanHidden_IsRefused) {
  BenchCase b{.layout = make_layout(2, 1, 1, 1, 1, 2), .ranks_per_host = 2, .tokens = 8};
  b.shape = {.hidden = 4, .ffn = 4, .experts = 8, .top_k = 2};
  EXPECT_THROW(layer_bench({schedule("flat", TokenSplit::sliced, b.layout, 1)}, b), InvalidInput);
}

TEST(ExchangeBench, Median_OfEvenAndOdd) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
}

}  // namespace
}  // namespace topomoe
