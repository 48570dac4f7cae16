// Executes a Schedule on one rank: walks the issue order, waits for what each step waits for, resolves
// its views to memory, and hands it to the device or the communicator. It has one function a step kind
// and knows no algorithm. Sizes come from RankCounts, places by the rule of resolve() (row_table.hpp), memory
// from arenas that the layer keeps: what was priced is what is run, and a steady step allocates no tensor.
//
// On a CPU device lanes are program order and only communication overlaps; on CUDA lanes are streams.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/grouped_ffn.hpp"
#include "planner/plan/capacity.hpp"
#include "runtime/counts.hpp"
#include "runtime/group_channels.hpp"
#include "runtime/index_map.hpp"
#include "runtime/layer_memory.hpp"
#include "runtime/pass_end.hpp"
#include "runtime/row_table.hpp"
#include "topomoe/layer_shape.hpp"

namespace topomoe {

// What the device made of weights that a caller keeps as they are; null where it made nothing.
struct PackedWeights {
  std::shared_ptr<const kernels::PackedFfn> experts, shared;
};

// What is fixed for the life of a layer.
struct ExecutorContext {
  const Schedule& schedule;
  const RankGroups& groups;
  const LayerShape& shape;
  const ExpertPlacement& placement;
  const GroupChannels& channels;
  Communicator& communicator;
  Device& device;
  std::chrono::milliseconds deadline;
  int rank;
  const PackedWeights* packed = nullptr;  // forward reads these before the caller's; null: there are none
};

inline kernels::Activation activation_of(const LayerShape& shape) {
  return shape.gated ? kernels::Activation::swiglu : kernels::Activation::gelu;
}

struct PassState;

// What all passes of a layer share: memory, tables, and vectors that keep their capacity from step to step. One pass at
// a time uses it; handles may come back to it from any thread, and after the layer is gone.
struct LayerMemory {
  // Capacity of 0 tokens: arenas grow to what comes.
  explicit LayerMemory(const ExecutorContext& c, const Capacity& capacity = {});
  ~LayerMemory();

  // A state that some handle gave back, or a new one.
  static std::unique_ptr<PassState> take(const std::shared_ptr<LayerMemory>& layer, const ExecutorContext& context);
  static void give(std::unique_ptr<PassState> state) noexcept;

  // The last pass is over, and its trace complete. Throws as PassEnd::wait.
  void settle();
  // It is over; for destructors.
  void drain() noexcept;
  // Also where a pass failed on its way, and no event says when lanes have done what they were told: waits for them, up
  // to the deadline. For whoever gives the memory back.
  void drain_lanes() noexcept;

  // Rounds that the ranks which communicate with one another agree on: the largest number that one of them needs, by
  // the counts that its pass knows; 1 where no rank has tokens to cut.
  int rounds(const ExecutorContext& context, PassState& state, std::int64_t held);

  RowTable rows;
  MapBuilder maps;
  LayerArenas arenas;
  SlotMemory lent;                // to passes whose handles keep nothing of it
  std::vector<std::byte*> found;  // by slot: where this pass has it
  std::vector<EventPtr> events;   // by step
  std::shared_ptr<PassEnd> last;  // of the last pass; null: it is over
  std::array<PassTrace, 2> trace;
  bool last_backward = false;
  bool failed = false;            // a pass, on its way: lanes may still be at it
  std::vector<std::size_t> seen;  // by step: the last one that looked behind it
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  std::vector<std::byte*> in, out;
  std::vector<std::int64_t> expert_offsets;
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> used;  // of settle()
  // What a peer may still read or write when this rank gives up: it must outlive the abort.
  std::vector<std::vector<std::int32_t>> sent, received;
  std::vector<std::int32_t> agreed;

 private:
  Device& device_;
  const std::chrono::milliseconds deadline_;
  const std::vector<SlotSize> sizes_;  // of bounded arenas
  std::vector<Role> agree_over_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<PassState>> given_back_;
  std::size_t made_ = 0;
};

// Memory and counts of one forward, and of its backward.
struct PassState {
  // Without a layer's memory it has its own.
  explicit PassState(const ExecutorContext& context, std::shared_ptr<LayerMemory> of_layer = nullptr)
      : layer(of_layer ? std::move(of_layer) : std::make_shared<LayerMemory>(context)),
        counts(context.schedule, context.groups, context.rank, context.placement),
        maps(context.schedule.maps.size()) {}
  PassState(const PassState&) = delete;
  PassState& operator=(const PassState&) = delete;
  ~PassState() {
    if (layer) layer->drain();  // what dies here may be in use
  }
  // For another forward.
  void renew();
  std::shared_ptr<LayerMemory> layer;
  RankCounts counts;
  RowOffsets offsets;
  SlotMemory memory;
  std::map<int, std::byte*> bound;  // memory of others: the caller's tensors, and what stands in for steps left out
  std::vector<HostMap> maps;        // by map
  // Of the router, for the caller and for the backward.
  std::vector<std::int32_t> ids;  // as they travel; on the device they are in `ids_buffer`
  int ids_buffer = -1;
  RouterReport report;
  std::vector<float> score_grads, loss_sums;
  float z_grad = 0;
  // What a handle that keeps its routing only has of ids, weights and logits, and room for an output nobody wants.
  struct Kept {
    DeviceMemory memory;
    std::size_t capacity = 0, bytes = 0;
    std::byte* room(Device& device, std::size_t size);
  };
  bool keeps_routing = false;
  std::vector<Kept> kept;
  Kept unwanted;
  // Stands in for the router: writes ids and weights, [rows, top_k] of the tokens that this rank injects.
  std::function<void(Lane, std::int32_t* ids, float* weights, std::int64_t rows)> router;
};

class Executor {
 public:
  Executor(const ExecutorContext& context, PassState& state, const LayerWeights& weights,
           const LayerGradients* gradients);

