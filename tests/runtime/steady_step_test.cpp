// A layer in its steady state: no tensor is allocated in a step, nothing of the heap but the handle, and memory that is
// used again gives the same bits as memory of its own. A program of its own, as it replaces operator new.

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>

#include "planner/plan/buffer_plan.hpp"
#include "tests/support/drawn_counts.hpp"
#include "tests/support/layer_cases.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace {
thread_local long heap_allocations = 0;
}

// Sanitizers bring their own operator new, and want it kept: there the heap is not counted, tensors are.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCountsHeap = false;
#else
constexpr bool kCountsHeap = true;
// Not inlined: GCC takes free() of what new gave for a mistake.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++heap_allocations;
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace topomoe::testing {
namespace {

// What kernels (oneDNN) and the transport allocate for themselves is not the layer's.
struct Uncounted {
  const long before = heap_allocations;
  ~Uncounted() { heap_allocations = before; }
};

// Counts what is allocated and fills it with NaNs.
class CountingDevice final : public Device {
 public:
  long allocations = 0;
  std::size_t bytes_in_all = 0;

  DeviceMemory allocate(std::size_t bytes) override {
    ++allocations;
    bytes_in_all += bytes;
    DeviceMemory memory = inner_->allocate(bytes);
    std::memset(memory.get(), 0xFF, bytes);
    return memory;
  }
  std::string name() const override { return inner_->name(); }
  MemorySpace memory_space() const override { return inner_->memory_space(); }
  void to_device(Lane l, void* to, const void* from, std::size_t n) override { inner_->to_device(l, to, from, n); }
  void to_host(Lane l, void* to, const void* from, std::size_t n, std::chrono::steady_clock::time_point t) override {
    inner_->to_host(l, to, from, n, t);
  }
  void copy(Lane l, void* to, const void* from, std::size_t n) override { inner_->copy(l, to, from, n); }
  void zero(Lane l, void* to, std::size_t n) override { inner_->zero(l, to, n); }
  EventPtr record(Lane l) override { return inner_->record(l); }
  void wait(Lane l, const EventPtr& e, std::chrono::steady_clock::time_point t) override { inner_->wait(l, e, t); }
  void synchronize(std::chrono::steady_clock::time_point t) override { inner_->synchronize(t); }
  void* native_queue(Lane l) override { return inner_->native_queue(l); }
  void set_progress(ProgressHook hook) override { inner_->set_progress(hook); }
  void router(Lane l, const kernels::Router& op) override {
    const Uncounted u;
    inner_->router(l, op);
  }
  void router_backward(Lane l, const kernels::RouterBackward& op) override {
    const Uncounted u;
    inner_->router_backward(l, op);
  }
  void gather_rows(Lane l, const kernels::GatherRows& op) override {
    const Uncounted u;
    inner_->gather_rows(l, op);
  }
  void sum_rows(Lane l, const kernels::SumRows& op) override {
    const Uncounted u;
    inner_->sum_rows(l, op);
  }
  void row_dots(Lane l, const kernels::RowDots& op) override {
    const Uncounted u;
    inner_->row_dots(l, op);
  }
  void ordered_sum(Lane l, const kernels::OrderedSum& op) override {
    const Uncounted u;
    inner_->ordered_sum(l, op);
  }
  void grouped_ffn(Lane l, const kernels::GroupedFfn& op) override {
    const Uncounted u;
    inner_->grouped_ffn(l, op);
  }
  void grouped_ffn_dgrad(Lane l, const kernels::GroupedFfnDgrad& op) override {
    const Uncounted u;
    inner_->grouped_ffn_dgrad(l, op);
  }
  void grouped_ffn_wgrad(Lane l, const kernels::GroupedFfnWgrad& op) override {
    const Uncounted u;
    inner_->grouped_ffn_wgrad(l, op);
  }
  void mix(Lane l, const kernels::Mix& op) override {
    const Uncounted u;
    inner_->mix(l, op);
  }
  void mix_backward(Lane l, const kernels::MixBackward& op) override {
    const Uncounted u;
    inner_->mix_backward(l, op);
  }
  void expert_map(Lane l, const kernels::ExpertMap& op) override { inner_->expert_map(l, op); }
  void to_fp8(Lane l, const kernels::ToFp8& op) override { inner_->to_fp8(l, op); }
  void from_fp8(Lane l, const kernels::FromFp8& op) override { inner_->from_fp8(l, op); }

 private:
  std::unique_ptr<Device> inner_ = make_cpu_device();
};

// What a transport allocates to wait, say who is missing, is its own as well.
class UncountedEvent final : public Event {
 public:
  explicit UncountedEvent(EventPtr inner) : inner_(std::move(inner)) {}
  bool poll() override {
    const Uncounted u;
    return inner_->poll();
  }
  void wait(std::chrono::steady_clock::time_point deadline) override {
    const Uncounted u;
    inner_->wait(deadline);
  }

 private:
  EventPtr inner_;
};

class UncountedCommunicator final : public Communicator {
 public:
  explicit UncountedCommunicator(Communicator& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  ChannelId open_channel(std::span<const int> members) override { return inner_.open_channel(members); }
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    const Uncounted u;
    return std::make_shared<UncountedEvent>(inner_.exchange(channel, sends, receives, info));
  }
  void progress() override { inner_.progress(); }
  void barrier() override { inner_.barrier(); }
  void fail(const Failure& failure) noexcept override { inner_.fail(failure); }

 private:
  Communicator& inner_;
};

struct Batch {
  Batch(const LayerCase& c, const ReferenceWeights& w, int rank) : tensors(c, w, rank) {}
  void forward(MoeLayer& layer) {
    std::fill(tensors.y.begin(), tensors.y.end(), std::byte{});
    handle.emplace(layer.forward(tensors.x.data(), tensors.rows, tensors.y.data(), tensors.weights()));
  }
  void backward(MoeLayer& layer) {
    for (auto* g : {&tensors.drouter, &tensors.dgate, &tensors.dup, &tensors.ddown}) std::fill(g->begin(), g->end(), 0);
    std::fill(tensors.dx.begin(), tensors.dx.end(), std::byte{});
    layer.backward(*handle, tensors.dy.data(), tensors.dx.data(), tensors.weights(), tensors.gradients());
    handle.reset();
  }
  auto results() const {
    return std::tuple(tensors.y, tensors.dx, tensors.drouter, tensors.dgate, tensors.dup, tensors.ddown);
  }
  RankTensors tensors;
  std::optional<MoeLayer::Handle> handle;
};

// Two micro-batches, both outstanding at once.
void step(MoeLayer& layer, Batch& a, Batch& b) {
  a.forward(layer);
  b.forward(layer);
  a.backward(layer);
  b.backward(layer);
}

struct Case {
  LayerCase large, small;
  Schedule schedule;
  bool sliced;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const std::string_view transport : transport_names())
    for (const auto& l : {layout(4, 1, 1, 4), layout(4, 2, 2, 2), layout(4, 2, 1, 4), layout(4, 2, 1, 4, true)})
      for (const auto split : {TokenSplit::sliced, TokenSplit::replicated})
        for (const auto& [chunks, pieces] : {std::pair{1, 1}, {4, 2}, {3, 3}}) {
          const ScheduleRequest r = request(l, split, chunks, pieces);
          if (!applies(transport, l, 2) || !find_transport(transport).refuses(r).empty()) continue;
          LayerCase large{.layout = l, .gpus_per_node = 2, .shape = {12, 8, 8, 2, true}, .tokens = {19, 14, 0, 30}};
          LayerCase small = large;
          small.tokens = {3, 9, 1, 0};
          small.seed = 2;
          out.push_back({large, small, build_schedule(transport, r), split == TokenSplit::sliced});
        }
  return out;
}

TEST(SteadyStep, SameCounts_AllocatesNoTensorAndGivesTheSameBits) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.large));
    const ReferenceWeights weights = make_weights(c.large);
    std::mutex mutex;
    run_inproc(c.large.layout.world, [&](Communicator& transport) {
      UncountedCommunicator communicator(transport);
      CountingDevice device;
      MoeLayer layer = make_layer(c.large, c.schedule, communicator, device);
      const int rank = communicator.rank();
      Batch a(c.large, weights, rank), b(c.small, weights, rank);
      step(layer, a, b);  // slot by slot
      const auto first_a = a.results(), first_b = b.results();
      const long first = device.allocations;
      step(layer, a, b);  // arenas of both handles, and of the pass
      const long laid_out = device.allocations;
      step(layer, a, b);
      const long warm = device.allocations, heap = heap_allocations;
      constexpr int kSteps = 4;
      for (int i = 0; i < kSteps; ++i) step(layer, a, b);
      const long heap_in_all = heap_allocations - heap;
      const std::lock_guard lock(mutex);
      EXPECT_GT(first, 10);
      EXPECT_LE(warm - first, 8);  // arenas, a few times
      EXPECT_LE(warm - laid_out, 4);
      EXPECT_EQ(device.allocations, warm);
      EXPECT_EQ(a.results(), first_a);
      EXPECT_EQ(b.results(), first_b);
      if (kCountsHeap) {
        EXPECT_EQ(heap_in_all, 2 * kSteps);  // of each forward, its handle
      }
    });
  }
}

