// Which layouts of a model fit a number of GPUs at all: divisibility, nodes and batch; not memory, not time.
//
// TP divides heads and lies within a node, PP cuts layers so that no stage exceeds the mean by over 10 %
// (61 and 94 layers have no useful divisors), DP divides the batch, ETP is 1 or TP (where EP is 1 also other
// parts of a node: MoEShard), EP divides experts; DP and EDP follow. CP cuts causal sequences in 2 CP equal parts
// (the even halves of ring attention) of at least 1,024 tokens a rank, unless fixed. Where EP and EDP both exceed
// 1, both expert orders are listed. How a layout is run (virtual stages, micro-batch, recomputation, ZeRO) is a
// variant.
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
  bool edp_inner = true;                  // EP groups strided over nodes
  bool pipeline = true;                   // pp > 1
  bool context_parallel = true;           // cp > 1
  bool virtual_stages = true;             // vpp > 1
  bool kv_heads_divide = false;           // kv_heads % tp == 0, no head held twice
  bool needs_sequence_parallel = false;   // in training, for MoE with tp > 1
  bool sharded_experts = true;            // MoEShard: etp > tp
  bool expert_tensor = true;              // etp > 1
  bool chunked = true;                    // token movement in chunks beside the experts
  int most_zero = 3;                      // of ZeRO's stages; Megatron-LM has a distributed optimizer, or none
  std::map<std::string, int> transports;  // of which it has an equivalent, up to that EP; empty: all
};
TargetLimits target_limits(std::string_view name);  // throws InvalidInput listing the known ones

// Keys are tp, cp, dp, pp, etp, ep, edp; vpp (virtual stages of a pipeline rank), mbs (micro-batch), zero (0 to 3).
struct LayoutConstraints {
  std::map<std::string, int> fix;
  std::map<std::string, int> max;
  // ZeRO's highest stage where neither of them names one. 2 and 3 take more of the network than any measured step that
  // this planner was held against: a search looks at them when nothing fits without, or when asked.
  int unasked_zero = 1;
  TargetLimits target;
};
// DeepEP's Buffer::get_dispatch_config knows no more ranks; Megatron-LM sizes its buffers by it.
constexpr int kMostDeepEpRanks = 160;
constexpr int kMostZero = 3;  // stages of ZeRO
// Each text is "tp=8" or "tp=8,pp=2". Throws InvalidInput("--fix", ...) naming the key and the known ones.
LayoutConstraints parse_constraints(const std::vector<std::string>& fix, const std::vector<std::string>& max);

// In order of growing tp, pp, etp, ep, then ep_inner first. Infeasible names the constraint on which the
// last candidates failed, and a change of one thing after which some layout fits.
Expected<std::vector<Layout>, Infeasible> enumerate_layouts(int world, int gpus_per_node, const Model&, const Job&,
                                                            const LayoutConstraints& = {});

// How a layout is run.
struct Variant {
  int vpp = 1;
  int micro_batch = 1;
  Recompute recompute = Recompute::none;
  int zero = 1;
};
// Every way to run a layout that enumerate_layouts found: virtual stages that cut layers evenly (interleaving wants
// micro-batches in multiples of pp: Megatron-LM), micro-batches 1, 2, 4, ... that divide a rank's share of the batch,
// recomputation; each only as far as job and constraints leave it open. At least one. Stages of ZeRO run from the
// lowest (Layout::zero) upward and are the innermost: a higher one takes more time and less memory (planner/step_time),
// so it is worth a look only where the one before does not fit. Stage 0 only where asked for: it keeps the whole
// optimizer and sends as many bytes (an all-reduce is a reduce-scatter and an all-gather), so that it could only save a
// latency.
std::vector<Variant> variants(const Layout&, const Model&, const Job&, const LayoutConstraints& = {});

}  // namespace topomoe
