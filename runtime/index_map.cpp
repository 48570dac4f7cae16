#include "runtime/index_map.hpp"

#include <string>
#include <unordered_map>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Key = std::uint64_t;

// A place in the target: at most 2^8 chunks, 2^19 ranks, 2^16 experts, and -1 for "none".
Key key(int chunk, int source, int dest, int expert) {
  const auto part = [](int x) { return static_cast<Key>(static_cast<unsigned>(x + 1)); };
  return part(expert) | part(dest) << 17 | part(source) << 36 | static_cast<Key>(static_cast<unsigned>(chunk)) << 56;
}

// Segments of the view's buffer that lie in the view, rows counted from the view's start.
std::vector<Segment> segments_in(const Schedule& schedule, const View& view, const RankGroups& groups,
                                 const RankCounts& counts, int me) {
  const Buffer& b = schedule.buffers[static_cast<std::size_t>(view.buffer)];
  const RowRange range = resolve(schedule, view, groups, counts, me, me);
  std::vector<Segment> inside;
  for (Segment s : segments_of(b, groups, counts, me)) {
    if (s.rows == 0 || s.offset < range.offset || s.offset + s.rows > range.offset + range.rows) continue;
    s.offset -= range.offset;
    inside.push_back(s);
  }
  return inside;
}

}  // namespace

HostMap build_map(const Schedule& schedule, const IndexMap& map, const RankGroups& groups, const RankCounts& counts,
                  int me, std::span<const std::int32_t> ids, int slots) {
  const Buffer& target = schedule.buffers[static_cast<std::size_t>(map.to.buffer)];
  const bool by_ids = map.ids.buffer >= 0;
  const auto from = segments_in(schedule, map.from, groups, counts, me);
  const auto to = segments_in(schedule, map.to, groups, counts, me);
  std::size_t from_rows = 0, to_rows = 0;
  for (const Segment& s : from) from_rows += static_cast<std::size_t>(s.rows);
  std::unordered_map<Key, Segment> places;  // offset moves on as rows are placed
  for (const Segment& s : to) {
    to_rows += static_cast<std::size_t>(s.rows);
    places.emplace(key(s.chunk, s.source, s.dest, s.expert), s);
  }

  HostMap out;
  out.slots = by_ids ? slots : 1;
  out.position.assign(from_rows * static_cast<std::size_t>(out.slots), -1);
  out.source_row.assign(to_rows, -1);
  out.source_factor.assign(to_rows, -1);
  std::size_t placed = 0;
  const auto place = [&](Key k, std::size_t row, std::size_t slot) {
    const auto it = places.find(k);
    if (it == places.end() || it->second.rows < 1)
      throw std::logic_error("topomoe bug: schedule " + schedule.name + ", map " + map.name +
                             ": ids and counts disagree on rank " + std::to_string(me));
    const auto at = static_cast<std::size_t>(it->second.offset);
    it->second.offset += 1, it->second.rows -= 1, ++placed;
    const std::size_t factor = row * static_cast<std::size_t>(out.slots) + slot;
    out.position[factor] = static_cast<std::int32_t>(at);
    out.source_row[at] = static_cast<std::int32_t>(row);
    out.source_factor[at] = static_cast<std::int32_t>(factor);
  };

  if (!by_ids) {
    for (const Segment& s : from)
      for (std::size_t i = 0; i < static_cast<std::size_t>(s.rows); ++i)
        place(key(s.chunk, s.source, s.dest, s.expert), static_cast<std::size_t>(s.offset) + i, 0);
  } else {
    TOPOMOE_ASSERT(ids.size() == from_rows * static_cast<std::size_t>(slots));
    std::vector<int> dests;
    groups.expand(map.to.dests.value_or(target.dests), me, me, dests);
    // The dest that stands for a rank: itself, or for node_tokens the member on its node; -1: not here.
    std::unordered_map<int, int> stands_for;
    for (const int member : groups.members(Role::ep, me)) {
      int dest = -1;
      for (const int d : dests)
        if (target.symbol == Symbol::node_tokens ? groups.node_index(d) == groups.node_index(member) : d == member)
          dest = d;
      stands_for[member] = dest;
    }
    std::vector<int> reached;
    for (const Segment& s : from)
      for (std::size_t i = 0; i < static_cast<std::size_t>(s.rows); ++i) {
        const std::size_t row = static_cast<std::size_t>(s.offset) + i;
        reached.clear();
        for (std::size_t slot = 0; slot < static_cast<std::size_t>(slots); ++slot) {
          const int expert = ids[row * static_cast<std::size_t>(slots) + slot];
          const int dest = stands_for.at(counts.owner(expert));
          if (dest < 0) continue;
          if (target.symbol != Symbol::pairs) {  // once, whatever the number of experts there
            bool seen = false;
            for (const int d : reached) seen |= d == dest;
            if (seen) continue;
            reached.push_back(dest);
          }
          place(key(s.chunk, s.source, dest, target.symbol == Symbol::pairs ? expert : -1), row, slot);
        }
      }
  }
  if (placed != to_rows)
    throw std::logic_error("topomoe bug: schedule " + schedule.name + ", map " + map.name + ": " +
                           std::to_string(placed) + " rows placed of " + std::to_string(to_rows) + " on rank " +
                           std::to_string(me));
  return out;
}

}  // namespace topomoe
