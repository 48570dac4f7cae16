// The exchange bench on threads: bytes by hand, and every schedule of the table.

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

std::vector<ExchangeRow> bench(const std::vector<Schedule>& schedules, const ExchangeBench& b) {
  std::optional<std::vector<ExchangeRow>> rows;
  run_inproc(b.layout.world, [&](Communicator& c) {
    if (auto mine = bench_exchange(schedules, b, c, *make_cpu_device())) rows = std::move(mine);
  });
  return rows.value_or(std::vector<ExchangeRow>());
}

// All 8 experts of top-8: each token goes to every expert, 4 of them on the other host, whatever is drawn.
// 16 tokens of 4 floats: T k P = 16 * 8 * 16 = 2048. Replicated: 4 ranks each send 16 * 4 rows of 16 bytes to the other
// host, 4096 in all, 2048 out of either NIC. Sliced: half as many each; then each rank gives its TP partner, inside,
// what it got and what it kept, 64 rows: 8 tokens * 4 experts * 2 sources.
TEST(ExchangeBench, EveryExpertChosen_MovesTheBytesOfPaper) {
  ExchangeBench b{.layout = make_layout(4, 2, 1, 1, 2, 2), .ranks_per_host = 2, .tokens = 16, .repeat = 2};
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
    const ExchangeRow& row = rows[static_cast<std::size_t>(sliced)];
    EXPECT_EQ(row.inter_bytes, 2048);
    EXPECT_EQ(row.intra_bytes, 4 * 64 * 16);
    EXPECT_EQ(row.bound_us, 1024);
    EXPECT_EQ(row.algorithm, "sliced flat");
  }
  EXPECT_EQ(rows[2].chunks, 4);
  for (const ExchangeRow& row : rows) {
    EXPECT_EQ(row.bytes_agree, true) << row.algorithm;
    EXPECT_EQ(row.bytes_per_rank, 2048);
    EXPECT_EQ(row.hosts, 2);
    ASSERT_EQ(row.times_us.size(), 2U);
    for (const double us : row.times_us) EXPECT_GT(us, 0);
  }
}

TEST(ExchangeBench, EveryTransport_HandsOverWhatWasDrawn) {
  ExchangeBench b{
      .layout = make_layout(8, 1, 1, 1, 1, 8), .ranks_per_host = 4, .tokens = 60, .routing = zipf_routing(1.2)};
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
  for (const ExchangeRow& row : rows) {
    EXPECT_EQ(row.bytes_agree, true) << row.algorithm << " n=" << row.chunks;
    EXPECT_GT(row.inter_bytes, 0) << row.algorithm;
    EXPECT_FALSE(row.bound_us) << "no rate was given";
    if (row.algorithm == "sliced flat") flat = row.inter_bytes;
    if (row.algorithm == "sliced node_dedup") dedup = row.inter_bytes;
  }
  EXPECT_LT(dedup, flat);
}

TEST(ExchangeBench, LayoutWithoutExchange_IsRefused) {
  ExchangeBench b{.layout = make_layout(1, 1, 1, 1, 1, 1), .tokens = 8};
  b.shape = {.hidden = 4, .ffn = 1, .experts = 4, .top_k = 2};
  const auto only = schedule("flat", TokenSplit::sliced, b.layout, 1);
  EXPECT_THROW(bench({only}, b), InvalidInput);
}

TEST(ExchangeBench, Median_OfEvenAndOdd) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
}

}  // namespace
}  // namespace topomoe
