#include "planner/timeline.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

struct Running {
  int task;
  double left;  // fraction of the task still to do
  double speed = 0;
  bool fixed = false;
};

// Max-min fair speeds: all unfixed speeds rise together until a task reaches 1 or a resource is full, which
// fixes the tasks on it.
void share(std::vector<Running>& running, std::span<const Task> tasks, std::vector<double>& load,
           std::vector<double>& rising) {
  for (Running& r : running) r.speed = 0, r.fixed = false;
  std::size_t open = running.size();
  const auto each_use = [&](const Running& r, auto f) {
    const Task& t = tasks[static_cast<std::size_t>(r.task)];
    for (const auto& [resource, seconds] : t.uses) f(static_cast<std::size_t>(resource), seconds / t.alone_s);
  };
  for (const Running& r : running) each_use(r, [&](std::size_t i, double) { load[i] = 0; });
  double level = 0;
  while (open > 0) {
    for (const Running& r : running) each_use(r, [&](std::size_t i, double) { rising[i] = 0; });
    for (const Running& r : running)
      if (!r.fixed) each_use(r, [&](std::size_t i, double u) { rising[i] += u; });
    double step = 1 - level;
    for (const Running& r : running)
      if (!r.fixed)
        each_use(r, [&](std::size_t i, double) {
          if (rising[i] > 0) step = std::min(step, std::max(0.0, (1 - load[i]) / rising[i]));
        });
    level += step;
    for (const Running& r : running)
      if (!r.fixed) each_use(r, [&](std::size_t i, double u) { load[i] += u * step; });
    std::size_t fixed_now = 0;
    for (Running& r : running) {
      if (r.fixed) continue;
      bool full = level >= 1 - 1e-12;
      each_use(r, [&](std::size_t i, double u) { full |= u > 0 && load[i] >= 1 - 1e-12; });
      if (full) r.speed = level, r.fixed = true, ++fixed_now;
    }
    TOPOMOE_ASSERT(fixed_now > 0);
    open -= fixed_now;
  }
}

}  // namespace

std::vector<Interval> run_timeline(std::span<const Task> tasks, int resources) {
  std::vector<Interval> out(tasks.size());
  std::array<std::vector<int>, kLaneCount> queues;
  std::array<std::size_t, kLaneCount> heads{};
  std::array<bool, kLaneCount> busy{};
  for (std::size_t i = 0; i < tasks.size(); ++i)
    queues[static_cast<std::size_t>(tasks[i].lane)].push_back(static_cast<int>(i));
  std::vector<bool> done(tasks.size(), false);
  std::vector<double> load(static_cast<std::size_t>(resources)), rising(static_cast<std::size_t>(resources));
  std::vector<Running> running;
  double now = 0;
  std::size_t finished = 0;
  while (finished < tasks.size()) {
    bool progressed = true;
    while (progressed) {  // tasks of no length finish at once and may release others
      progressed = false;
      for (std::size_t lane = 0; lane < kLaneCount; ++lane) {
        if (busy[lane] || heads[lane] == queues[lane].size()) continue;
        const int id = queues[lane][heads[lane]];
        const Task& t = tasks[static_cast<std::size_t>(id)];
        if (!std::all_of(t.after.begin(), t.after.end(), [&](int a) { return done[static_cast<std::size_t>(a)]; }))
          continue;
        ++heads[lane];
        progressed = true;
        out[static_cast<std::size_t>(id)].begin_s = now;
        if (t.alone_s <= 0) {
          out[static_cast<std::size_t>(id)].end_s = now;
          done[static_cast<std::size_t>(id)] = true;
          ++finished;
        } else {
          busy[lane] = true;
          running.push_back({id, 1.0});
        }
      }
    }
    if (finished == tasks.size()) break;
    TOPOMOE_ASSERT(!running.empty());  // else the schedule waits for itself
    share(running, tasks, load, rising);
    double next = std::numeric_limits<double>::infinity();
    for (const Running& r : running)
      next = std::min(next, r.left * tasks[static_cast<std::size_t>(r.task)].alone_s / r.speed);
    now += next;
    for (Running& r : running) r.left -= next * r.speed / tasks[static_cast<std::size_t>(r.task)].alone_s;
    std::erase_if(running, [&](const Running& r) {
      if (r.left > 1e-9) return false;
      const auto id = static_cast<std::size_t>(r.task);
      out[id].end_s = now;
      done[id] = true;
      busy[static_cast<std::size_t>(tasks[id].lane)] = false;
      ++finished;
      return true;
    });
  }
  return out;
}

}  // namespace topomoe
