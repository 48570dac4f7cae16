#include "planner/sensitivity.hpp"

#include <algorithm>
#include <functional>

#include "planner/rates/machine_figures.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kFactor = 0.8;
constexpr std::size_t kCandidates = 6;

struct LoweredRate {
  const char* name;    // as in Sensitivity
  const char* target;  // as Edit names it
  std::function<double(const Topology&)> now;
};

double nvlink(const Topology& t) { return t.gpus_per_node() > 1 ? machine_figures(t).nvlink_GBps : 0; }
double nic(const Topology& t) {
  const auto& nics = t.templates.front().nics;
  return nics.empty() || t.node_count() < 2 ? 0 : nics.front().port.GBps_per_direction;
}
double uplink(const Topology& t) { return t.fabric ? t.fabric->uplink.GBps_per_direction : 0; }

const std::vector<LoweredRate>& lowered_rates() {
  static const std::vector<LoweredRate> rates = {
      {"compute", "gpu.bf16_TFLOPps", [](const Topology& t) { return t.gpu_spec(0).bf16_TFLOPps; }},
      {"hbm", "gpu.hbm_GBps", [](const Topology& t) { return t.gpu_spec(0).hbm_GBps; }},
      {"nvlink", "nvlink.GBps", nvlink},
      {"nic", "nic.GBps", nic},
      {"uplink", "uplink.GBps", uplink}};
  return rates;
}

}  // namespace

std::vector<Sensitivity> find_sensitivity(const Search& s, const Candidate& chosen,
                                          const std::vector<Candidate>& priced) {
  std::vector<const Candidate*> candidates{&chosen};
  for (std::size_t i = 0; i < priced.size() && candidates.size() < kCandidates; ++i)
    if (run_name(priced[i].layout, priced[i].job) != run_name(chosen.layout, chosen.job) ||
        name(priced[i].algorithm) != name(chosen.algorithm))
      candidates.push_back(&priced[i]);
  std::vector<Sensitivity> out;
  for (const LoweredRate& rate : lowered_rates()) {
    const double now = rate.now(s.request.topology);
    if (now <= 0) continue;
    PlanRequest changed = s.request;
    changed.topology = edit(s.request.topology, {{Edit::Kind::set, rate.target, now * kFactor}});
    Search there(changed);
    const Candidate* best = nullptr;
    Algorithm best_algorithm;
    double best_ms = 0;
    for (const Candidate* candidate : candidates) {
      const Candidate& c = *candidate;
      const double tokens = there.tokens(c.job, c.layout);
      const StepCosts costs = step_costs(changed.model, c.job, c.layout, stage_classes(changed.model, c.layout),
                                         there.layer_costs(c.job, c.layout),
                                         step_curves(c.layout, there.machine, there.gpus_per_node()), there.machine);
      const Algorithm algorithm = there.prices.best_of(c.layout, tokens, c.algorithm, costs.moe_forwards);
      const double ms = step_time(costs, {algorithm.forward_s, algorithm.backward_s, algorithm.idle_s}).total_ms();
      if (best == nullptr || ms < best_ms * (best == &chosen ? 0.99 : 1 - 1e-9))
        best = &c, best_algorithm = algorithm, best_ms = ms;
    }
    if (best == nullptr) continue;
    // Another number of chunks is the same choice.
    const bool changes = run_name(best->layout, best->job) != run_name(chosen.layout, chosen.job) ||
                         best_algorithm.split != chosen.algorithm.split ||
                         best_algorithm.transport != chosen.algorithm.transport;
    out.push_back({rate.name, kFactor, best_ms, changes, run_name(best->layout, best->job), name(best_algorithm)});
  }
  return out;
}

}  // namespace topomoe
