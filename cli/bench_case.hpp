// What `topomoe bench` runs, from its options or from a plan.
#pragma once

#include <optional>
#include <string>

#include "cli/bench_contest.hpp"
#include "runtime/rehearsal.hpp"

namespace topomoe::cli {

struct BenchOptions : ContestOptions {
  std::string backend = "inproc", bytes = "1M", token_bytes, dtype = "f32", dispatch_dtype = "as_job";
  int ranks = 0, per_host = 0, tp = 1, ep = 0, etp = 0, top_k = 2, experts = 0, ffn = 0, warmup = 1, repeat = 5,
      threads = 1;
  bool edp_inner = false, forward_only = false;
  double skew = 0, rate_GBps = 0, rate_TFLOPps = 0;
  std::uint64_t seed = 1;
  std::string plan, shrink = "auto";  // instead of a layout, sizes and routing
  int kind = 0;
  std::string host;  // what this rank's machine is called
  bool remap = false;
};

// As few ranks as the layout needs, unless more are asked for.
int ranks_of(const BenchOptions& options);
BenchCase case_of(const BenchOptions& options, int world, int per_host);

// The plan's layers of options.kind. Throws as read_plan does.
Plan plan_of(const BenchOptions& options);
// That plan's, scaled as `run` scales it, but hidden stays at least as wide as there are experts; routing is drawn from
// the plan's profile.
BenchCase case_of(const BenchOptions& options, const Plan& plan, Budget budget);

}  // namespace topomoe::cli
