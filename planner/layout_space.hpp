// Which layouts of a model fit a number of GPUs at all: divisibility, nodes and batch; not memory, not time.
//
// TP divides heads and lies within a node, PP cuts layers so that no stage exceeds the mean by over 10 %
// (61 and 94 layers have no useful divisors), DP divides the batch, ETP is 1 or TP (any, if fixed, where
// EP is 1: MoEShard), EP divides experts; DP and EDP follow. CP is 1 unless fixed, VPP is 1. Where EP and
// EDP both exceed 1, both expert orders are listed.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "topomoe/error.hpp"
#include "topomoe/job.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/model.hpp"

namespace topomoe {

// What the training stack that shall run the plan can express.
struct TargetLimits {
  std::string name = "any";
  bool edp_inner = true;         // EP groups strided over nodes
  bool pipeline = true;          // pp > 1
  bool context_parallel = true;  // cp > 1
};
TargetLimits target_limits(std::string_view name);  // throws InvalidInput listing the known ones

// Keys are tp, cp, dp, pp, etp, ep, edp.
struct LayoutConstraints {
  std::map<std::string, int> fix;
  std::map<std::string, int> max;
  TargetLimits target;
};
// Each text is "tp=8" or "tp=8,pp=2". Throws InvalidInput("--fix", ...) naming the key and the known ones.
LayoutConstraints parse_constraints(const std::vector<std::string>& fix, const std::vector<std::string>& max);

// In order of growing tp, pp, etp, ep, then ep_inner first. Infeasible names the constraint on which the
// last candidates failed, and a change of one thing after which some layout fits.
Expected<std::vector<Layout>, Infeasible> enumerate_layouts(int world, int gpus_per_node, const Model&, const Job&,
                                                            const LayoutConstraints& = {});

}  // namespace topomoe