  // Runs one pass, or those of its steps that `part` flags (planner/plan/schedule_part.hpp), after `ready`, and returns
  // its end: null where that is now (CPU). Lanes wait for `ready` and for the pass before this one; the host does only
  // where it reads what the router chose. What buffers of Storage::pass hold is lost once the last step is over;
  // between parts of one pass no other may run on the same layer's memory. Throws after failing the communicator.
  // `alone`: the part is all that is run of this pass.
  EventPtr run(bool backward, std::span<const std::uint8_t> part = {}, const EventPtr& ready = nullptr,
               bool alone = false);
  // Of a forward in bounded arenas, or a part that routes: 1; or what the tokens must be cut into, as they would not
  // fit. Then nothing but routing has been done, and the pass state is of no more use.
  int rounds() const { return rounds_; }

  struct Span {  // a resolved view
    std::byte* data;
    std::int64_t rows;
    std::size_t row_bytes;
    std::size_t bytes() const { return static_cast<std::size_t>(rows) * row_bytes; }
  };

  Span at(const View& view, int peer = -1);
  // First row of each local expert, and the end.
  std::span<const std::int64_t> expert_offsets(const View& rows);

 private:
  std::byte* memory_of(int buffer);
  std::byte* slot(std::size_t slot, std::int64_t elements, std::size_t element_bytes);
  std::int32_t* map_part(int map, Slots::MapPart part, const std::vector<std::int32_t>& host);
  EventPtr end_of_pass(std::chrono::steady_clock::time_point begin, std::span<const std::uint8_t> part);
  void wait_behind(int before, std::size_t step, const Step& s, std::span<const Step> steps,
                   std::span<const std::uint8_t> part);
  std::int64_t columns(const Buffer& b) const;
  DType dtype(const Buffer& b) const;
  std::size_t bytes_of_row(const Buffer& b) const { return static_cast<std::size_t>(row_bytes(b, widths_)); }
  const Buffer& buffer(const View& v) const { return c_.schedule.buffers[static_cast<std::size_t>(v.buffer)]; }
  std::chrono::steady_clock::time_point deadline() const { return std::chrono::steady_clock::now() + c_.deadline; }

  void issue(const Step& s, std::size_t step, StepTrace& trace, EventPtr& event);
  void route(const Step& s, std::size_t step, StepTrace& trace);
  double loss_share() const;
  void report_routing(const Step& s, std::int64_t rows, const std::byte* sums);
  void read(const Step& s, void* host, const void* device, std::size_t bytes);
  std::span<const std::int32_t> ids_on_host(const Step& s, const View& view);
  void throw_what_hangs(const Step& s) const;
  void counts_exchange(const Step& s, StepTrace& trace);
  void index(const Step& s);
  void pack(const Step& s, std::size_t step);
  void repack(const Step& s);
  void convert(const Step& s);
  EventPtr exchange(const Step& s, StepTrace& trace);
  void ordered_sum(const Step& s);
  // Some experts of equal width: routed ones, or the shared one.
  struct Ffn {
    std::span<const std::int64_t> offsets;  // first row of each, and the end
    std::int64_t width;                     // of a shard
    ExpertMatrices gate, up, down;
    const kernels::PackedFfn* packed = nullptr;  // the same
    ExpertGradients gate_grad = {}, up_grad = {}, down_grad = {};
    float scale = 1;  // of gradients
  };
  void ffn(const Step& s, const Ffn& f);
  void experts(const Step& s);
  void combine(const Step& s);
  void shared(const Step& s);
  void mix(const Step& s, std::size_t step);
  void weight_grad(const Step& s);
  void route_backward(const Step& s, std::size_t step);

  const ExecutorContext& c_;
  const RowWidths widths_;
  PassState& state_;
  const LayerWeights& weights_;
  const LayerGradients* gradients_;
  LayerMemory& m_;
  bool backward_ = false;
  int rounds_ = 1;
  EventPtr ready_;  // of the pass under way
};

}  // namespace topomoe
