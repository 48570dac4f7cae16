// dispatch and combine for programs with their own router and experts: a plan's exchange without its layer.
//
//   dispatch(tokens, ids, weights) -> what my experts are to compute, sorted by expert, and a handle
//   combine(handle) -> for each token the sum over its experts of weight * output
//   combine_backward, dispatch_backward: the same way for gradients, of tokens and of weights
//
// It runs the steps of the layer's own Schedule but for route and experts, so that with the same ids, weights and
// experts the output has the same bits as MoeLayer's. Experts stand as there: where expert_owners says,
// under ETP a shard of each, whose outputs are partial sums that combine adds up. Not thread-safe.
//
// With LayerOptions a batch has no more rows than the plan has room for, but where a single token needs it, and memory
// is laid out once. What does not fit comes in overflow rounds, as further batches. This does not bound memory as it
// does MoeLayer's: the caller's experts see all batches of a handle at once, so that each round has the planned memory
// to itself, kept for later handles. Nor do rounds fill blocks of what they save together, as a layer's do: passes of
// one layer follow each other, those of rounds and of other handles run side by side, and memory that changed hands
// among them would have to make them wait. To stay within the plan's memory, dispatch fewer tokens at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/device.hpp"
#include "topomoe/layer_shape.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

struct DispatchShape {
  std::int64_t hidden = 0;
  int experts = 0, top_k = 1;
  DType dtype = DType::f32;
  ExpertOwners expert_owners;  // empty: even blocks by id
};

// Rows for my experts, one expert after another; `rows` of each in order of id. A schedule in r pieces gives r batches,
// in every round. Both tensors are [sum of rows, hidden] of the shape's dtype.
struct ExpertBatch {
  const void* inputs = nullptr;  // of dispatch: lives as long as the handle; what reads it must be over by then
  void* outputs = nullptr;       // to be written, complete, before the next call; then gone
  std::vector<std::int64_t> rows;
};

class Dispatcher {
 public:
  // Collective, as MoeLayer's. The references must outlive it. Throws InvalidInput for what does not fit together, and
  // for options below 0 tokens or a skew of 1.
  Dispatcher(Schedule schedule, Layout layout, int gpus_per_node, DispatchShape shape, Communicator& communicator,
             Device& device, std::chrono::milliseconds deadline = std::chrono::seconds(30),
             const LayerOptions& options = {});
  ~Dispatcher();
  Dispatcher(Dispatcher&&) noexcept;

  class Handle {
   public:
    ~Handle();
    Handle(Handle&&) noexcept;
    std::span<const ExpertBatch> batches() const;
    // When what the last call on this handle writes is complete, as MoeLayer's.
    const EventPtr& done() const;

   private:
    friend class Dispatcher;
    struct State;
    explicit Handle(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };

  // Collective. All in the device's memory, of the `rows` tokens that this rank holds: tokens [rows, hidden], ids
  // [rows, top_k] of any expert, weights [rows, top_k]. Ranks of a TP group that hold the same tokens must pass the
  // same ids and weights. What a call reads, also of what the caller wrote into its batches, must be complete when its
  // `ready` happens (null: now). Throws InvalidInput for an id of no expert before anything moves, TransportError as
  // MoeLayer.
  Handle dispatch(const void* tokens, std::int64_t rows, const std::int32_t* ids, const float* weights,
                  const EventPtr& ready = nullptr);
  // Collective; once a handle. output: [rows, hidden].
  void combine(Handle& handle, void* output, const EventPtr& ready = nullptr);

  // Collective, after combine, once a handle. Batch by batch as dispatch gave them: `inputs` is the gradient of what
  // the caller wrote (weights applied), the gradient of what it read goes to `outputs`. Throws InvalidInput for a
  // schedule whose backward has other pieces than its forward.
  std::span<const ExpertBatch> combine_backward(Handle& handle, const void* output_gradients,
                                                const EventPtr& ready = nullptr);
  // Collective. Overwrites the gradients of tokens [rows, hidden], through the experts alone, and of the weights [rows,
  // top_k]; a router's own backward adds the rest.
  void dispatch_backward(Handle& handle, void* token_gradients, float* weight_gradients,
                         const EventPtr& ready = nullptr);

  const LayerCounters& counters() const;  // since it was made

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace topomoe
