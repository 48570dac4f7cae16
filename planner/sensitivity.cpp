#include "planner/sensitivity.hpp"

#include <algorithm>
#include <initializer_list>

namespace topomoe {
namespace {

constexpr double kFactor = 0.8;
constexpr std::size_t kCandidates = 6;

// All rates of a kind times kFactor, degraded ones too. False where the cluster has none.
using Lower = bool (*)(Topology&);

bool lower_gpu(Topology& t, std::initializer_list<double GpuSpec::*> figures) {
  bool any = false;
  for (HostTemplate& host : t.templates)
    for (const auto figure : figures) any |= host.gpu.*figure > 0, host.gpu.*figure *= kFactor;
  return any;
}
bool lower_links(Topology& t, std::initializer_list<LinkKind> kinds) {
  bool any = false;
  for (HostTemplate& host : t.templates) {
    host.shape.reset();  // the graph is no longer what the shape says
    for (Link& link : host.links)
      if (std::find(kinds.begin(), kinds.end(), link.kind) != kinds.end())
        link.GBps_per_direction *= kFactor, any = true;
  }
  return any;
}

struct LoweredRate {
  const char* name;  // as in Sensitivity
  Lower lower;
};

constexpr LoweredRate kRates[] = {
    {"compute",
     [](Topology& t) {
       return lower_gpu(t, {&GpuSpec::bf16_TFLOPps, &GpuSpec::fp32_TFLOPps, &GpuSpec::fp8_TFLOPps});
     }},
    {"hbm", [](Topology& t) { return lower_gpu(t, {&GpuSpec::hbm_GBps}); }},
    {"nvlink",
     [](Topology& t) {
       return lower_links(t, {LinkKind::nvlink, LinkKind::xgmi});
     }},
    {"pcie",
     [](Topology& t) {
       return lower_links(t, {LinkKind::pcie, LinkKind::cpu_root});
     }},
    {"nic",
     [](Topology& t) {
       if (t.node_count() < 2) return false;
       for (HostTemplate& host : t.templates) {
         host.shape.reset();
         for (Nic& nic : host.nics) nic.port.GBps_per_direction *= kFactor;
       }
       return true;
     }},
    {"uplink",
     [](Topology& t) {
       if (!t.fabric || t.fabric->uplink.GBps_per_direction <= 0 || t.leaf_count() < 2) return false;
       t.fabric->uplink.GBps_per_direction *= kFactor;
       t.fabric->oversubscription /= kFactor;
       return true;
     }},
};

}  // namespace

std::vector<Sensitivity> find_sensitivity(const Search& s, const Candidate& chosen,
                                          const std::vector<Candidate>& priced) {
  std::vector<const Candidate*> candidates{&chosen};
  for (std::size_t i = 0; i < priced.size() && candidates.size() < kCandidates; ++i)
    if (run_name(priced[i].layout, priced[i].job) != run_name(chosen.layout, chosen.job) ||
        algorithms_name(priced[i]) != algorithms_name(chosen))
      candidates.push_back(&priced[i]);
  std::vector<Sensitivity> out;
  for (const LoweredRate& rate : kRates) {
    PlanRequest changed = s.request;
    changed.cache = s.cache;
    if (!rate.lower(changed.topology)) continue;
    Search there(changed);
    const Candidate* best = nullptr;
    Candidate best_there;  // its algorithms
    double best_ms = 0;
    for (const Candidate* candidate : candidates) {
      const Candidate& c = *candidate;
      const double tokens = there.tokens(c.job, c.layout);
      const StepCosts costs = step_costs(changed.model, c.job, c.layout, stage_classes(changed.model, c.layout),
                                         there.layer_costs(c.job, c.layout),
                                         step_curves(c.layout, there.machine, there.gpus_per_node()), there.machine);
      const Algorithm algorithm = there.prices.best_of(c.layout, tokens, c.algorithm, costs.moe_forwards);
      Candidate with;
      with.algorithm = algorithm;
      for (std::size_t kind = 0; kind < c.later.size(); ++kind)
        with.later.push_back(there.later_prices[kind].best_of(c.layout, tokens, c.later[kind], costs.moe_forwards));
      const double ms = there.time(c.layout, costs, with.algorithm, with.later).total_ms();
      if (best == nullptr || ms < best_ms * (best == &chosen ? 0.99 : 1 - 1e-9))
        best = &c, best_there = with, best_ms = ms;
    }
    // Another number of chunks is the same choice.
    bool changes = run_name(best->layout, best->job) != run_name(chosen.layout, chosen.job) ||
                   best_there.algorithm.split != chosen.algorithm.split ||
                   best_there.algorithm.transport != chosen.algorithm.transport;
    for (std::size_t kind = 0; kind < chosen.later.size(); ++kind)
      changes |= best_there.later[kind].split != chosen.later[kind].split ||
                 best_there.later[kind].transport != chosen.later[kind].transport;
    out.push_back(
        {rate.name, kFactor, best_ms, changes, run_name(best->layout, best->job), algorithms_name(best_there)});
  }
  return out;
}

}  // namespace topomoe
