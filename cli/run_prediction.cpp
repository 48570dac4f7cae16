#include "cli/run_prediction.hpp"

#include "planner/exchange_price.hpp"

namespace topomoe::cli {

LayerWidths priced_widths(const LayerShape& s, const Layout& layout) {
  return {static_cast<double>(s.hidden), static_cast<double>(s.ffn) / layout.etp, static_cast<double>(s.experts),
          static_cast<double>(s.top_k),  static_cast<double>(size_of(s.dtype)),   3};
}

RunPrediction predict_run(const Plan& plan, const RehearsalSize& size, const Topology& topology,
                          const std::vector<Calibration>& calibrations) {
  const LayerShape& s = size.shape;
  ExchangePricer pricer(topology, calibrations,
                        {.layout = plan.layout,
                         .gpus_per_node = topology.gpus_per_node(),
                         .widths = priced_widths(s, plan.layout),
                         .popularity = std::vector<double>(static_cast<std::size_t>(s.experts), 1.0 / s.experts),
                         .tokens = static_cast<double>(size.tokens),
                         .dtype = s.dtype});
  RunPrediction out{pricer.price_layer(plan.schedule, false), {}, {}};
  if (plan.job.phase == Phase::train) out.backward = pricer.price_layer(plan.schedule, true);
  for (const auto* steps : {&plan.schedule.forward, &plan.schedule.backward})
    for (const Step& step : *steps)
      if (!pricer.measured(step)) out.carried[static_cast<std::size_t>(step.lane)] = true;
  return out;
}

}  // namespace topomoe::cli
