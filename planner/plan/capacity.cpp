#include "planner/plan/capacity.hpp"

#include <algorithm>
#include <cmath>

#include "topomoe/plan.hpp"

namespace topomoe {
namespace {

// Standard deviations of rows drawn one by one (at most Poisson's): one pass in millions has more. Assumed: draws are
// independent, as routing profiles have them.
constexpr double kDeviations = 5;

// Of all chunks together: they are alike.
class SkewedCounts final : public CountSource {
 public:
  SkewedCounts(const Schedule& s, const RankGroups& groups, const RowWidths& widths, const ExpertPlacement& placement,
               const Capacity& c, int rank)
      : CountSource(placement), groups_(groups), experts_(placement.experts()), top_k_(widths.top_k) {
    const Layout& l = groups.layout();
    held_ = l.sequence_parallel ? c.tokens / l.tp : c.tokens;
    injected_ = s.intake == Intake::as_held    ? held_
                : s.intake == Intake::tp_slice ? held_ / groups.size(Role::tp)
                                               : held_ * groups.size(Role::tp);
    const int parts = groups.size(Role::ep);
    busy_ = groups.index_in(Role::ep, rank);
    of_busy_ = std::min(1.0, c.skew / parts);
    of_others_ = parts > 1 ? (1 - of_busy_) / (parts - 1) : 0;
  }
  double count(Symbol symbol, int, int, int index) const override {
    switch (symbol) {
      case Symbol::held: return held_;
      case Symbol::tokens: return injected_;
      case Symbol::pairs: {
        const int place = placement().place_of(index);
        return injected_ * top_k_ * share(place) / static_cast<double>(placement().held_by(place).size());
      }
      case Symbol::rank_tokens: return injected_ * reached(share(groups_.index_in(Role::ep, index)));
      case Symbol::node_tokens: {
        double all = 0;
        for (const int rank : groups_.members(Role::node, index)) all += share(groups_.index_in(Role::ep, rank));
        return injected_ * reached(all);
      }
    }
    return 0;
  }

 private:
  double share(int place) const { return place == busy_ ? of_busy_ : of_others_; }
  // That one of k draws with replacement hits; without, it is a little more often, up to all of them.
  double reached(double share) const {
    double miss = 1;
    const double each = share * experts_;  // experts, as it were
    for (int i = 0; i < static_cast<int>(top_k_); ++i) miss *= std::max(0.0, (experts_ - each - i) / (experts_ - i));
    return 1 - miss;
  }

  const RankGroups& groups_;
  int experts_, busy_ = 0;
  double top_k_, held_ = 0, injected_ = 0, of_busy_ = 1, of_others_ = 0;
};

}  // namespace

double routed_skew(std::span<const double> popularity, const ExpertPlacement& placement, int top_k) {
  std::vector<double> rows(static_cast<std::size_t>(placement.places()));
  double all = 0;
  for (int copy = 0; copy < placement.copies(); ++copy) {
    const int expert = placement.expert_of(copy);
    const double chosen =
        std::min(1.0, top_k * popularity[static_cast<std::size_t>(expert)]) / placement.replicas(expert);
    rows[static_cast<std::size_t>(placement.place_of(copy))] += chosen, all += chosen;
  }
  // Rounded, an even share may come out a little below 1.
  return all > 0 ? std::max(1.0, *std::max_element(rows.begin(), rows.end()) * static_cast<double>(rows.size()) / all)
                 : 1;
}

Capacity capacity_of(const Plan& p, int kind) {
  const MoeKind k = moe_kind(p.model, kind);
  const auto& owners = kind == 0 ? p.expert_owners : p.later_kinds[static_cast<std::size_t>(kind) - 1].expert_owners;
  const ExpertPlacement placement(k.experts, p.layout.ep, owners);
  return {p.tokens_per_rank, routed_skew(expert_popularity(p.routing, k.experts), placement, k.top_k)};
}

SlotBytes capacity_bytes(const Schedule& schedule, const RankGroups& groups, const RowWidths& widths,
                         const ExpertPlacement& placement, const Capacity& capacity, int rank) {
  const SkewedCounts counts(schedule, groups, widths, placement, capacity, rank);
  SlotBytes out;
  for (auto& pass : out) pass.assign(Slots(schedule).size(), 0);
  for (const SlotSize& s : slot_sizes(schedule, widths)) {
    // Chunks are alike: those of one, times how many.
    const Buffer& b = schedule.buffers[static_cast<std::size_t>(s.rows.buffer)];
    Buffer one = b;
    one.chunks = {0, 1};
    View view = s.rows;
    const Chunks chunks = view.chunks.value_or(b.chunks);
    if (view.chunks) view.chunks = one.chunks;
    const double part = b.symbol == Symbol::held ? 1 : static_cast<double>(chunks.end - chunks.begin) / schedule.chunks;
    const double rows = part * rows_of(one, view, groups, counts, rank, rank);
    const bool drawn = b.symbol != Symbol::held && b.symbol != Symbol::tokens;
    const double room = std::ceil(rows + (drawn ? kDeviations * std::sqrt(rows) : 0));
    out[s.backward][s.slot] = std::max<std::size_t>(1, static_cast<std::size_t>(std::ceil(s.bytes(room))));
  }
  return out;
}

LayerBytes layer_bytes(const Schedule& schedule, const RankGroups& groups, const RowWidths& widths,
                       const ExpertPlacement& placement, const Capacity& capacity, int rank) {
  const BufferPlan plan = plan_buffers(schedule, capacity_bytes(schedule, groups, widths, placement, capacity, rank));
  return {plan.pass_bytes[0], plan.pass_bytes[1], plan.saved_bytes};
}

}  // namespace topomoe
