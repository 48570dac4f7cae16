// A device whose lanes are real queues, on a machine without a GPU: a call only enqueues, and work runs when the host
// waits for something, lanes in a drawn order and each as far as it gets. Whoever forgets to let a lane wait reads NaNs
// or memory that was given back. Single-threaded: a rank's lanes run on its own thread.
//
// Kernels are the CPU's. A communicator over it starts its exchanges of device memory on lanes, in issue order.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>

#include "tests/support/layer_cases.hpp"
#include "topomoe/communicator.hpp"
#include "topomoe/device.hpp"

namespace topomoe::testing {

class DeferredDevice final : public Device {
 public:
  explicit DeferredDevice(std::uint64_t seed);
  ~DeferredDevice() override;

  // Of the host, since it was made.
  struct Counts {
    long synchronizes = 0, lane_waits = 0, allocations = 0;
    std::size_t bytes = 0;  // allocated, in all
    long waits = 0;         // for events of this device, over or not
    long host_reads = 0;    // copies to the host, which wait for their lane
  };
  Counts counts;

  // A stream of the caller's, beside the lanes.
  void on_stream(std::function<void()> work);
  EventPtr record_stream();
  void stream_waits(const EventPtr& event);
  // What the lane is told from now on never comes to pass, as behind a transfer with a rank that is gone.
  void stall(Lane lane);

  std::string name() const override { return "deferred"; }
  MemorySpace memory_space() const override { return MemorySpace::cuda; }
  DeviceMemory allocate(std::size_t bytes) override;
  void to_device(Lane, void* device, const void* host, std::size_t bytes) override;
  void to_host(Lane, void* host, const void* device, std::size_t bytes,
               std::chrono::steady_clock::time_point deadline) override;
  void copy(Lane, void* to, const void* from, std::size_t bytes) override;
  void zero(Lane, void* to, std::size_t bytes) override;
  EventPtr record(Lane) override;
  void wait(Lane, const EventPtr& event, std::chrono::steady_clock::time_point deadline) override;
  void synchronize(std::chrono::steady_clock::time_point deadline) override;
  void* native_queue(Lane) override { return nullptr; }
  // Any address is the one stream.
  EventPtr record_queue(void*) override { return record_stream(); }
  void make_queue_wait(void*, const EventPtr& event, std::chrono::steady_clock::time_point) override {
    stream_waits(event);
  }
  void set_progress(ProgressHook) override {}
  void router(Lane, const kernels::Router&) override;
  void router_backward(Lane, const kernels::RouterBackward&) override;
  void gather_rows(Lane, const kernels::GatherRows&) override;
  void sum_rows(Lane, const kernels::SumRows&) override;
  void row_dots(Lane, const kernels::RowDots&) override;
  void ordered_sum(Lane, const kernels::OrderedSum&) override;
  void grouped_ffn(Lane, const kernels::GroupedFfn&) override;
  void grouped_ffn_dgrad(Lane, const kernels::GroupedFfnDgrad&) override;
  void grouped_ffn_wgrad(Lane, const kernels::GroupedFfnWgrad&) override;
  void mix(Lane, const kernels::Mix&) override;
  void mix_backward(Lane, const kernels::MixBackward&) override;
  void expert_map(Lane, const kernels::ExpertMap&) override;
  void to_fp8(Lane, const kernels::ToFp8&) override;
  void from_fp8(Lane, const kernels::FromFp8&) override;

 private:
  friend class DeferredCommunicator;
  class Recorded;
  struct Work {
    std::function<bool()> ready;  // empty: at once
    std::function<void()> run;    // may be empty
  };
  static constexpr std::size_t kStream = kLaneCount;
  std::deque<Work>& queue(Lane lane) { return queues_[static_cast<std::size_t>(lane)]; }
  EventPtr record(std::size_t queue);
  void wait(std::size_t queue, const EventPtr& event);
  // Whether anything ran.
  bool pump();
  void pump_until(const std::function<bool()>& over, std::chrono::steady_clock::time_point deadline);

  std::array<std::deque<Work>, kLaneCount + 1> queues_;
  Draw draw_;
  std::unique_ptr<Device> cpu_;
};

class DeferredCommunicator final : public Communicator {
 public:
  DeferredCommunicator(Communicator& inner, DeferredDevice& device) : inner_(inner), device_(device) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  ChannelId open_channel(std::span<const int> members) override { return inner_.open_channel(members); }
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override;
  void progress() override { inner_.progress(); }
  void barrier() override { inner_.barrier(); }
  void fail(const Failure& failure) noexcept override { inner_.fail(failure); }

 private:
  Communicator& inner_;
  DeferredDevice& device_;
  long issued_ = 0;
  std::shared_ptr<long> started_ = std::make_shared<long>(0);
};

}  // namespace topomoe::testing
