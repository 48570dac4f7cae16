// What a MoE layer is to whoever executes it: sizes, memory, weights, gradients, and what a step did.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "topomoe/device.hpp"
#include "topomoe/expert_matrices.hpp"
#include "topomoe/model.hpp"
#include "topomoe/placement.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

struct LayerShape {
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;  // of one expert, all shards
  int experts = 0, top_k = 1;
  bool renormalize = true;  // weights of the chosen experts sum to 1
  DType dtype = DType::f32;
  ExpertOwners expert_owners;  // empty: even blocks by id
  // GShard's, of the tokens that one rank injects (runtime/settle.hpp says what is counted); 0: none is dropped.
  double capacity_factor = 0;
  RouterOptions router = {};
  std::int64_t shared_ffn = 0;  // width of the shared expert, all shards; 0: none
  SharedGate shared_gate = SharedGate::none;
  bool gated = true;  // experts, the shared one too, are SwiGLU; else GELU without a gate (kernels/grouped_ffn.hpp)
  bool operator==(const LayerShape&) const = default;
};

inline RowWidths row_widths(const LayerShape& s, int etp, int tp) {
  return {static_cast<double>(s.hidden),         static_cast<double>(s.ffn / etp),
          static_cast<double>(s.top_k),          static_cast<double>(s.experts),
          static_cast<double>(size_of(s.dtype)), static_cast<double>(s.shared_ffn / tp)};
}

// Memory of bounded size. Planned once, for the `tokens` that a TP group holds and, of all routed rows, `skew` times
// the mean on any rank (a Plan's: planner/plan/capacity.hpp). What does not fit runs again on a part of the tokens, in
// the same memory (a Dispatcher's: each in its own), on all ranks alike: outputs are those of one pass, gradients of
// weights add up in another order.
// What rounds save for the backward takes what their rows need. 0 tokens: memory grows with what comes.
struct LayerOptions {
  double tokens = 0, skew = 1;
};
struct LayerCounters {
  std::int64_t overflow_rounds = 0;  // forwards beyond the one that each call asked for
};

// Device pointers. `local experts` are those that the rank's place in its EP group holds (ExpertPlacement::held_by), by
// id; in even blocks [E ep_index / EP, E (ep_index+1) / EP). `shard` is ffn / ETP; the shared expert is sharded over
// TP, as dense layers are: `its shard` is shared_ffn / TP. Of experts without a gate no gate is looked at.
struct LayerWeights {
  const float* router = nullptr;                 // [experts, hidden], on every rank
  ExpertMatrices gate = {}, up = {}, down = {};  // [local experts][shard, hidden], .., [hidden, shard]
  const float* selection_bias = nullptr;         // [experts], or null; learns by counts, not gradients
  const void *shared_gate = nullptr, *shared_up = nullptr, *shared_down = nullptr;  // [its shard, hidden], ..
  const float* mix = nullptr;  // [1 or 2, hidden] as SharedGate says, on every rank; else unused
};
struct LayerGradients {
  float* router = nullptr;                        // fp32, same shapes, added to
  ExpertGradients gate = {}, up = {}, down = {};  // may lie otherwise than the weights; all or none
  float *shared_gate = nullptr, *shared_up = nullptr, *shared_down = nullptr, *mix = nullptr;
};

// What the router of one pass did on this rank: the losses times their coefficients, and the choices by expert.
struct RouterReport {
  double balance_loss = 0, z_loss = 0;
  std::vector<std::int64_t> chosen;  // [experts]
};

// What one step did: seconds since the pass began, and bytes that this rank sent to others.
struct StepTrace {
  std::string name;
  StepKind kind = StepKind::copy;
  Lane lane = Lane::compute;
  bool backward = false;
  int chunk = -1;
  double begin_s = 0, end_s = 0;
  double payload_bytes = 0, metadata_bytes = 0;
  std::int64_t dropped = 0;  // of a route step: choices (token, slot) that found their expert full
};
// Of one pass.
struct PassTrace {
  std::chrono::steady_clock::time_point began;
  std::vector<StepTrace> steps;  // in issue order
};

}  // namespace topomoe
