// Where views lie, as resolve() says, without listing a buffer's segments for every view and peer: which segments a
// buffer has, and which of them a view selects, is the same in every pass; only their rows change.
//
// Views are known by address: they must be those of the schedule that the table was made for. Counts are integers.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

class RowTable {
 public:
  RowTable(const Schedule& schedule, const RankGroups& groups, int rank, const ExpertPlacement& placement)
      : schedule_(schedule), groups_(groups), rank_(rank), placement_(placement), segments_(schedule.buffers.size()) {}

  // In the buffer's order; offsets and rows are left 0.
  const std::vector<Segment>& segments(int buffer);
  // [first, last) of the buffer's segments that the view selects, in runs of neighbours. For views with selectors.
  using Runs = std::vector<std::pair<std::size_t, std::size_t>>;
  const Runs& runs(const View& view, int peer);

  const Schedule& schedule() const { return schedule_; }
  const RankGroups& groups() const { return groups_; }
  int rank() const { return rank_; }

 private:
  struct Key {
    const View* view;
    int peer;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& k) const {
      return std::hash<const View*>()(k.view) * 31 + static_cast<std::size_t>(k.peer);
    }
  };
  const Schedule& schedule_;
  const RankGroups& groups_;
  int rank_;
  ExpertPlacement placement_;
  std::vector<std::vector<Segment>> segments_;
  std::unordered_map<Key, Runs, Hash> runs_;
};

// Rows by the counts of one forward, and of its backward.
class RowOffsets {
 public:
  // Forgets all rows, as counts have changed.
  void clear();
  RowRange resolve(RowTable& table, const CountSource& counts, const View& view, int peer);
  // Of the whole buffer: of all its blocks, of its own part where it is split.
  double rows(RowTable& table, const CountSource& counts, int buffer);
  // First row of each segment, and the end.
  const std::vector<double>& offsets(RowTable& table, const CountSource& counts, int buffer);

 private:
  struct OfBuffer {
    bool known = false;
    std::vector<double> offsets;
  };
  std::vector<OfBuffer> buffers_;
};

}  // namespace topomoe
