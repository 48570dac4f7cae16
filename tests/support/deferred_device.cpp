#include "tests/support/deferred_device.hpp"

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/convert_rows.hpp"
#include "kernels/expert_map.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/grouped_ffn.hpp"
#include "kernels/mix.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/router.hpp"
#include "kernels/sum_rows.hpp"
#include "tests/support/later.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {

using Clock = std::chrono::steady_clock;

class DeferredDevice::Recorded final : public Event {
 public:
  explicit Recorded(DeferredDevice& device) : device_(device) {}
  // What only its queue may say.
  void happen() { *happened_ = true; }
  bool poll() override {
    if (!*happened_) device_.pump();
    return *happened_;
  }
  void wait(Clock::time_point deadline) override {
    ++device_.counts.waits;
    device_.pump_until([this] { return *happened_; }, deadline);
  }
  void* native_event() override { return happened_.get(); }

 private:
  DeferredDevice& device_;
  std::shared_ptr<bool> happened_ = std::make_shared<bool>(false);
};

DeferredDevice::DeferredDevice(std::uint64_t seed) : draw_(seed), cpu_(make_cpu_device()) {}
DeferredDevice::~DeferredDevice() = default;

bool DeferredDevice::pump() {
  bool any = false;
  const std::size_t count = queues_.size(), first = static_cast<std::size_t>(draw_.below(static_cast<int>(count)));
  const int most = 1 + draw_.below(4);  // of one queue in a row
  for (std::size_t i = 0; i < count; ++i) {
    auto& queue = queues_[(first + i) % count];
    for (int n = 0; n < most && !queue.empty() && (!queue.front().ready || queue.front().ready()); ++n) {
      const Work work = std::move(queue.front());
      queue.pop_front();
      if (work.run) work.run();
      any = true;
    }
  }
  return any;
}

void DeferredDevice::pump_until(const std::function<bool()>& over, Clock::time_point deadline) {
  while (!over()) {
    if (pump()) continue;
    if (Clock::now() > deadline) throw TransportError(-1, -1, "deferred event", 0, "did not happen in time");
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

void DeferredDevice::on_stream(std::function<void()> work) { queues_[kStream].push_back({nullptr, std::move(work)}); }
void DeferredDevice::stall(Lane lane) {
  queue(lane).push_back({[] { return false; }, nullptr});
}
EventPtr DeferredDevice::record_stream() { return record(kStream); }
void DeferredDevice::stream_waits(const EventPtr& event) { wait(kStream, event); }

// What is not written is NaN, and what was given back too.
DeviceMemory DeferredDevice::allocate(std::size_t bytes) {
  ++counts.allocations;
  counts.bytes += bytes;
  const auto spoil = [bytes](std::byte* p) { std::memset(p, 0xFF, bytes); };
  auto* const memory = new std::byte[bytes];
  spoil(memory);
  return {memory, [spoil](std::byte* p) {
            spoil(p);
            delete[] p;
          }};
}

// Pageable host memory: it may be reused on return.
void DeferredDevice::to_device(Lane lane, void* device, const void* host, std::size_t bytes) {
  const auto* from = static_cast<const std::byte*>(host);
  queue(lane).push_back({nullptr, [device, kept = std::vector<std::byte>(from, from + bytes)] {
                           if (!kept.empty()) std::memcpy(device, kept.data(), kept.size());
                         }});
}
void DeferredDevice::to_host(Lane lane, void* host, const void* device, std::size_t bytes, Clock::time_point deadline) {
  ++counts.host_reads;
  pump_until([&] { return queue(lane).empty(); }, deadline);
  if (bytes > 0) std::memcpy(host, device, bytes);
}
void DeferredDevice::copy(Lane lane, void* to, const void* from, std::size_t bytes) {
  queue(lane).push_back({nullptr, [=] {
                           if (bytes > 0) std::memcpy(to, from, bytes);
                         }});
}
void DeferredDevice::zero(Lane lane, void* to, std::size_t bytes) {
  queue(lane).push_back({nullptr, [=] {
                           if (bytes > 0) std::memset(to, 0, bytes);
                         }});
}

EventPtr DeferredDevice::record(std::size_t queue) {
  auto event = std::make_shared<Recorded>(*this);
  queues_[queue].push_back({nullptr, [event] { event->happen(); }});
  return event;
}
EventPtr DeferredDevice::record(Lane lane) { return record(static_cast<std::size_t>(lane)); }

void DeferredDevice::wait(std::size_t queue, const EventPtr& event) {
  if (!event) return;
  queues_[queue].push_back(
      {[event, happened = static_cast<const bool*>(event->native_event())] { return *happened; }, nullptr});
}
void DeferredDevice::wait(Lane lane, const EventPtr& event, Clock::time_point deadline) {
  if (!event) return;
  if (event->native_event() == nullptr) return event->wait(deadline);
  ++counts.lane_waits;
  wait(static_cast<std::size_t>(lane), event);
}
void DeferredDevice::synchronize(Clock::time_point deadline) {
  ++counts.synchronizes;
  pump_until(
      [&] {
        for (const auto& queue : queues_)
          if (!queue.empty()) return false;
        return true;
      },
      deadline);
}

void DeferredDevice::router(Lane lane, const kernels::Router& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->router(lane, op); }});
}
void DeferredDevice::router_backward(Lane lane, const kernels::RouterBackward& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->router_backward(lane, op); }});
}
void DeferredDevice::gather_rows(Lane lane, const kernels::GatherRows& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->gather_rows(lane, op); }});
}
void DeferredDevice::sum_rows(Lane lane, const kernels::SumRows& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->sum_rows(lane, op); }});
}
void DeferredDevice::row_dots(Lane lane, const kernels::RowDots& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->row_dots(lane, op); }});
}
void DeferredDevice::ordered_sum(Lane lane, const kernels::OrderedSum& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->ordered_sum(lane, op); }});
}

