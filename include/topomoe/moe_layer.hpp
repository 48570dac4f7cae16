// One MoE layer on one rank: router, dispatch, SwiGLU or GELU experts, combine, forward and backward, executed
// as its Schedule says. All ranks of the layout construct it together and call it in the same order.
//
//   held tokens [rows, hidden] -> output [rows, hidden]; rows may differ between ranks and may be 0
//   (ranks of one TP group hold the same tokens unless the layout is sequence parallel).
//
// Where the schedule sends tokens out as fp8 (Job::dispatch_dtype) routed experts see each token converted there and
// back: outputs are those of such tokens, so are gradients of the experts' weights, and gradients of tokens are passed
// on as they are. The router and a shared expert see tokens as they were given.
//
// Gradients of parameters are added to, and are this rank's share: the gradient of an expert is the sum
// over the ranks that hold (this shard of) it, that of the router the sum over all ranks; of an expert's replicas
// inside an EP group sum_over_replicas() makes that sum. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/device.hpp"
#include "topomoe/layer_shape.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

class GroupChannels;

class MoeLayer {
 public:
  // Collective: opens one channel for each group role that the schedule uses. The references must
  // outlive the layer. Throws InvalidInput when shape, layout and communicator do not fit together.
  MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
           Device& device, std::chrono::milliseconds deadline = std::chrono::seconds(30),
           const LayerOptions& options = {});
  ~MoeLayer();
  MoeLayer(MoeLayer&&) noexcept;

  // What the backward needs of a forward. Several may be outstanding. Frees its buffers when it dies.
  class Handle {
   public:
    ~Handle();
    Handle(Handle&&) noexcept;
    // When the last call on this handle is over; null: it is. A lane can wait for its native_event(); a host that waits
    // hears of what failed. Must not outlive the layer.
    const EventPtr& done() const;
    // Bytes of this rank that it keeps, the caller's tokens not counted.
    std::size_t saved_bytes() const;
    // Of the forward; losses are 0 where shape.router has no coefficient.
    const RouterReport& router() const;

   private:
    friend class MoeLayer;
    struct State;
    explicit Handle(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };

  // What a call reads must be complete when `ready` happens (null: now); what it writes is when Handle::done() does. On
  // a CPU that is when it returns; on a GPU the host waits for what the router chose, and for no more. `tokens` must
  // stay valid until the backward is over. Throws TransportError on failure, after telling the other ranks, so that
  // none waits for this one.
  //
  // With Keep::routing the handle keeps ids, weights and logits of its tokens only, and the backward first runs the
  // forward again up to what it needs, with the same routing: the same gradients, bit for bit, for one more dispatch.
  // All ranks must choose alike. The forward then returns when it is over, on a GPU too.
  enum class Keep : std::uint8_t { all, routing };
  Handle forward(const void* tokens, std::int64_t rows, void* output, const LayerWeights& weights,
                 const EventPtr& ready = nullptr, Keep keep = Keep::all);
  void backward(Handle& handle, const void* output_gradients, void* token_gradients, const LayerWeights& weights,
                const LayerGradients& gradients, const EventPtr& ready = nullptr);

  // Copies the weights of experts (the shared one's too) into the order that the device's kernels read fastest. From
  // then on forwards read the copy, though what they are handed must still be whole; backwards read what they are
  // handed. So whoever changes weights packs again, while no handle waits for its backward; LayerWeights{}, or one of
  // gate, up and down missing, drops the copy. Local to a rank. False where there is no copy then (no GPU has such an
  // order).
  bool pack_weights(const LayerWeights& weights);

  // Collective; once an optimizer step, after the last backward that adds to `gradients`: those of each replicated
  // expert become their sum over its replicas, in order of replica, with the same bits on each. Others are left as they
  // are, and so is EDP: that reduction is the caller's, before or after.
  void sum_over_replicas(const LayerGradients& gradients);

  // Of the last pass, of its last round. Waits until it is over: when steps end is known as far as somebody looks.
  const PassTrace& last_trace() const;
  const Schedule& schedule() const;
  const LayerCounters& counters() const;

 private:
  friend class AdaptiveLayer;
  MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
           Device& device, std::chrono::milliseconds deadline, const LayerOptions& options,
           std::shared_ptr<GroupChannels> channels);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace topomoe
