#include "tests/runtime/fake_gpu.hpp"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <array>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "topomoe/error.hpp"

struct CUstream_st {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> work;
  bool busy = false, stopping = false;
  std::thread thread{[this] { run(); }};

  ~CUstream_st() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    thread.join();
  }
  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return stopping || !work.empty(); });
      if (work.empty()) return;
      const auto next = std::move(work.front());
      work.pop_front();
      busy = true;
      lock.unlock();
      next();
      lock.lock();
      busy = false;
      changed.notify_all();
    }
  }
  void add(std::function<void()> next) {
    {
      const std::lock_guard lock(mutex);
      work.push_back(std::move(next));
    }
    changed.notify_all();
  }
  bool idle() {
    const std::lock_guard lock(mutex);
    return work.empty() && !busy;
  }
  void drain() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return work.empty() && !busy; });
  }
};

namespace topomoe::testing {

void enqueue(CUstream_st* stream, std::function<void()> work) { stream->add(std::move(work)); }

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
  std::string name() const override { return "fake gpu"; }
  MemorySpace memory_space() const override { return MemorySpace::cuda; }
  DeviceMemory allocate(std::size_t bytes) override {
    return {new std::byte[bytes], [](std::byte* p) { delete[] p; }};
  }
  void to_device(Lane lane, void* device, const void* host, std::size_t bytes) override {
    stream(lane).drain();  // then host memory may be reused on return, as with pageable memory
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void to_host(Lane lane, void* host, const void* device, std::size_t bytes) override {
    to_device(lane, host, device, bytes);
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
    if (const auto* ours = dynamic_cast<const FakeEvent*>(event.get())) {
      stream(lane).add(ours->until_happened());
    } else {
      event->wait(deadline);
    }
  }
  void synchronize() override {
    for (auto& s : streams_) s.drain();
  }
  void* native_queue(Lane lane) override { return &stream(lane); }
  void set_progress(ProgressHook) override {}
  void router(Lane, const kernels::Router&) override { none(); }
  void router_backward(Lane, const kernels::RouterBackward&) override { none(); }
  void gather_rows(Lane, const kernels::GatherRows&) override { none(); }
  void sum_rows(Lane, const kernels::SumRows&) override { none(); }
  void row_dots(Lane, const kernels::RowDots&) override { none(); }
  void ordered_sum(Lane, const kernels::OrderedSum&) override { none(); }
  void grouped_ffn(Lane, const kernels::GroupedFfn&) override { none(); }
  void grouped_ffn_dgrad(Lane, const kernels::GroupedFfnDgrad&) override { none(); }
  void grouped_ffn_wgrad(Lane, const kernels::GroupedFfnWgrad&) override { none(); }
  void mix(Lane, const kernels::Mix&) override { none(); }
  void mix_backward(Lane, const kernels::MixBackward&) override { none(); }

 private:
  [[noreturn]] static void none() { throw std::logic_error("the fake GPU has no kernels"); }
  CUstream_st& stream(Lane lane) { return streams_[static_cast<std::size_t>(lane)]; }
  std::array<CUstream_st, kLaneCount> streams_;
};

}  // namespace

std::unique_ptr<Device> make_fake_gpu() { return std::make_unique<FakeGpu>(); }

}  // namespace topomoe::testing

extern "C" {
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return stream->idle() ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = new std::byte[bytes];
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  delete[] static_cast<std::byte*>(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  stream->add([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  stream->add([=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "fake"; }
const char* cudaGetErrorString(cudaError_t) { return "fake"; }
const char* cublasGetStatusString(cublasStatus_t) { return "fake"; }
}
