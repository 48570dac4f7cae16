// Reading a schedule: who is in a RankSet, which rows a declaration means, where a view lies.

#include "topomoe/schedule.hpp"

#include <algorithm>

#include "planner/plan/schedule_rules.hpp"
#include "topomoe/error.hpp"
#include "topomoe/fp8_row.hpp"

namespace topomoe {

RankGroups::RankGroups(const Layout& layout, int gpus_per_node) : layout_(layout), gpus_per_node_(gpus_per_node) {}

std::span<const int> RankGroups::members(Role role, int rank) const {
  const auto r = static_cast<std::size_t>(role);
  if (known_.size() <= r) known_.resize(r + 1);
  const auto [at, fresh] = known_[r].try_emplace(rank);
  if (fresh) at->second = topomoe::members(layout_, role, rank, gpus_per_node_);
  return at->second;
}

int RankGroups::index_in(Role role, int rank) const {
  const auto group = members(role, rank);  // ascending
  return static_cast<int>(std::lower_bound(group.begin(), group.end(), rank) - group.begin());
}

int RankGroups::size(Role role) const { return static_cast<int>(members(role, 0).size()); }

void RankGroups::expand(const RankSet& set, int me, int peer, std::vector<int>& out) const {
  out.assign(1, set.base == Who::me ? me : peer);
  for (const Role role : set.spread) {
    std::vector<int> wider;
    for (const int rank : out) {
      const auto group = members(role, rank);
      wider.insert(wider.end(), group.begin(), group.end());
    }
    out = std::move(wider);
  }
}

int RankGroups::node_index(int rank) const {
  // Nodes in the order in which the EP group meets them.
  int index = -1, last_node = -1;
  for (const int member : members(Role::ep, rank)) {
    const int node = member / gpus_per_node_;
    if (node != last_node) ++index, last_node = node;
    if (node == rank / gpus_per_node_) return index;
  }
  return index;
}

namespace {

bool per_expert(Symbol s) { return s == Symbol::pairs; }

// Calls visit(chunk, source, dest, expert) in the buffer's order.
template <class Visit>
void enumerate(const Buffer& b, std::span<const int> sources, std::span<const int> dests, Chunks chunks,
               const RankGroups& groups, const CountSource& counts, Visit visit) {
  const auto each_expert = [&](int dest, auto f) {
    if (!per_expert(b.symbol)) return f(-1);
    for (const int copy : counts.placement().held_by(groups.index_in(Role::ep, dest))) f(copy);
  };
  if (b.order == Order::by_token) {
    for (const int s : sources)
      for (int c = chunks.begin; c < chunks.end; ++c) visit(c, s, -1, -1);
    return;
  }
  const int unit = unit_of(b);
  for (int begin = chunks.begin; begin < chunks.end; begin += unit) {
    const int end = std::min(begin + unit, chunks.end);
    const auto each_chunk = [&](int s, int d, int e) {
      for (int c = begin; c < end; ++c) visit(c, s, d, e);
    };
    if (per_token(b.symbol))
      for (const int s : sources) each_chunk(s, -1, -1);
    else if (b.order == Order::by_source)
      for (const int s : sources)
        for (const int d : dests) each_expert(d, [&](int e) { each_chunk(s, d, e); });
    else if (b.order == Order::by_dest)
      for (const int d : dests)
        for (const int s : sources) each_expert(d, [&](int e) { each_chunk(s, d, e); });
    else
      for (const int d : dests)
        each_expert(d, [&](int e) {
          for (const int s : sources) each_chunk(s, d, e);
        });
  }
}

double count_of(const Buffer& b, const CountSource& counts, int c, int s, int d, int e) {
  return counts.count(b.symbol, c, s, per_expert(b.symbol) ? e : d);
}

RowRange cut(RowRange range, const Split& split, const RankGroups& groups, int me, int peer) {
  const int parts = groups.size(split.role);
  const int index = groups.index_in(split.role, split.who == Who::me ? me : peer);
  const auto n = static_cast<std::int64_t>(range.rows);
  if (range.rows != static_cast<double>(n)) return {range.offset, range.rows / parts};  // an expectation
  const auto begin = part_begin(n, parts, index);
  return {range.offset + static_cast<double>(begin), static_cast<double>(part_begin(n, parts, index + 1) - begin)};
}

// Held tokens have no chunks: one segment a source.
Chunks loop_chunks(const Buffer& b) { return b.symbol == Symbol::held ? Chunks{0, 1} : b.chunks; }

double buffer_rows(const Buffer& b, const RankGroups& groups, const CountSource& counts, int me) {
  std::vector<int> sources, dests;
  groups.expand(b.sources, me, me, sources);
  if (!per_token(b.symbol)) groups.expand(b.dests, me, me, dests);
  double rows = 0;
  enumerate(b, sources, dests, loop_chunks(b), groups, counts,
            [&](int c, int s, int d, int e) { rows += count_of(b, counts, c, s, d, e); });
  if (b.split) rows = cut({0, rows}, *b.split, groups, me, me).rows;
  return rows;
}

bool selects(const View& v) { return v.chunks || v.sources || v.dests; }

}  // namespace

int unit_of(const Buffer& b) {
  if (b.together > 0) return b.together;
  return b.order == Order::by_expert ? b.chunks.end - b.chunks.begin : 1;
}

std::vector<Segment> segments_of(const Buffer& b, const RankGroups& groups, const CountSource& counts, int me) {
  std::vector<int> sources, dests;
  groups.expand(b.sources, me, me, sources);
  if (!per_token(b.symbol)) groups.expand(b.dests, me, me, dests);
  std::vector<Segment> segments;
  double offset = 0;
  enumerate(b, sources, dests, loop_chunks(b), groups, counts, [&](int c, int s, int d, int e) {
    const double rows = count_of(b, counts, c, s, d, e);
    segments.push_back({c, s, d, e, offset, rows});
    offset += rows;
  });
  return segments;
}

RowRange resolve(const Schedule& schedule, const View& view, const RankGroups& groups, const CountSource& counts,
                 int me, int peer) {
  const Buffer& b = schedule.buffers[static_cast<std::size_t>(view.buffer)];
  RowRange range;
  if (selects(view)) {
    TOPOMOE_ASSERT(!b.split && !b.blocks);
    std::vector<int> sources, dests;
    groups.expand(view.sources.value_or(b.sources), me, peer, sources);
    if (!per_token(b.symbol)) groups.expand(view.dests.value_or(b.dests), me, peer, dests);
    const Chunks chunks = view.chunks.value_or(b.chunks);
    const auto has = [](const std::vector<int>& set, int x) {
      return std::find(set.begin(), set.end(), x) != set.end();
    };
    double end = 0;
    bool found = false;
    for (const Segment& s : segments_of(b, groups, counts, me)) {
      if (s.rows == 0 || s.chunk < chunks.begin || s.chunk >= chunks.end || !has(sources, s.source)) continue;
      if (!per_token(b.symbol) && !has(dests, s.dest)) continue;
      if (!found) range.offset = s.offset, end = s.offset;
      found = true;
      if (s.offset != end)
        throw std::logic_error("schedule " + schedule.name + ": view of buffer " + b.name + " is not consecutive");
      end = s.offset + s.rows;
    }
    range.rows = end - range.offset;
  } else {
    range.rows = buffer_rows(b, groups, counts, me);
  }
  if (b.blocks) {
    const int count = groups.size(*b.blocks);
    if (view.block) {
      range.offset = range.rows * groups.index_in(*b.blocks, *view.block == Who::me ? me : peer);
    } else {
      range.rows *= count;
    }
  }
  return view.split ? cut(range, *view.split, groups, me, peer) : range;
}

int root_of(const Schedule& schedule, int buffer) {
  for (int alias = buffer; alias >= 0; alias = schedule.buffers[static_cast<std::size_t>(alias)].alias) buffer = alias;
  return buffer;
}

double columns_of(const Buffer& b, const RowWidths& widths) {
  switch (b.columns) {
    case Columns::hidden: return widths.hidden;
    case Columns::ffn: return widths.ffn_shard;
    case Columns::top_k: return widths.top_k;
    case Columns::experts: return widths.experts;
    case Columns::shared_ffn: return widths.shared_shard;
  }
  return 0;
}

double row_bytes(const Buffer& b, const RowWidths& widths) {
  constexpr double kSidecarBytes = 4;  // f32 and i32
  if (b.element == Element::fp8)
    return static_cast<double>(fp8_row_bytes(static_cast<std::int64_t>(columns_of(b, widths))));
  return columns_of(b, widths) * (b.element == Element::payload ? widths.element_bytes : kSidecarBytes);
}

double rows_of(const Schedule& schedule, const View& view, const RankGroups& groups, const CountSource& counts, int me,
               int peer) {
  return rows_of(schedule.buffers[static_cast<std::size_t>(view.buffer)], view, groups, counts, me, peer);
}

double rows_of(const Buffer& b, const View& view, const RankGroups& groups, const CountSource& counts, int me,
               int peer) {
  const auto at = [&](RankSet set) {
    std::vector<int> ranks;
    groups.expand(set, me, peer, ranks);
    return ranks;
  };
  double rows = 0;
  if (selects(view)) {
    const auto sources = at(view.sources.value_or(b.sources));
    const auto dests = per_token(b.symbol) ? std::vector<int>{} : at(view.dests.value_or(b.dests));
    const Chunks chunks = b.symbol == Symbol::held ? Chunks{0, 1} : view.chunks.value_or(b.chunks);
    enumerate(b, sources, dests, chunks, groups, counts,
              [&](int c, int s, int d, int e) { rows += count_of(b, counts, c, s, d, e); });
  } else {
    rows = buffer_rows(b, groups, counts, me);
  }
  if (b.blocks && !view.block) rows *= groups.size(*b.blocks);
  return view.split ? cut({0, rows}, *view.split, groups, me, peer).rows : rows;
}

}  // namespace topomoe