// More tokens than ever before: the step is right at once, and two steps later nothing is allocated.
TEST(SteadyStep, CountsGrow_SameBitsAsAFreshLayerAndSteadyAgain) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.large));
    const ReferenceWeights weights = make_weights(c.large);
    std::mutex mutex;
    run_inproc(c.large.layout.world, [&](Communicator& communicator) {
      CountingDevice device;
      const int rank = communicator.rank();
      Batch small(c.small, weights, rank), large(c.large, weights, rank), fresh(c.large, weights, rank);
      {
        MoeLayer layer = make_layer(c.large, c.schedule, communicator, device);
        fresh.forward(layer);
        fresh.backward(layer);
      }
      MoeLayer layer = make_layer(c.large, c.schedule, communicator, device);
      const auto pass = [&](Batch& batch) {
        batch.forward(layer);
        batch.backward(layer);
      };
      for (int i = 0; i < 3; ++i) pass(small);
      pass(large);
      const auto grown = large.results();
      for (int i = 0; i < 2; ++i) pass(large);
      const long before = device.allocations;
      pass(small);
      pass(large);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(device.allocations, before);
      EXPECT_EQ(grown, fresh.results());
      EXPECT_EQ(large.results(), fresh.results());
    });
  }
}

// Growing between a forward and its backward moves nothing of what that forward saved.
TEST(SteadyStep, CountsGrowWhileAHandleIsOut_ItsBackwardIsUnharmed) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.large));
    const ReferenceWeights weights = make_weights(c.large);
    std::mutex mutex;
    run_inproc(c.large.layout.world, [&](Communicator& communicator) {
      CountingDevice device;
      const int rank = communicator.rank();
      Batch small(c.small, weights, rank), large(c.large, weights, rank);
      MoeLayer layer = make_layer(c.large, c.schedule, communicator, device);
      for (int i = 0; i < 3; ++i) {
        small.forward(layer);
        small.backward(layer);
      }
      const auto alone = small.results();
      small.forward(layer);
      large.forward(layer);
      large.backward(layer);
      large.forward(layer);  // in arenas that are laid out anew
      small.backward(layer);
      large.backward(layer);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(small.results(), alone);
    });
  }
}

