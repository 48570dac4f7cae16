#include "runtime/drawn_traffic.hpp"

#include "runtime/settle.hpp"

namespace topomoe {

DrawnCounts::DrawnCounts(const Schedule& schedule, const RankGroups& groups, const LayerShape& shape,
                         const HeldBy& held, const IdsOf& ids)
    : CountSource({shape.experts, groups.layout().ep, shape.expert_owners}) {
  for (int rank = 0; rank < groups.layout().world; ++rank) {
    auto counts = std::make_unique<RankCounts>(schedule, groups, rank, placement());
    for (const int member : groups.members(Role::tp, rank)) counts->set_held(member, held(member));
    auto chosen = ids(rank);
    std::vector<std::int64_t> used;
    settle(chosen, shape, placement(), used);
    counts->set_routing(chosen, shape.top_k);
    ranks_.push_back(std::move(counts));
  }
}

double DrawnCounts::count(Symbol symbol, int chunk, int source, int index) const {
  return of(source).count(symbol, chunk, source, index);
}

void each_transfer(const Schedule& schedule, const std::vector<Step>& steps, const RankGroups& groups,
                   const LayerShape& shape, const DrawnCounts& counts, const VisitTraffic& visit) {
  const RowWidths widths = row_widths(shape, groups.layout().etp, groups.layout().tp);
  for (const Step& step : steps) {
    if (step.kind != StepKind::exchange && step.kind != StepKind::all_gather && step.kind != StepKind::counts_exchange)
      continue;
    for (int rank = 0; rank < groups.layout().world; ++rank)
      for (const int peer : groups.members(step.group, rank)) {
        if (peer == rank) continue;
        double bytes = 0;
        if (step.kind == StepKind::counts_exchange) {
          for (const CountSlice& slice : step.slices)
            bytes += 4.0 * static_cast<double>(counts.of(rank).size_of(slice, rank, peer));
        } else {
          const View& sent = step.in[0];
          bytes = rows_of(schedule, sent, groups, counts, rank, peer) *
                  row_bytes(schedule.buffers[static_cast<std::size_t>(sent.buffer)], widths);
        }
        visit(step, rank, peer, bytes);
      }
  }
}

}  // namespace topomoe
