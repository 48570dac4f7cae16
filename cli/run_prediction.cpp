#include "cli/run_prediction.hpp"

#include "planner/price.hpp"

namespace topomoe::cli {

RunPrediction predict_run(const Plan& plan, const RehearsalSize& size, const Topology& topology,
                          const std::vector<Calibration>& calibrations) {
  const LayerShape& s = size.shape;
  const Router router(topology);
  TrafficModel traffic(router);
  const Machine machine = machine_of(topology, s.dtype, calibrations);
  const RankGroups groups(plan.layout, topology.gpus_per_node());
  const RoutingOdds odds(std::vector<double>(static_cast<std::size_t>(s.experts), 1.0 / s.experts), s.top_k);
  const LayerWidths widths{static_cast<double>(s.hidden),         static_cast<double>(s.ffn) / plan.layout.etp,
                           static_cast<double>(s.experts),        static_cast<double>(s.top_k),
                           static_cast<double>(size_of(s.dtype)), 3};
  LayerPricer pricer(traffic, machine, groups, widths, odds, static_cast<double>(size.tokens));
  RunPrediction out{pricer.price(plan.schedule, false), {}};
  if (plan.job.phase == Phase::train) out.backward = pricer.price(plan.schedule, true);
  return out;
}

}  // namespace topomoe::cli
