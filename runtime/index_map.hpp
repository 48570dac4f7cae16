// Builds the index maps of a schedule from ids and counts (DESIGN 6: maps are 0/1 matrices; see
// include/topomoe/schedule.hpp). Pure host arithmetic.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/counts.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

struct HostMap {
  int slots = 1;                            // places a `from` row can go to: top_k, or 1 for a repack
  std::vector<std::int32_t> position;       // [from rows, slots] -> row of `to`, -1: none
  std::vector<std::int32_t> source_row;     // [to rows] -> row of `from`
  std::vector<std::int32_t> source_factor;  // [to rows] -> row * slots + slot that sent it: index of its weight
};

// ids: [from rows, slots], the experts of each row; ignored by maps that go by counts.
// Throws std::logic_error when ids and counts disagree.
HostMap build_map(const Schedule& schedule, const IndexMap& map, const RankGroups& groups, const RankCounts& counts,
                  int me, std::span<const std::int32_t> ids, int slots);

}  // namespace topomoe
