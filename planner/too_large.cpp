// When no layout fits into memory: what needs least, and the smallest change after which something fits, tried in
// this order: recomputation, ZeRO where the request bounds it, more GPUs, more memory.

#include <algorithm>
#include <cmath>
#include <limits>

#include "fmt/format.h"
#include "planner/search_state.hpp"

namespace topomoe {
namespace {

struct Least {
  double GiB = std::numeric_limits<double>::infinity();
  Layout layout;
  Job job;
};

// The candidate that needs least, of all ways to run the layouts.
Least least(Search& s, const Job& asked, const std::vector<Layout>& layouts) {
  const TokenSplit split =
      s.request.split == name(TokenSplit::replicated) ? TokenSplit::replicated : TokenSplit::sliced;
  Least out;
  for (const Layout& layout : layouts)
    for (const Variant& v : variants(layout, s.request.model, asked, s.constraints)) {
      Layout l = layout;
      l.vpp = v.vpp, l.zero = v.zero;
      Job job = asked;
      job.micro_batch = v.micro_batch, job.recompute = v.recompute;
      const double GiB = in_GiB(s.memory(job, l, split).total());
      if (GiB < out.GiB) out = {GiB, l, job};
    }
  return out;
}

}  // namespace

Infeasible too_large(Search& s, const std::vector<Layout>& layouts) {
  const PlanRequest& r = s.request;
  const Least now = least(s, r.job, layouts);
  const auto buckets = s.memory(now.job, now.layout, TokenSplit::sliced).buckets();
  const auto largest =
      std::max_element(buckets.begin(), buckets.end(), [](auto& a, auto& b) { return a.second < b.second; });
  const std::string constraint =
      fmt::format("memory: the smallest layout ({}) needs {:.1f} GiB a GPU ({} {:.1f}), the limit is {:.1f} GiB",
                  name(now.layout), now.GiB, largest->first, in_GiB(largest->second), s.limit_GiB);
  if (r.job.phase == Phase::train && (r.job.recompute == Recompute::none || r.job.recompute == Recompute::selective)) {
    Job job = r.job;
    job.recompute = Recompute::full;
    if (const Least l = least(s, job, layouts); l.GiB <= s.limit_GiB)
      return {constraint, fmt::format("--recompute full fits: {:.1f} GiB with {}", l.GiB, name(l.layout))};
  }
  LayoutConstraints& asked = s.constraints;
  if (asked.fix.erase("zero") + asked.max.erase("zero") > 0) {
    std::vector<Layout> free = layouts;
    for (Layout& l : free) l.zero = 1;
    asked.unasked_zero = kMostZero;
    if (const Least l = least(s, r.job, free); l.GiB <= s.limit_GiB)
      return {constraint, fmt::format("zero={} fits: {:.1f} GiB with {}", l.layout.zero, l.GiB, name(l.layout))};
    asked = parse_constraints(r.fix, r.max);
    asked.target = target_limits(r.target);
    asked.unasked_zero = kMostZero;
  }
  for (int factor = 2; factor <= 1024 && r.topology.gpu_count() <= 10'000'000 / factor; factor *= 2) {
    const int world = r.topology.gpu_count() * factor;
    const auto more = enumerate_layouts(world, s.gpus_per_node(), r.model, r.job, s.constraints);
    if (!more) continue;
    if (const Least l = least(s, r.job, *more); l.GiB <= s.limit_GiB)
      return {constraint, fmt::format("--gpus {} fits: {:.1f} GiB with {}", world, l.GiB, name(l.layout))};
  }
  return {constraint, fmt::format("--memory-GiB {:.0f} would be needed", std::ceil(now.GiB))};
}

}  // namespace topomoe
