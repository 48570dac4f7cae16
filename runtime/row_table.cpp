#include "runtime/row_table.hpp"

#include <algorithm>
#include <stdexcept>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

bool per_token(Symbol s) { return s == Symbol::held || s == Symbol::tokens; }
bool selects(const View& v) { return v.chunks || v.sources || v.dests; }

// Counts of a schedule's identity alone.
class NoRows final : public CountSource {
 public:
  using CountSource::CountSource;
  double count(Symbol, int, int, int) const override { return 0; }
};

RowRange cut(RowRange range, const Split& split, const RankGroups& groups, int rank) {
  const int parts = groups.size(split.role), index = groups.index_in(split.role, rank);
  const auto n = static_cast<std::int64_t>(range.rows);
  const auto begin = part_begin(n, parts, index);
  return {range.offset + static_cast<double>(begin), static_cast<double>(part_begin(n, parts, index + 1) - begin)};
}

}  // namespace

const std::vector<Segment>& RowTable::segments(int buffer) {
  auto& known = segments_[static_cast<std::size_t>(buffer)];
  if (known.empty())
    known = segments_of(schedule_.buffers[static_cast<std::size_t>(buffer)], groups_, NoRows(placement_), rank_);
  return known;
}

const RowTable::Runs& RowTable::runs(const View& view, int peer) {
  const auto [at, fresh] = runs_.try_emplace({&view, peer});
  Runs& runs = at->second;
  if (!fresh) return runs;
  const Buffer& b = schedule_.buffers[static_cast<std::size_t>(view.buffer)];
  std::vector<int> sources, dests;
  groups_.expand(view.sources.value_or(b.sources), rank_, peer, sources);
  if (!per_token(b.symbol)) groups_.expand(view.dests.value_or(b.dests), rank_, peer, dests);
  const Chunks chunks = view.chunks.value_or(b.chunks);
  const auto has = [](const std::vector<int>& set, int x) { return std::find(set.begin(), set.end(), x) != set.end(); };
  const auto& all = segments(view.buffer);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Segment& s = all[i];
    if (s.chunk < chunks.begin || s.chunk >= chunks.end || !has(sources, s.source)) continue;
    if (!per_token(b.symbol) && !has(dests, s.dest)) continue;
    if (runs.empty() || runs.back().second != i) runs.emplace_back(i, i);
    ++runs.back().second;
  }
  return runs;
}

void RowOffsets::clear() {
  for (OfBuffer& b : buffers_) b.known = false;
}

const std::vector<double>& RowOffsets::offsets(RowTable& table, const CountSource& counts, int buffer) {
  if (buffers_.empty()) buffers_.resize(table.schedule().buffers.size());
  OfBuffer& known = buffers_[static_cast<std::size_t>(buffer)];
  if (known.known) return known.offsets;
  const Symbol symbol = table.schedule().buffers[static_cast<std::size_t>(buffer)].symbol;
  known.offsets.assign(1, 0);
  double offset = 0;
  for (const Segment& s : table.segments(buffer))
    known.offsets.push_back(offset +=
                            counts.count(symbol, s.chunk, s.source, symbol == Symbol::pairs ? s.expert : s.dest));
  known.known = true;
  return known.offsets;
}

double RowOffsets::rows(RowTable& table, const CountSource& counts, int buffer) {
  const Buffer& b = table.schedule().buffers[static_cast<std::size_t>(buffer)];
  RowRange range{0, offsets(table, counts, buffer).back()};
  if (b.split) range = cut(range, *b.split, table.groups(), table.rank());
  return b.blocks ? range.rows * table.groups().size(*b.blocks) : range.rows;
}

RowRange RowOffsets::resolve(RowTable& table, const CountSource& counts, const View& view, int peer) {
  const RankGroups& groups = table.groups();
  const int rank = table.rank();
  const auto who = [&](Who w) { return w == Who::me ? rank : peer; };
  const Buffer& b = table.schedule().buffers[static_cast<std::size_t>(view.buffer)];
  const std::vector<double>& offsets = this->offsets(table, counts, view.buffer);
  RowRange range;
  if (selects(view)) {
    TOPOMOE_ASSERT(!b.split && !b.blocks);
    for (const auto& [first, last] : table.runs(view, peer)) {
      const double rows = offsets[last] - offsets[first];
      if (rows == 0) continue;
      if (range.rows == 0) range.offset = offsets[first];
      if (range.offset + range.rows != offsets[first])
        throw std::logic_error("schedule " + table.schedule().name + ": view of buffer " + b.name +
                               " is not consecutive");
      range.rows += rows;
    }
  } else {
    range.rows = offsets.back();
    if (b.split) range.rows = cut({0, range.rows}, *b.split, groups, rank).rows;
  }
  if (b.blocks) {
    if (view.block)
      range.offset = range.rows * groups.index_in(*b.blocks, who(*view.block));
    else
      range.rows *= groups.size(*b.blocks);
  }
  return view.split ? cut(range, *view.split, groups, who(view.split->who)) : range;
}

}  // namespace topomoe
