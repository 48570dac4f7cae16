// Points on threads; each takes the next point that nobody has.

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "planner/whatif/whatif.hpp"

namespace topomoe {
namespace {

using Status = WhatIfOutcome::Status;

void drop_what_is_not_shown(Plan& plan) {
  plan.ranks = {}, plan.expert_owners = {}, plan.routing.histogram = {};
  plan.schedule.buffers = {}, plan.schedule.maps = {};
  for (auto* pass : {&plan.schedule.forward, &plan.schedule.backward})
    for (Step& step : *pass) {
      Step kept;
      kept.name = std::move(step.name), kept.kind = step.kind, kept.phase = step.phase, kept.lane = step.lane;
      step = std::move(kept);
    }
}

WhatIfOutcome outcome_of(const WhatIf& w, const WhatIfPoint& point, const std::shared_ptr<PlanCache>& cache) {
  WhatIfOutcome outcome;
  try {
    PlanRequest request = request_at(w, point);
    request.cache = cache;
    request.flips = false;  // the sweep shows what changes the choice
    auto found = make_plan(request);
    if (found) {
      outcome.status = Status::planned;
      outcome.plan = *std::move(found);
      drop_what_is_not_shown(*outcome.plan);
    } else {
      outcome.status = Status::infeasible;
      outcome.reason = found.error().message();
    }
  } catch (const InvalidInput& e) {
    outcome.status = Status::refused;
    outcome.reason = e.what();
  }
  return outcome;
}

// An edit that fits no point is a slip: throws what the first of them is refused for.
void require_edits_fit(const WhatIf& w, std::size_t points) {
  std::exception_ptr refused;
  for (std::size_t i = 0; i < points; ++i) {
    const WhatIfPoint point = point_at(w, i);
    if (!point.edited) continue;
    try {
      request_at(w, point);
      return;
    } catch (const InvalidInput&) {
      if (!refused) refused = std::current_exception();
    }
  }
  if (refused) std::rethrow_exception(refused);
}

}  // namespace

const char* name(Status status) {
  constexpr const char* kNames[] = {"not computed", "planned", "infeasible", "refused"};
  return kNames[static_cast<int>(status)];
}

std::vector<WhatIfOutcome> run_what_if(const WhatIf& w, const WhatIfRun& run) {
  std::vector<WhatIfOutcome> outcomes(point_count(w));
  require_edits_fit(w, outcomes.size());
  std::mutex mutex;  // guards all below
  std::size_t next = 0, done = 0;
  std::exception_ptr failed;
  const auto work = [&] {
    const auto cache = new_plan_cache();
    std::unique_lock lock(mutex);
    while (next < outcomes.size() && !failed && !(run.cancel != nullptr && run.cancel->load())) {
      WhatIfOutcome& mine = outcomes[next];
      const WhatIfPoint point = point_at(w, next++);
      lock.unlock();
      try {
        mine = outcome_of(w, point, cache);
        lock.lock();
        ++done;
        if (run.progress) run.progress(done, outcomes.size());
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        failed = std::current_exception();
      }
    }
  };
  std::vector<std::thread> others;
  const std::size_t threads = std::min(outcomes.size(), static_cast<std::size_t>(std::max(1, run.threads)));
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  if (failed) std::rethrow_exception(failed);
  const auto refused = [](const WhatIfOutcome& o) { return o.status == Status::refused; };
  // Said as make_plan says it, since it is the question that is wrong.
  if (std::all_of(outcomes.begin(), outcomes.end(), refused)) make_plan(request_at(w, point_at(w, 0)));
  return outcomes;
}

const LinkClassLoad* busiest_link(const Plan& plan) {
  const auto busiest = std::max_element(plan.loads.begin(), plan.loads.end(),
                                        [](const auto& a, const auto& b) { return a.busy_us < b.busy_us; });
  return busiest == plan.loads.end() ? nullptr : &*busiest;
}

double gpu_seconds_per_token(const Plan& plan, double step_ms) {
  return step_ms * 1e-3 * plan.layout.world / tokens_per_step(plan.job);
}

}  // namespace topomoe
