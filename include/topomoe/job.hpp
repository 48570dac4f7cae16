// A Job: what is asked of the model, apart from how it is laid out over GPUs.
//
// One optimizer step (train) or one forward pass (prefill, decode) over `global_batch` sequences, cut
// into micro-batches of `micro_batch` sequences per data-parallel rank. All sequences have the same
// length. Ignored: packing, variable lengths, continuous batching, prefill beside decode.
#pragma once

#include <cstdint>
#include <string_view>

#include "topomoe/device.hpp"

namespace topomoe {

// prefill: all tokens of `sequence` at once. decode: one new token a sequence, `sequence` tokens of KV cache.
enum class Phase : std::uint8_t { train, prefill, decode };

// What backward computes again instead of keeping it (planner/memory states the exact lists).
// full: each layer from its input. selective: outputs of norms and activations, MLA up-projections.
// automatic: the planner chooses; in requests only, never in a plan.
enum class Recompute : std::uint8_t { none, selective, full, automatic };

// automatic: on where tp > 1 in training (Megatron demands it for MoE with TP), off otherwise.
enum class SequenceParallel : std::uint8_t { automatic, off, on };

// In which form tokens travel to the experts in a forward: as they are, or as fp8 with a scale for each 128 values
// (fp8_row.hpp), which is the user's choice, as experts then see rounded tokens. What travels back, and all of a
// backward, is in the job's dtype; gradients are those of the rounded tokens, as if rounding had a slope of 1.
enum class DispatchDType : std::uint8_t { as_job, fp8 };

struct Job {
  Phase phase = Phase::train;
  int sequence = 4096;        // tokens
  int micro_batch = 1;        // sequences per data-parallel rank; 0: the planner chooses (requests only)
  int global_batch = 256;     // sequences
  DType dtype = DType::bf16;  // of weights and activations
  Recompute recompute = Recompute::none;
  SequenceParallel sequence_parallel = SequenceParallel::automatic;
  double capacity_factor = 0;  // GShard's; 0: no token is ever dropped
  DispatchDType dispatch_dtype = DispatchDType::as_job;

  bool operator==(const Job&) const = default;
};

// T of DESIGN 5: tokens that one TP group holds in one micro-batch.
double tokens_per_micro_batch(const Job&, int cp);
// That one step takes in; in decode that it puts out.
double tokens_per_step(const Job&);
// Micro-batches of one data-parallel rank in a step.
int micro_batches(const Job&, int dp);

std::string_view to_string(Phase);
std::string_view to_string(Recompute);
std::string_view to_string(SequenceParallel);
std::string_view to_string(DType);
std::string_view to_string(DispatchDType);  // "as_job", "fp8"
// Throw InvalidInput(field, text, known names).
Phase phase_from(std::string_view text, std::string_view field = "phase");
Recompute recompute_from(std::string_view text, std::string_view field = "recompute");
SequenceParallel sequence_parallel_from(std::string_view text, std::string_view field = "sequence_parallel");
DType dtype_from(std::string_view text, std::string_view field = "dtype");
DispatchDType dispatch_dtype_from(std::string_view text, std::string_view field = "dispatch_dtype");

// Throws InvalidInput("<where>: <field>", ...) unless all sizes are positive, global_batch % micro_batch == 0 and
// nothing is left to choose.
void check(const Job&, std::string_view where = "job");
// The same for a job of a request, which may leave micro-batch and recomputation to the planner.
void check_request(const Job&, std::string_view where = "job");

}  // namespace topomoe
