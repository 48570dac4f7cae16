// A rehearsal: the MoE layer of a plan, forward and (in training) backward, executed by as many ranks as
// the plan has, on the plan's own schedule, and checked.
//
// Ranks, groups, chunks, steps, experts and top-k are the plan's. Tensors (hidden, ffn, tokens) may be
// scaled down until they fit the machine. Weights and tokens are drawn from a seed, and the router decides:
// routing is then nearly uniform, whatever profile the plan was made for. Pipeline stages run the layer side
// by side. Ignored: attention and dense parts, gradient reduction, router losses, and all that unexecuted() names.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/moe_layer.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

// What to scale to. Zero: chosen so that the budget is kept; `as_planned` keeps everything.
struct SizeRequest {
  bool as_planned = false;
  std::int64_t hidden = 0, ffn = 0, tokens = 0;
};
// Parses "auto", "none", "hidden=128,tokens=64". Throws InvalidInput.
SizeRequest size_request_from(const std::string& text, const std::string& field);

// What a run may take on one machine that carries all ranks: what sizes are chosen for, and what none may exceed.
struct Budget {
  double memory_bytes = 1 << 30;
  double flops = 2e10;
  double memory_limit_bytes = 4.0 * (1 << 30);
};

struct RehearsalSize {
  LayerShape shape;
  std::int64_t tokens = 0;  // that one TP group holds
  double memory_bytes = 0;  // of all ranks, estimated
  double flops = 0;         // of all ranks, forward and backward
  std::string note;         // "hidden 4096 -> 128, ..."; empty where nothing was scaled
};
// ffn stays divisible by etp, hidden at least 16, tokens at least one for each chunk and TP rank where the plan
// has as many. Throws InvalidInput for sizes that cannot be run, and where the memory limit is exceeded.
RehearsalSize choose_size(const Plan& plan, const SizeRequest& request, const Budget& budget);

// What the plan's model or job asks for and this runtime does not execute yet: one line each.
std::vector<std::string> unexecuted(const Plan& plan);

// The plan as if all its MoE layers were of that kind (Model::moe_kinds): what rehearse() runs is the first's.
// Throws InvalidInput where it has none.
Plan plan_of_kind(Plan plan, int kind);

struct RehearsalRequest {
  RehearsalSize size;
  std::uint64_t seed = 1;
  int repeat = 1;  // times and trace are the last one's
  bool verify = false;
  std::optional<std::chrono::seconds> deadline;  // of every wait; default: 2 minutes in the layer, 10 between runs
  std::optional<LayerOptions> memory;            // default memory_of_plan()
};

// Buffers as the plan has them: of the tokens that are run, with the plan's skew. Of a layer that drops tokens: 0, as
// which are dropped must not depend on rounds.
LayerOptions memory_of_plan(const Plan& plan, const RehearsalSize& size);

// By link class, as far as ranks know: inside a node (NVLink) and between nodes (NICs). Of all ranks, one run.
struct ClassBytes {
  double inside = 0, between = 0;
  bool operator==(const ClassBytes&) const = default;
};

// The largest difference over the largest value of the reference.
struct Deviation {
  double difference = 0, largest = 0;
  double relative() const { return largest > 0 ? difference / largest : difference; }
};

struct VerifiedTensor {
  std::string name;
  Deviation deviation;
};

struct RankTrace {
  double forward_begin_s = 0, backward_begin_s = 0;  // since the ranks set off together
  std::vector<StepTrace> forward, backward;
};

inline constexpr std::size_t kRunsKept = 16;

struct RehearsalReport {
  ClassBytes predicted_payload, counted_payload, predicted_metadata, counted_metadata;
  std::vector<RankTrace> ranks;  // of the last repetition, of its last round
  // The same of each repetition, the last of them last: at most kRunsKept, and of three or more not the first, which
  // opens connections and touches pages.
  std::vector<std::vector<RankTrace>> runs;
  std::vector<double> seconds;           // of each repetition, slowest rank
  std::int64_t overflow_rounds = 0;      // of the last repetition: forwards beyond the one that was asked for
  std::vector<VerifiedTensor> verified;  // empty without `verify`
  double bound = 0;                      // on each Deviation::relative()
  // Not judged where there were further rounds: each cuts its own tokens over the TP group, and tells its own counts.
  bool bytes_agree() const {
    return overflow_rounds > 0 || (predicted_payload == counted_payload && predicted_metadata == counted_metadata);
  }
  bool values_agree() const;
  int token_copies = 1;          // ranks that inject each token: TP where all of a TP group inject the same
  std::int64_t dropped() const;  // choices (token, expert) beyond capacity, each once
};

// Bound on the deviation from double precision: fp32 sums in another order; bf16 rounds tokens, activations and
// outputs to 8 bits on the way (weights and inputs of the reference are rounded as the layer's are).
double verification_bound(DType dtype);

// Collective over `communicator`, whose size must be the plan's world. Rank 0 gets the report, the others nothing.
// Throws as MoeLayer does, and InvalidInput where ranks hold different plans.
std::optional<RehearsalReport> rehearse(const Plan& plan, const RehearsalRequest& request, Communicator& communicator,
                                        Device& device);

}  // namespace topomoe
