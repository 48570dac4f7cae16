// Executes a Schedule on one rank: walks the issue order, waits for what each step waits for, resolves
// its views to memory, and hands it to the device or the communicator. It has one function a step kind
// and knows no algorithm. Sizes come from RankCounts, places from resolve(): nothing is stored in
// between, so what was priced is what is run.
//
// On a CPU device lanes are program order and only communication overlaps; on CUDA lanes are streams.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/counts.hpp"
#include "runtime/group_channels.hpp"
#include "runtime/index_map.hpp"
#include "topomoe/layer_shape.hpp"

namespace topomoe {

// What is fixed for the life of a layer.
struct ExecutorContext {
  const Schedule& schedule;
  const RankGroups& groups;
  const LayerShape& shape;
  const GroupChannels& channels;
  Communicator& communicator;
  Device& device;
  std::chrono::milliseconds deadline;
  int rank;
};

// A map on the device.
struct DeviceMap {
  HostMap host;
  DeviceMemory position, source_row, source_factor;
};

// Memory and counts of one forward, and of its backward.
struct PassState {
  PassState(const ExecutorContext& context)
      : counts(context.schedule, context.groups, context.rank, context.shape.experts) {}
  RankCounts counts;
  std::map<int, DeviceMemory> memory;  // by buffer that is not an alias
  std::map<int, std::byte*> bound;     // memory of others: the caller's tensors, and what stands in for steps left out
  std::map<int, DeviceMap> maps;       // by map
  // Stands in for the router: writes ids and weights, [rows, top_k] of the tokens that this rank injects.
  std::function<void(Lane, std::int32_t* ids, float* weights, std::int64_t rows)> router;
};

class Executor {
 public:
  Executor(const ExecutorContext& context, PassState& state, const LayerWeights& weights,
           const LayerGradients* gradients);

  // Runs one pass to its end, or those of its steps that `part` flags (planner/plan/schedule_part.hpp); buffers of
  // Storage::pass are freed once the last step is over. Throws after aborting the communicator.
  void run(bool backward, std::span<const std::uint8_t> part = {});
  std::vector<StepTrace> take_trace() { return std::move(trace_); }

  struct Span {  // a resolved view
    std::byte* data;
    std::int64_t rows;
    std::size_t row_bytes;
    std::size_t bytes() const { return static_cast<std::size_t>(rows) * row_bytes; }
  };

  Span at(const View& view, int peer = -1);
  // First row of each local expert, and the end.
  std::vector<std::int64_t> expert_offsets(const View& rows);

 private:
  std::byte* memory_of(int buffer);
  std::int64_t columns(const Buffer& b) const;
  DType dtype(const Buffer& b) const;
  std::size_t bytes_of_row(const Buffer& b) const { return static_cast<std::size_t>(row_bytes(b, widths_)); }
  const Buffer& buffer(const View& v) const { return c_.schedule.buffers[static_cast<std::size_t>(v.buffer)]; }
  std::chrono::steady_clock::time_point deadline() const { return std::chrono::steady_clock::now() + c_.deadline; }

  void issue(const Step& s, StepTrace& trace, EventPtr& event);
  void route(const Step& s);
  void counts_exchange(const Step& s, StepTrace& trace);
  void index(const Step& s);
  void pack(const Step& s);
  void repack(const Step& s);
  EventPtr exchange(const Step& s, StepTrace& trace);
  void ordered_sum(const Step& s);
  void experts(const Step& s);
  void combine(const Step& s);
  void weight_grad(const Step& s);
  void route_backward(const Step& s);

  const ExecutorContext& c_;
  const RowWidths widths_;
  PassState& state_;
  const LayerWeights& weights_;
  const LayerGradients* gradients_;
  std::vector<StepTrace> trace_;
  std::vector<DeviceMemory> temporaries_;  // freed when the pass is over: freeing may stall a whole GPU
  // What a peer may still read or write when this rank gives up: it must outlive the abort.
  std::deque<std::vector<std::vector<std::int32_t>>> counts_under_way_;
};

}  // namespace topomoe