// The first pass allocates slot by slot: in all, what slot_bytes() says from the counts alone. So a planner that asks
// plan_buffers() with these sizes speaks of the same memory.
TEST(SteadyStep, BytesOfTheSlots_AreWhatThePlannersSideSays) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.large));
    const ReferenceWeights weights = make_weights(c.large);
    const Layout& l = c.large.layout;
    const DrawnCounts counts(c.large, expect_layer(c.large).ids, c.sliced, c.schedule.chunks);
    std::vector<std::size_t> actual(static_cast<std::size_t>(l.world));
    run_inproc(l.world, [&](Communicator& communicator) {
      CountingDevice device;
      Batch batch(c.large, weights, communicator.rank());
      MoeLayer layer = make_layer(c.large, c.schedule, communicator, device);
      batch.forward(layer);
      batch.backward(layer);
      actual[static_cast<std::size_t>(communicator.rank())] = device.bytes_in_all;
    });
    const RankGroups groups(l, c.large.gpus_per_node);
    const auto& shape = c.large.shape;
    const RowWidths widths{static_cast<double>(shape.hidden), static_cast<double>(shape.ffn / l.etp),
                           static_cast<double>(shape.top_k), static_cast<double>(shape.experts), 4};
    for (int rank = 0; rank < l.world; ++rank) {
      const SlotBytes bytes = slot_bytes(c.schedule, groups, counts, widths, rank);
      std::size_t expected = 0;
      for (const bool backward : {false, true}) {
        const auto uses = slot_uses(c.schedule, backward);
        for (std::size_t slot = 0; slot < uses.size(); ++slot)  // one byte where there are no rows
          if (!uses[slot].users.empty()) expected += std::max<std::size_t>(1, bytes[backward][slot]);
      }
      EXPECT_EQ(actual[static_cast<std::size_t>(rank)], expected) << "rank " << rank;
    }
  }
}

TEST(SteadyStep, HandleOutlivesItsLayer_IsHarmless) {
  const Case c = cases().front();
  const ReferenceWeights weights = make_weights(c.large);
  run_inproc(c.large.layout.world, [&](Communicator& communicator) {
    CountingDevice device;
    Batch a(c.large, weights, communicator.rank()), b(c.large, weights, communicator.rank());
    {
      MoeLayer layer = make_layer(c.large, c.schedule, communicator, device);
      step(layer, a, b);
      a.forward(layer);
      b.forward(layer);
    }
    a.handle.reset();
    b.handle.reset();
  });
}

}  // namespace
}  // namespace topomoe::testing
