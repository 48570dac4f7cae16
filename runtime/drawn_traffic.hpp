// What a schedule moves once the router has chosen: its size expressions, evaluated on drawn counts for every
// rank and peer. The same expressions that the planner binds to expectations; no step knows about this.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/counts.hpp"
#include "topomoe/moe_layer.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

// Counts of all ranks: what no single rank knows, for whoever looks at the whole.
class DrawnCounts final : public CountSource {
 public:
  // ids: experts of the tokens that `rank` injects, [rows, top_k], as its router chose them.
  using IdsOf = std::function<std::vector<std::int32_t>(int rank)>;
  using HeldBy = std::function<std::int64_t(int rank)>;
  DrawnCounts(const Schedule& schedule, const RankGroups& groups, const LayerShape& shape, const HeldBy& held,
              const IdsOf& ids);

  double count(Symbol symbol, int chunk, int source, int index) const override;
  const RankCounts& of(int rank) const { return *ranks_[static_cast<std::size_t>(rank)]; }

 private:
  std::vector<std::unique_ptr<RankCounts>> ranks_;
};

// Calls visit(step, rank, peer, bytes) for what `rank` sends to each other rank in each communicating step.
using VisitTraffic = std::function<void(const Step& step, int rank, int peer, double bytes)>;
void each_transfer(const Schedule& schedule, const std::vector<Step>& steps, const RankGroups& groups,
                   const LayerShape& shape, const DrawnCounts& counts, const VisitTraffic& visit);

}  // namespace topomoe
