#include "planner/timeline.hpp"

namespace topomoe {

std::vector<Interval> run_timeline(std::span<const Task> tasks, int resources) {
  std::vector<Flow> flows;
  flows.reserve(tasks.size());
  for (const Task& t : tasks) {
    Flow& f = flows.emplace_back(Flow{t.alone_s, 1, {}, static_cast<int>(t.lane), t.after});
    if (t.alone_s <= 0) continue;
    f.uses.reserve(t.uses.size());
    for (const auto& [resource, seconds] : t.uses) f.uses.emplace_back(resource, seconds / t.alone_s);
  }
  return run_fluid(flows, std::vector<double>(static_cast<std::size_t>(resources), 1.0));
}

}  // namespace topomoe