void DeferredDevice::mix(Lane lane, const kernels::Mix& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->mix(lane, op); }});
}
void DeferredDevice::mix_backward(Lane lane, const kernels::MixBackward& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->mix_backward(lane, op); }});
}
void DeferredDevice::expert_map(Lane lane, const kernels::ExpertMap& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->expert_map(lane, op); }});
}
void DeferredDevice::to_fp8(Lane lane, const kernels::ToFp8& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->to_fp8(lane, op); }});
}
void DeferredDevice::from_fp8(Lane lane, const kernels::FromFp8& op) {
  queue(lane).push_back({nullptr, [this, lane, op] { cpu_->from_fp8(lane, op); }});
}

void DeferredDevice::grouped_ffn(Lane lane, const kernels::GroupedFfn& op) {
  queue(lane).push_back({nullptr, later(op, [this, lane](const auto& o) { cpu_->grouped_ffn(lane, o); })});
}
void DeferredDevice::grouped_ffn_dgrad(Lane lane, const kernels::GroupedFfnDgrad& op) {
  queue(lane).push_back({nullptr, later(op, [this, lane](const auto& o) { cpu_->grouped_ffn_dgrad(lane, o); })});
}
void DeferredDevice::grouped_ffn_wgrad(Lane lane, const kernels::GroupedFfnWgrad& op) {
  queue(lane).push_back({nullptr, later(op, [this, lane](const auto& o) { cpu_->grouped_ffn_wgrad(lane, o); })});
}

EventPtr DeferredCommunicator::exchange(ChannelId channel, std::span<const Outgoing> sends,
                                        std::span<const Incoming> receives, const ExchangeInfo& info) {
  const long mine = issued_++;
  const auto turn = [started = started_, mine] { return *started == mine; };
  if (info.memory == MemorySpace::host) {
    device_.pump_until(turn, Clock::now() + std::chrono::seconds(60));
    ++*started_;
    return inner_.exchange(channel, sends, receives, info);
  }
  auto moved = std::make_shared<EventPtr>();
  auto& queue = device_.queue(info.lane);
  queue.push_back({turn, [this, moved, channel, started = started_, out = std::vector(sends.begin(), sends.end()),
                          in = std::vector(receives.begin(), receives.end()), step = std::string(info.step),
                          lane = info.lane, metadata = info.metadata] {
                     *moved = inner_.exchange(channel, out, in, {.step = step, .lane = lane, .metadata = metadata});
                     ++*started;
                   }});
  queue.push_back({[moved] { return (*moved)->poll(); }, nullptr});
  return device_.record(info.lane);
}

}  // namespace topomoe::testing
