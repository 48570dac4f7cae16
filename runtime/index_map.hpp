// Builds the index maps of a schedule from ids and counts (DESIGN 6: maps are 0/1 matrices; see
// include/topomoe/schedule.hpp). Pure host arithmetic.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/counts.hpp"
#include "runtime/row_table.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

struct HostMap {
  int slots = 1;                            // places a `from` row can go to: top_k, or 1 for a repack
  std::vector<std::int32_t> position;       // [from rows, slots] -> row of `to`, -1: none
  std::vector<std::int32_t> source_row;     // [to rows] -> row of `from`
  std::vector<std::int32_t> source_factor;  // [to rows] -> row * slots + slot that sent it: index of its weight
};

// Builds maps of one schedule; keeps what does not change from pass to pass.
class MapBuilder {
 public:
  explicit MapBuilder(RowTable& table) : table_(table) {}
  // `map` is one of the schedule's, known by address. ids: [from rows, slots], copies of experts as RankCounts has
  // them; ignored by maps that go by counts. Throws std::logic_error when ids and counts disagree.
  void build(HostMap& out, const IndexMap& map, const RankCounts& counts, RowOffsets& offsets,
             std::span<const std::int32_t> ids, int slots);

 private:
  struct Target {                                       // of a map
    std::unordered_map<std::uint64_t, std::size_t> at;  // segment of `to` by chunk, source, dest and expert
    std::vector<int> dest_of;                           // by copy: the dest that stands for its rank; -1: not here
  };
  const Target& target(const IndexMap& map, const RankCounts& counts);
  void free_rows(const IndexMap& map, const RankCounts& counts, RowOffsets& offsets);

  RowTable& table_;
  std::unordered_map<const IndexMap*, Target> targets_;
  struct Free {
    std::size_t next = 0, left = 0;
  };
  std::vector<Free> free_;    // by segment of `to`: where its next row goes, and how many are to come
  std::vector<int> reached_;  // by a token
};

// Once, without keeping anything.
HostMap build_map(const Schedule& schedule, const IndexMap& map, const RankGroups& groups, const RankCounts& counts,
                  int me, std::span<const std::int32_t> ids, int slots);

}  // namespace topomoe
