#include "kernels/expert_map.hpp"

#include "tests/kernels/expert_map_layer.hpp"

namespace topomoe::test {
namespace {

using kernels::PairOrder;

class ExpertMap : public OnDevice {
 protected:
  MapResult run(const kernels::ExpertMap& op, const Ints& ids) {
    const MapTensors tensors(*device_, op, ids);
    device_->expert_map(Lane::compute, tensors.map);
    device_->synchronize(soon());
    return tensors.read();
  }
};

// The contract read aloud: sort pairs by part, expert and order; those of a part beyond its capacity go nowhere.
MapResult reference(const kernels::ExpertMap& op, const Ints& ids) {
  const auto k = static_cast<std::size_t>(op.k), rows = static_cast<std::size_t>(op.rows);
  std::vector<std::size_t> pairs;
  for (std::size_t i = 0; i < ids.size(); ++i)
    pairs.push_back(op.order == PairOrder::token ? i : i % rows * k + i / rows);
  const std::size_t places = static_cast<std::size_t>(op.parts * op.capacity);
  MapResult out{
      Ints(static_cast<std::size_t>(op.experts)), {}, Ints(ids.size(), -1), Ints(places, -1), Ints(places, -1)};
  const int of_part = op.experts / op.parts;
  std::int64_t at = 0;
  for (int e = 0; e < op.experts; ++e) {
    const std::int64_t begin = e / of_part * op.capacity, end = begin + op.capacity;
    if (e % of_part == 0) at = begin;
    out.offsets.push_back(static_cast<int>(at));
    for (const std::size_t pair : pairs) {
      if (ids[pair] != e) continue;
      ++out.counts[static_cast<std::size_t>(e)];
      if (at == end) {
        ++out.overflow;
        continue;
      }
      out.position[pair] = static_cast<int>(at);
      out.source_row[static_cast<std::size_t>(at)] = static_cast<int>(pair / k);
      out.source_factor[static_cast<std::size_t>(at)] = static_cast<int>(pair);
      ++at;
    }
  }
  out.offsets.push_back(static_cast<int>(at));
  return out;
}

// Three tokens, two slots, three experts: expert 2 is wanted by pairs 0, 3 and 4, expert 0 by 1 and 2, 1 by nobody.
const Ints kIds{2, 0, 0, 2, 2, -1};

TEST_F(ExpertMap, Exact_SortsPairsByExpertThenToken) {
  const MapResult out = run({.rows = 3, .capacity = 6, .k = 2, .experts = 3}, kIds);
  EXPECT_EQ(out.counts, (Ints{2, 0, 3}));
  EXPECT_EQ(out.offsets, (Ints{0, 2, 2, 5}));
  EXPECT_EQ(out.position, (Ints{2, 0, 1, 3, 4, -1}));
  EXPECT_EQ(out.source_row, (Ints{0, 1, 0, 1, 2, -1}));
  EXPECT_EQ(out.source_factor, (Ints{1, 2, 0, 3, 4, -1}));
  EXPECT_EQ(out.overflow, 0);
}

TEST_F(ExpertMap, CapacityAnExpert_PadsAndCountsWhatOverflows) {
  const MapResult out = run({.rows = 3, .capacity = 2, .k = 2, .experts = 3, .parts = 3}, kIds);
  EXPECT_EQ(out.counts, (Ints{2, 0, 3}));  // as wanted
  EXPECT_EQ(out.offsets, (Ints{0, 2, 4, 6}));
  EXPECT_EQ(out.position, (Ints{4, 0, 1, 5, -1, -1}));  // token 2 comes last
  EXPECT_EQ(out.source_row, (Ints{0, 1, -1, -1, 0, 1}));
  EXPECT_EQ(out.overflow, 1);
}

// GShard: pairs 0, 2, 4 are first choices. Of expert 2's pairs 0, 3, 4 the second choice, 3, has to go; expert 0's
// first choice, 2, stands before 1.
TEST_F(ExpertMap, SlotOrder_FirstChoicesComeFirst) {
  const MapResult out =
      run({.rows = 3, .capacity = 2, .k = 2, .experts = 3, .parts = 3, .order = PairOrder::slot}, kIds);
  EXPECT_EQ(out.position, (Ints{4, 1, 0, -1, 5, -1}));
  EXPECT_EQ(out.overflow, 1);
}

// Two ranks of two experts with three places each: rank 0 is wanted four times, expert 1's second pair goes.
TEST_F(ExpertMap, CapacityARank_IsSharedByItsExperts) {
  const MapResult out = run({.rows = 5, .capacity = 3, .k = 1, .experts = 4, .parts = 2}, {1, 0, 1, 3, 0});
  EXPECT_EQ(out.counts, (Ints{2, 2, 0, 1}));
  EXPECT_EQ(out.offsets, (Ints{0, 2, 3, 3, 4}));
  EXPECT_EQ(out.position, (Ints{2, 0, -1, 3, 1}));
  EXPECT_EQ(out.source_row, (Ints{1, 4, 0, 3, -1, -1}));
  EXPECT_EQ(out.overflow, 1);
}

TEST_F(ExpertMap, RandomIds_MatchTheReference) {
  Random random(5);
  for (const int experts : {1, 2, 8, 33, 256, 1024}) {
    for (const int k : {1, 2, 8}) {
      for (const std::int64_t rows : {0, 1, 31, 100, 700}) {
        const bool one = random.whole(0, 4) == 0;  // all to one
        const Ints ids = one ? Ints(static_cast<std::size_t>(rows * k), random.whole(0, experts - 1))
                             : random.wholes(rows * k, -1, experts);  // some are no experts
        const PairOrder order = random.whole(0, 1) == 0 ? PairOrder::token : PairOrder::slot;
        const int parts = experts % 4 == 0 && random.whole(0, 1) == 0 ? experts / 4 : experts;
        for (const auto& [p, capacity] :
             {std::pair{1, rows * k}, {parts, rows * k / experts + 1}, {parts, std::int64_t{0}}}) {
          const kernels::ExpertMap op{
              .rows = rows, .capacity = capacity, .k = k, .experts = experts, .parts = p, .order = order};
          const MapResult actual = run(op, ids), expected = reference(op, ids);
          SCOPED_TRACE(::testing::Message()
                       << experts << " experts, k " << k << ", " << rows << " rows, capacity " << capacity);
          EXPECT_EQ(actual.counts, expected.counts);
          EXPECT_EQ(actual.offsets, expected.offsets);
          EXPECT_EQ(actual.position, expected.position);
          EXPECT_EQ(actual.source_row, expected.source_row);
          EXPECT_EQ(actual.source_factor, expected.source_factor);
          EXPECT_EQ(actual.overflow, expected.overflow);
        }
      }
    }
  }
}

// What goes out by one map comes back by the other.
TEST_F(ExpertMap, PositionAndSource_AreEachOthersInverse) {
  const Ints ids = Random(6).wholes(64 * 4, 0, 9);
  const MapResult out = run({.rows = 64, .capacity = 20, .k = 4, .experts = 10, .parts = 10}, ids);
  int placed = 0;
  for (std::size_t pair = 0; pair < ids.size(); ++pair) {
    const std::int32_t place = out.position[pair];
    if (place < 0) continue;
    ++placed;
    EXPECT_EQ(out.source_factor[static_cast<std::size_t>(place)], static_cast<int>(pair));
    EXPECT_EQ(out.source_row[static_cast<std::size_t>(place)], static_cast<int>(pair / 4));
    EXPECT_EQ(place / 20, ids[pair]);
  }
  EXPECT_EQ(placed + out.overflow, 64 * 4);
  EXPECT_GT(out.overflow, 0);
}

TEST_F(ExpertMap, SizesOutOfRange_AreRefusedByName) {
  const auto refused = [&](const kernels::ExpertMap& op, const std::string& field) {
    try {
      device_->expert_map(Lane::compute, op);
      ADD_FAILURE() << field;
    } catch (const InvalidInput& error) {
      EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
    }
  };
  refused({.rows = 1, .capacity = 1, .k = 1, .experts = 0}, "experts");
  refused({.rows = 1, .capacity = 1, .k = 1, .experts = 1025}, "experts");
  refused({.rows = 1, .capacity = 1, .k = 1, .experts = 4, .parts = 3}, "parts");
  refused({.rows = 1, .capacity = 1, .k = 0, .experts = 4}, "k");
  refused({.rows = 1, .capacity = -1, .k = 1, .experts = 4}, "capacity");
  refused({.rows = std::int64_t{1} << 30, .capacity = 1, .k = 2, .experts = 4}, "rows");
}

}  // namespace
}  // namespace topomoe::test
