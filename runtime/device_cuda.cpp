#include "topomoe/device_cuda.hpp"

#include <array>
#include <cstring>
#include <thread>

#include "kernels/convert_rows.hpp"
#include "kernels/cuda_error.hpp"
#include "kernels/expert_map.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/grouped_ffn.hpp"
#include "kernels/mix.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/router.hpp"
#include "kernels/sum_rows.hpp"
#include "runtime/caller_memory.hpp"
#include "runtime/stage_pool.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

// Assumed: longer than a router's kernel, which every step waits for; a sleep would cost as much again.
constexpr auto kAwake = std::chrono::microseconds(500);
// Index maps and ids of a step are smaller: a few MB. Assumed.
constexpr std::size_t kMostStaged = std::size_t{64} << 20;

DeviceMemory pinned(std::size_t bytes) {
  void* memory = nullptr;
  TOPOMOE_CUDA_TRY("allocate pinned memory", cudaHostAlloc(&memory, bytes, cudaHostAllocDefault));
  return {static_cast<std::byte*>(memory), [](std::byte* p) { (void)cudaFreeHost(p); }};
}

// 13000 -> "13.0", as CUDA encodes its versions.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// 0 without a driver.
int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

class CudaEvent final : public Event {
 public:
  CudaEvent(int ordinal, cudaStream_t stream) : ordinal_(ordinal) {
    TOPOMOE_CUDA_TRY("create an event", cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    const cudaError_t recorded = cudaEventRecord(event_, stream);
    if (recorded != cudaSuccess) cudaEventDestroy(event_);
    TOPOMOE_CUDA_TRY("record an event", recorded);
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  bool poll() override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    TOPOMOE_CUDA_TRY("work before an event", status);
    return true;
  }
  // Polls, since CUDA has no wait with a deadline.
  void wait(Deadline deadline) override {
    while (!poll()) {
      if (Clock::now() > deadline) {
        throw TransportError(-1, -1, "cuda event", 0, "GPU " + std::to_string(ordinal_) + " did not get there in time");
      }
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
  void* native_event() override { return event_; }

 private:
  int ordinal_;
  cudaEvent_t event_ = nullptr;
};

// A stream and, once it is needed, its own cuBLAS handle: with one handle a stream cuBLAS gives the
// same bits every time.
class CudaLane {
 public:
  CudaLane() { TOPOMOE_CUDA_TRY("create a stream", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~CudaLane() {
    if (blas_ != nullptr) cublasDestroy(blas_);
    cudaStreamDestroy(stream_);
  }
  CudaLane(const CudaLane&) = delete;
  CudaLane& operator=(const CudaLane&) = delete;

  cudaStream_t stream() const { return stream_; }
  cublasHandle_t blas() {
    if (blas_ == nullptr) {
      TOPOMOE_CUBLAS_TRY("create a cuBLAS handle", cublasCreate(&blas_));
      TOPOMOE_CUBLAS_TRY("give cuBLAS a stream", cublasSetStream(blas_, stream_));
    }
    return blas_;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cublasHandle_t blas_ = nullptr;
};

// The current device is the calling thread's state, not ours: every call sets it.
class CudaDevice final : public Device {
 public:
  CudaDevice(int ordinal, const Allocator& allocator) : ordinal_(ordinal), allocator_(allocator) {
    use();
    for (auto& lane : lanes_) lane = std::make_unique<CudaLane>();
    cudaDeviceProp properties{};
    TOPOMOE_CUDA_TRY("read the GPU's name", cudaGetDeviceProperties(&properties, ordinal));
    name_ = "cuda:" + std::to_string(ordinal) + " " + properties.name;
  }
  ~CudaDevice() override {
    cudaSetDevice(ordinal_);  // streams and handles are about to be destroyed
  }

  std::string name() const override { return name_; }
  MemorySpace memory_space() const override { return MemorySpace::cuda; }
  int ordinal() const override { return ordinal_; }

  // cudaMalloc, not cudaMallocAsync: all lanes use it. The executor gives memory back where counts grow, and
  // then waits for the lanes; cudaFree itself waits for the whole GPU.
  DeviceMemory allocate(std::size_t bytes) override {
    use();
    if (allocator_) return take_memory(allocator_, bytes, 256, name_);
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      throw MissingEnvironment(name_ + ": no " + std::to_string(bytes) + " bytes of memory left");
    }
    TOPOMOE_CUDA_TRY("allocate memory", status);
    return {static_cast<std::byte*>(memory), [](std::byte* p) { cudaFree(p); }};
  }
  // From pageable memory CUDA may wait for the lane before it copies, which a lane that waits for another rank would
  // make endless: what steps copy leaves from pinned memory. What is larger are a caller's own tensors, before a step;
  // if pinned they must stay until the lane got there.
  void to_device(Lane lane, void* device, const void* host, std::size_t bytes) override {
    if (bytes == 0 || bytes > kMostStaged) return transfer(lane, device, host, bytes, cudaMemcpyHostToDevice);
    StagePool::Stage& stage = stages_.take(bytes);
    std::memcpy(stage.memory.get(), host, bytes);
    transfer(lane, device, stage.memory.get(), bytes, cudaMemcpyHostToDevice);
    stage.used = record(lane);
  }
  // Into pageable memory CUDA returns from the copy itself when it is over: it is begun when the lane is there.
  void to_host(Lane lane, void* host, const void* device, std::size_t bytes, Deadline deadline) override {
    if (bytes == 0) return;
    reach(lane, "copy to host", bytes, deadline);
    transfer(lane, host, device, bytes, cudaMemcpyDeviceToHost);
    TOPOMOE_CUDA_TRY("wait for a copy to host", cudaStreamSynchronize(stream(lane)));
  }
  void copy(Lane lane, void* to, const void* from, std::size_t bytes) override {
    transfer(lane, to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  void zero(Lane lane, void* to, std::size_t bytes) override {
    if (bytes > 0) TOPOMOE_CUDA_TRY("zero memory", cudaMemsetAsync(to, 0, bytes, stream(lane)));
  }

  EventPtr record(Lane lane) override {
    const cudaStream_t recorded = stream(lane);
    return std::make_shared<CudaEvent>(ordinal_, recorded);
  }
  void wait(Lane lane, const EventPtr& event, Deadline deadline) override {
    if (!event) return;
    if (void* on_gpu = event->native_event()) {
      TOPOMOE_CUDA_TRY("wait for an event", cudaStreamWaitEvent(stream(lane), static_cast<cudaEvent_t>(on_gpu), 0));
    } else {
      event->wait(deadline);
    }
  }
  void synchronize(Deadline deadline) override {
    for (int lane = 0; lane < kLaneCount; ++lane) reach(static_cast<Lane>(lane), "synchronize", 0, deadline);
  }
  void* native_queue(Lane lane) override { return stream(lane); }
  EventPtr record_queue(void* queue) override {
    use();
    return std::make_shared<CudaEvent>(ordinal_, static_cast<cudaStream_t>(queue));
  }
  void make_queue_wait(void* queue, const EventPtr& event, Deadline deadline) override {
    use();
    make_cuda_stream_wait(queue, event, deadline);
  }
  void set_progress(ProgressHook hook) override { progress_ = hook; }

  void router(Lane lane, const kernels::Router& op) override { kernels::router_gpu(op, stream(lane)); }
  void router_backward(Lane lane, const kernels::RouterBackward& op) override {
    kernels::router_backward_gpu(op, stream(lane));
  }
  void gather_rows(Lane lane, const kernels::GatherRows& op) override { kernels::gather_rows_gpu(op, stream(lane)); }
  void sum_rows(Lane lane, const kernels::SumRows& op) override { kernels::sum_rows_gpu(op, stream(lane)); }
  void row_dots(Lane lane, const kernels::RowDots& op) override { kernels::row_dots_gpu(op, stream(lane)); }
  void ordered_sum(Lane lane, const kernels::OrderedSum& op) override { kernels::ordered_sum_gpu(op, stream(lane)); }
  void grouped_ffn(Lane lane, const kernels::GroupedFfn& op) override {
    kernels::grouped_ffn_gpu(op, blas(lane), stream(lane));
  }
  void grouped_ffn_dgrad(Lane lane, const kernels::GroupedFfnDgrad& op) override {
    kernels::grouped_ffn_dgrad_gpu(op, blas(lane), stream(lane));
  }
  void grouped_ffn_wgrad(Lane lane, const kernels::GroupedFfnWgrad& op) override {
    kernels::grouped_ffn_wgrad_gpu(op, blas(lane), stream(lane));
  }
  void mix(Lane lane, const kernels::Mix& op) override { kernels::mix_gpu(op, stream(lane)); }
  void mix_backward(Lane lane, const kernels::MixBackward& op) override { kernels::mix_backward_gpu(op, stream(lane)); }
  void expert_map(Lane lane, const kernels::ExpertMap& op) override { kernels::expert_map_gpu(op, stream(lane)); }
  void to_fp8(Lane lane, const kernels::ToFp8& op) override { kernels::to_fp8_gpu(op, stream(lane)); }
  void from_fp8(Lane lane, const kernels::FromFp8& op) override { kernels::from_fp8_gpu(op, stream(lane)); }

 private:
  void use() const { TOPOMOE_CUDA_TRY("select a GPU", cudaSetDevice(ordinal_)); }
  CudaLane& at(Lane lane) {
    use();
    return *lanes_[static_cast<std::size_t>(lane)];
  }
  cudaStream_t stream(Lane lane) { return at(lane).stream(); }
  cublasHandle_t blas(Lane lane) { return at(lane).blas(); }
  // Until the lane has done what it was told so far. CUDA has no wait with a deadline.
  void reach(Lane lane, const char* step, std::size_t bytes, Deadline deadline) {
    CudaEvent reached(ordinal_, stream(lane));
    const auto begin = Clock::now();
    while (!reached.poll()) {
      progress_();
      const auto now = Clock::now();
      if (now > deadline)
        throw TransportError(-1, -1, step, static_cast<double>(bytes),
                             "lane " + std::string(topomoe::name(lane)) + " of GPU " + std::to_string(ordinal_) +
                                 " did not get there in time");
      if (now - begin < kAwake)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
  void transfer(Lane lane, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (bytes > 0) TOPOMOE_CUDA_TRY("copy memory", cudaMemcpyAsync(to, from, bytes, kind, stream(lane)));
  }

  int ordinal_;
  Allocator allocator_;
  std::string name_;
  ProgressHook progress_;
  std::array<std::unique_ptr<CudaLane>, kLaneCount> lanes_;
  StagePool stages_{pinned};
};

}  // namespace

std::unique_ptr<Device> make_cuda_device(int ordinal, const Allocator& allocator) {
  const int driver = driver_version();
  if (driver == 0) {
    throw MissingEnvironment("cuda: no CUDA driver on this machine (libcuda.so.1); built with CUDA " +
                             version_text(CUDART_VERSION));
  }
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    throw MissingEnvironment("cuda: no GPU can be used: " + std::string(cudaGetErrorString(status)) + " (driver for " +
                             version_text(driver) + ", built with " + version_text(CUDART_VERSION) + ")");
  }
  if (ordinal < 0 || ordinal >= count) {
    throw MissingEnvironment("cuda: no GPU " + std::to_string(ordinal) + ": this process sees " +
                             std::to_string(count) + ", counted from 0 (see CUDA_VISIBLE_DEVICES)");
  }
  return std::make_unique<CudaDevice>(ordinal, allocator);
}

EventPtr record_cuda_stream(void* stream) {
  int ordinal = 0;
  TOPOMOE_CUDA_TRY("ask for the current GPU", cudaGetDevice(&ordinal));
  return std::make_shared<CudaEvent>(ordinal, static_cast<cudaStream_t>(stream));
}

void make_cuda_stream_wait(void* stream, const EventPtr& event, std::chrono::steady_clock::time_point deadline) {
  if (!event) return;
  if (void* on_gpu = event->native_event())
    TOPOMOE_CUDA_TRY("wait for an event",
                     cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(on_gpu), 0));
  else
    event->wait(deadline);
}

std::string cuda_description() {
  int runtime = 0;
  int blas[3] = {};
  int gpus = 0;
  cudaRuntimeGetVersion(&runtime);
  cublasGetProperty(MAJOR_VERSION, &blas[0]);
  cublasGetProperty(MINOR_VERSION, &blas[1]);
  cublasGetProperty(PATCH_LEVEL, &blas[2]);
  const bool counted = cudaGetDeviceCount(&gpus) == cudaSuccess;
  (void)cudaGetLastError();
  const int driver = driver_version();
  auto dotted = [](int a, int b, int c) {
    return std::to_string(a) + "." + std::to_string(b) + "." + std::to_string(c);
  };
  return "CUDA " + version_text(CUDART_VERSION) + " (loaded " + version_text(runtime) + "), cuBLAS " +
         dotted(CUBLAS_VER_MAJOR, CUBLAS_VER_MINOR, CUBLAS_VER_PATCH) + " (loaded " +
         dotted(blas[0], blas[1], blas[2]) + "), " +
         (driver == 0 ? "no driver" : "driver for CUDA " + version_text(driver)) +
         ", GPUs: " + (counted ? std::to_string(gpus) : "none");
}

}  // namespace topomoe
