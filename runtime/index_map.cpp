#include "runtime/index_map.hpp"

#include <algorithm>
#include <string>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Key = std::uint64_t;

// A place in the target: at most 2^8 chunks, 2^19 ranks, 2^16 experts, and -1 for "none".
Key key(int chunk, int source, int dest, int expert) {
  const auto part = [](int x) { return static_cast<Key>(static_cast<unsigned>(x + 1)); };
  return part(expert) | part(dest) << 17 | part(source) << 36 | static_cast<Key>(static_cast<unsigned>(chunk)) << 56;
}

// Whether a segment lies in a view of its buffer, and not without rows.
bool inside(const RowRange& view, double begin, double end) {
  return begin < end && begin >= view.offset && end <= view.offset + view.rows;
}

}  // namespace

const MapBuilder::Target& MapBuilder::target(const IndexMap& map, const RankCounts& counts) {
  const auto [at, fresh] = targets_.try_emplace(&map);
  Target& t = at->second;
  if (!fresh) return t;
  const Buffer& to = table_.schedule().buffers[static_cast<std::size_t>(map.to.buffer)];
  const auto& segments = table_.segments(map.to.buffer);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    t.at.emplace(key(s.chunk, s.source, s.dest, s.expert), i);
  }
  if (map.ids.buffer < 0) return t;
  const RankGroups& groups = table_.groups();
  std::vector<int> dests;
  groups.expand(map.to.dests.value_or(to.dests), table_.rank(), table_.rank(), dests);
  std::vector<int> dest_of_place;
  for (const int owner : groups.members(Role::ep, table_.rank())) {
    int dest = -1;  // itself, or for node_tokens the member on its node
    for (const int d : dests)
      if (to.symbol == Symbol::node_tokens ? groups.node_index(d) == groups.node_index(owner) : d == owner) dest = d;
    dest_of_place.push_back(dest);
  }
  const ExpertPlacement& placement = counts.placement();
  for (int copy = 0; copy < placement.copies(); ++copy)
    t.dest_of.push_back(dest_of_place[static_cast<std::size_t>(placement.place_of(copy))]);
  return t;
}

void MapBuilder::free_rows(const IndexMap& map, const RankCounts& counts, RowOffsets& offsets) {
  const RowRange view = offsets.resolve(table_, counts, map.to, table_.rank());
  const auto& starts = offsets.offsets(table_, counts, map.to.buffer);
  free_.assign(starts.size() - 1, {});
  for (std::size_t i = 0; i < free_.size(); ++i)
    if (inside(view, starts[i], starts[i + 1]))
      free_[i] = {static_cast<std::size_t>(starts[i] - view.offset),
                  static_cast<std::size_t>(starts[i + 1] - starts[i])};
}

void MapBuilder::build(HostMap& out, const IndexMap& map, const RankCounts& counts, RowOffsets& offsets,
                       std::span<const std::int32_t> ids, int slots) {
  const Schedule& schedule = table_.schedule();
  const bool by_ids = map.ids.buffer >= 0;
  const Symbol symbol = schedule.buffers[static_cast<std::size_t>(map.to.buffer)].symbol;
  const Target& to = target(map, counts);
  free_rows(map, counts, offsets);
  const RowRange view = offsets.resolve(table_, counts, map.from, table_.rank());
  const auto& segments = table_.segments(map.from.buffer);
  const auto& starts = offsets.offsets(table_, counts, map.from.buffer);
  std::size_t from_rows = 0, to_rows = 0, placed = 0;
  for (std::size_t i = 0; i < segments.size(); ++i)
    if (inside(view, starts[i], starts[i + 1])) from_rows += static_cast<std::size_t>(starts[i + 1] - starts[i]);
  for (const Free& f : free_) to_rows += f.left;

  out.slots = by_ids ? slots : 1;
  out.position.assign(from_rows * static_cast<std::size_t>(out.slots), -1);
  out.source_row.assign(to_rows, -1);
  out.source_factor.assign(to_rows, -1);
  const auto place = [&](Key k, std::size_t row, std::size_t slot) {
    const auto it = to.at.find(k);
    if (it == to.at.end() || free_[it->second].left < 1)
      throw std::logic_error("topomoe bug: schedule " + schedule.name + ", map " + map.name +
                             ": ids and counts disagree on rank " + std::to_string(table_.rank()));
    Free& f = free_[it->second];
    const std::size_t at = f.next++;
    --f.left, ++placed;
    const std::size_t factor = row * static_cast<std::size_t>(out.slots) + slot;
    out.position[factor] = static_cast<std::int32_t>(at);
    out.source_row[at] = static_cast<std::int32_t>(row);
    out.source_factor[at] = static_cast<std::int32_t>(factor);
  };
  if (by_ids) TOPOMOE_ASSERT(ids.size() == from_rows * static_cast<std::size_t>(slots));
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (!inside(view, starts[i], starts[i + 1])) continue;
    const Segment& s = segments[i];
    const auto first = static_cast<std::size_t>(starts[i] - view.offset),
               end = static_cast<std::size_t>(starts[i + 1] - view.offset);
    for (std::size_t row = first; row < end; ++row) {
      if (!by_ids) {
        place(key(s.chunk, s.source, s.dest, s.expert), row, 0);
        continue;
      }
      reached_.clear();
      for (std::size_t slot = 0; slot < static_cast<std::size_t>(slots); ++slot) {
        const int copy = ids[row * static_cast<std::size_t>(slots) + slot];
        if (counts.owner(copy) < 0) continue;  // throws where there is no such copy
        const int dest = to.dest_of[static_cast<std::size_t>(copy)];
        if (dest < 0) continue;
        if (symbol != Symbol::pairs) {  // once, whatever the number of experts there
          if (std::find(reached_.begin(), reached_.end(), dest) != reached_.end()) continue;
          reached_.push_back(dest);
        }
        place(key(s.chunk, s.source, dest, symbol == Symbol::pairs ? copy : -1), row, slot);
      }
    }
  }
  if (placed != to_rows)
    throw std::logic_error("topomoe bug: schedule " + schedule.name + ", map " + map.name + ": " +
                           std::to_string(placed) + " rows placed of " + std::to_string(to_rows) + " on rank " +
                           std::to_string(table_.rank()));
}

HostMap build_map(const Schedule& schedule, const IndexMap& map, const RankGroups& groups, const RankCounts& counts,
                  int me, std::span<const std::int32_t> ids, int slots) {
  RowTable table(schedule, groups, me, counts.placement());
  RowOffsets offsets;
  HostMap out;
  MapBuilder(table).build(out, map, counts, offsets, ids, slots);
  return out;
}

}  // namespace topomoe
