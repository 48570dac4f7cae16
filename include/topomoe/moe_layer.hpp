// One MoE layer on one rank: router, dispatch, SwiGLU experts, combine, forward and backward, executed
// as its Schedule says. All ranks of the layout construct it together and call it in the same order.
//
//   held tokens [rows, hidden] -> output [rows, hidden]; rows may differ between ranks and may be 0
//   (ranks of one TP group hold the same tokens unless the layout is sequence parallel).
//
// Gradients of parameters are added to, and are this rank's share: the gradient of an expert is the sum
// over the ranks that hold (this shard of) it, that of the router the sum over all ranks. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/device.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

struct LayerShape {
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;  // of one expert, all shards
  int experts = 0, top_k = 1;
  bool renormalize = true;  // weights of the chosen experts sum to 1
  DType dtype = DType::f32;
};

inline RowWidths row_widths(const LayerShape& s, int etp) {
  return {static_cast<double>(s.hidden), static_cast<double>(s.ffn / etp), static_cast<double>(s.top_k),
          static_cast<double>(s.experts), static_cast<double>(size_of(s.dtype))};
}

// Device pointers. `local experts` are [E ep_index / EP, E (ep_index+1) / EP), `shard` is ffn / ETP.
struct LayerWeights {
  const float* router = nullptr;                               // [experts, hidden], on every rank
  const void *gate = nullptr, *up = nullptr, *down = nullptr;  // [local experts][shard, hidden], .., [hidden, shard]
};
struct LayerGradients {
  float *router = nullptr, *gate = nullptr, *up = nullptr, *down = nullptr;  // fp32, same shapes, added to
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
};

class MoeLayer {
 public:
  // Collective: opens one channel for each group role that the schedule uses. The references must
  // outlive the layer. Throws InvalidInput when shape, layout and communicator do not fit together.
  MoeLayer(Schedule schedule, Layout layout, int gpus_per_node, LayerShape shape, Communicator& communicator,
           Device& device, std::chrono::milliseconds deadline = std::chrono::seconds(30));
  ~MoeLayer();
  MoeLayer(MoeLayer&&) noexcept;

  // What the backward needs of a forward. Several may be outstanding. Frees its buffers when it dies.
  class Handle {
   public:
    ~Handle();
    Handle(Handle&&) noexcept;

   private:
    friend class MoeLayer;
    struct State;
    explicit Handle(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };

  // `tokens` must stay valid until the backward, and be complete when this is called: the device's lanes know
  // nothing of a caller's stream yet. Returns when the output is complete. Throws TransportError on failure, after
  // aborting the communicator, so that no rank waits for this one.
  Handle forward(const void* tokens, std::int64_t rows, void* output, const LayerWeights& weights);
  void backward(Handle& handle, const void* output_gradients, void* token_gradients, const LayerWeights& weights,
                const LayerGradients& gradients);

  // Steps of the last pass, in issue order.
  const std::vector<StepTrace>& last_trace() const;
  const Schedule& schedule() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace topomoe
