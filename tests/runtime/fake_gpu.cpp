#include "tests/runtime/fake_gpu.hpp"

#include <array>
#include <cstring>

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

CUstream_st::~CUstream_st() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void CUstream_st::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !work_.empty(); });
    if (work_.empty()) return;
    const auto next = std::move(work_.front());
    work_.pop_front();
    busy_ = true;
    lock.unlock();
    next();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

void CUstream_st::add(std::function<void()> next) {
  {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(next));
  }
  changed_.notify_all();
}

bool CUstream_st::idle() {
  const std::lock_guard lock(mutex_);
  return work_.empty() && !busy_;
}

bool CUstream_st::drain(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [&] { return work_.empty() && !busy_; });
}

namespace topomoe::testing {

namespace {

class FakeEvent final : public Event {
 public:
  explicit FakeEvent(CUstream_st& stream) {
    stream.add([state = state_] {
      const std::lock_guard lock(state->mutex);
      state->happened = true;
      state->changed.notify_all();
    });
  }
  bool poll() override {
    const std::lock_guard lock(state_->mutex);
    return state_->happened;
  }
  void wait(std::chrono::steady_clock::time_point deadline) override {
    std::unique_lock lock(state_->mutex);
    if (!state_->changed.wait_until(lock, deadline, [&] { return state_->happened; }))
      throw TransportError(-1, -1, "fake event", 0, "did not happen in time");
  }
  void* native_event() override { return this; }
  // What the waiting stream does.
  std::function<void()> until_happened() const {
    return [state = state_] {
      std::unique_lock lock(state->mutex);
      state->changed.wait(lock, [&] { return state->happened; });
    };
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool happened = false;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class FakeGpu final : public Device {
 public:
  explicit FakeGpu(int ordinal) : ordinal_(ordinal) {}
  std::string name() const override { return "fake gpu"; }
  MemorySpace memory_space() const override { return MemorySpace::cuda; }
  int ordinal() const override { return ordinal_; }
  DeviceMemory allocate(std::size_t bytes) override {
    return {new std::byte[bytes], [](std::byte* p) { delete[] p; }};
  }
  void to_device(Lane lane, void* device, const void* host, std::size_t bytes) override {
    const auto* from = static_cast<const std::byte*>(host);
    stream(lane).add([device, kept = std::vector<std::byte>(from, from + bytes)] {
      if (!kept.empty()) std::memcpy(device, kept.data(), kept.size());
    });
  }
  void to_host(Lane lane, void* host, const void* device, std::size_t bytes,
               std::chrono::steady_clock::time_point deadline) override {
    reach(lane, "fake copy to host", bytes, deadline);
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  void copy(Lane lane, void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) stream(lane).add([=] { std::memcpy(to, from, bytes); });
  }
  void zero(Lane lane, void* to, std::size_t bytes) override {
    if (bytes > 0) stream(lane).add([=] { std::memset(to, 0, bytes); });
  }
  EventPtr record(Lane lane) override { return std::make_shared<FakeEvent>(stream(lane)); }
  void wait(Lane lane, const EventPtr& event, std::chrono::steady_clock::time_point deadline) override {
    if (!event) return;
    if (const void* ours = event->native_event()) {
      stream(lane).add(static_cast<const FakeEvent*>(ours)->until_happened());
    } else {
      event->wait(deadline);
    }
  }
  void synchronize(std::chrono::steady_clock::time_point deadline) override {
    for (int lane = 0; lane < kLaneCount; ++lane) reach(static_cast<Lane>(lane), "fake synchronize", 0, deadline);
  }
  void* native_queue(Lane lane) override { return &stream(lane); }
  void set_progress(ProgressHook hook) override { progress_ = hook; }
  void router(Lane lane, const kernels::Router& op) override { later(lane, op, &Device::router); }
  void router_backward(Lane lane, const kernels::RouterBackward& op) override {
    later(lane, op, &Device::router_backward);
  }
  void gather_rows(Lane lane, const kernels::GatherRows& op) override { later(lane, op, &Device::gather_rows); }
  void sum_rows(Lane lane, const kernels::SumRows& op) override { later(lane, op, &Device::sum_rows); }
  void row_dots(Lane lane, const kernels::RowDots& op) override { later(lane, op, &Device::row_dots); }
  void ordered_sum(Lane lane, const kernels::OrderedSum& op) override { later(lane, op, &Device::ordered_sum); }
  void grouped_ffn(Lane lane, const kernels::GroupedFfn& op) override { grouped(lane, op, &Device::grouped_ffn); }
  void grouped_ffn_dgrad(Lane lane, const kernels::GroupedFfnDgrad& op) override {
    grouped(lane, op, &Device::grouped_ffn_dgrad);
  }
  void grouped_ffn_wgrad(Lane lane, const kernels::GroupedFfnWgrad& op) override {
    grouped(lane, op, &Device::grouped_ffn_wgrad);
  }
  void mix(Lane lane, const kernels::Mix& op) override { later(lane, op, &Device::mix); }
  void mix_backward(Lane lane, const kernels::MixBackward& op) override { later(lane, op, &Device::mix_backward); }
  void expert_map(Lane lane, const kernels::ExpertMap& op) override { later(lane, op, &Device::expert_map); }
  void to_fp8(Lane lane, const kernels::ToFp8& op) override { later(lane, op, &Device::to_fp8); }
  void from_fp8(Lane lane, const kernels::FromFp8& op) override { later(lane, op, &Device::from_fp8); }

 private:
  void reach(Lane lane, const char* step, std::size_t bytes, std::chrono::steady_clock::time_point deadline) {
    while (!stream(lane).drain(std::min(deadline, std::chrono::steady_clock::now() + std::chrono::milliseconds(1)))) {
      progress_();
      if (std::chrono::steady_clock::now() > deadline)
        throw TransportError(-1, -1, step, static_cast<double>(bytes), "the lane is not there in time");
    }
  }
  CUstream_st& stream(Lane lane) { return streams_[static_cast<std::size_t>(lane)]; }
  template <class Op>
  void later(Lane lane, const Op& op, void (Device::*kernel)(Lane, const Op&)) {
    Device* const cpu = cpus_[static_cast<std::size_t>(lane)].get();
    stream(lane).add([=] { (cpu->*kernel)(lane, op); });
  }
  template <class Op>
  void grouped(Lane lane, const Op& op, void (Device::*kernel)(Lane, const Op&)) {
    Device* const cpu = cpus_[static_cast<std::size_t>(lane)].get();
    stream(lane).add(testing::later(op, [=](const Op& kept) { (cpu->*kernel)(lane, kept); }));
  }
  std::array<std::unique_ptr<Device>, kLaneCount> cpus_{make_cpu_device(), make_cpu_device(), make_cpu_device(),
                                                        make_cpu_device()};  // a stream is one thread of its own
  std::array<CUstream_st, kLaneCount> streams_;
  int ordinal_;
  ProgressHook progress_;
};

}  // namespace

Stall::Stall(Device& fake_gpu, Lane lane) {
  static_cast<CUstream_st*>(fake_gpu.native_queue(lane))->add([over = over_.get_future().share()] { over.wait(); });
}
Stall::~Stall() { over_.set_value(); }

std::unique_ptr<Device> make_fake_gpu(int ordinal) { return std::make_unique<FakeGpu>(ordinal); }

}  // namespace topomoe::testing
