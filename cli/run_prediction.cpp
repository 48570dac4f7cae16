#include "cli/run_prediction.hpp"

#include "planner/exchange_price.hpp"
#include "planner/rates/same_machine.hpp"

namespace topomoe::cli {

LayerWidths priced_widths(const LayerShape& s, const Layout& layout) {
  return {static_cast<double>(s.hidden), static_cast<double>(s.ffn) / layout.etp, static_cast<double>(s.experts),
          static_cast<double>(s.top_k),  static_cast<double>(size_of(s.dtype)),   s.gated ? 3 : 2};
}

RunPrediction predict_run(const Plan& plan, const RehearsalSize& size, const Topology& topology,
                          const std::vector<Calibration>& calibrations, RanksOn ranks) {
  const LayerShape& s = size.shape;
  const ExchangeOffer offer{.layout = plan.layout,
                            .gpus_per_node = topology.gpus_per_node(),
                            .widths = priced_widths(s, plan.layout),
                            .popularity = std::vector<double>(static_cast<std::size_t>(s.experts), 1.0 / s.experts),
                            .tokens = static_cast<double>(size.tokens),
                            .dtype = s.dtype};
  ExchangePricer pricer(topology, calibrations, offer);
  RunPrediction out{pricer.price_layer(plan.schedule, false), {}, {}, {}};
  const bool trains = plan.job.phase == Phase::train;
  if (trains) out.backward = pricer.price_layer(plan.schedule, true);
  std::vector<Calibration> alike = calibrations;
  if (ranks == RanksOn::host && computes_on_gpus(topology.gpu_spec(0)))
    std::erase_if(alike, [](const Calibration& c) { return !of_host_memory(c); });
  const ExchangePricer of_alike(topology, alike, offer);
  std::array<double, kLaneCount> sum_us{};
  for (const bool back : {false, true}) {
    const auto& steps = back ? plan.schedule.backward : plan.schedule.forward;
    const auto& predicted = (back ? out.backward : out.forward).steps;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const auto lane = static_cast<std::size_t>(steps[i].lane);
      if (!of_alike.measured(steps[i])) out.carried[lane] = true;
      const double spread = pricer.spread(steps[i]);
      if (i >= predicted.size() || spread == 0) continue;
      const double us = predicted[i].end_us - predicted[i].begin_us;
      sum_us[lane] += us, out.spread[lane] += us * spread;
    }
  }
  for (std::size_t lane = 0; lane < sum_us.size(); ++lane)
    if (sum_us[lane] > 0) out.spread[lane] /= sum_us[lane];
  return out;
}

}  // namespace topomoe::cli
