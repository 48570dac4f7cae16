// The timeline of a schedule: when each of its steps runs if resources are shared fairly.
//
// A task is a step that is issued on a lane (in order), waits for others, and asks for shares of
// resources. Alone it takes alone_s and uses seconds_i of resource i (at full rate). Running tasks
// advance at speeds s <= 1 (fraction of alone speed); on each resource sum(s * seconds_i / alone_s) <= 1;
// speeds are max-min fair. That is planner/fluid with a queue a lane. Contention needs no special case: it
// is two tasks on one resource. Ignored: packet effects, fairness among flows of a task.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "planner/fluid.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

struct Task {
  Lane lane = Lane::compute;
  double alone_s = 0;
  std::vector<std::pair<int, double>> uses;  // resource, seconds at its full rate; each <= alone_s
  std::vector<int> after;                    // indices of earlier tasks
};

// Intervals of the tasks; tasks of a lane start in order of index. Resource ids are 0 .. resources-1.
std::vector<Interval> run_timeline(std::span<const Task> tasks, int resources);

}  // namespace topomoe
