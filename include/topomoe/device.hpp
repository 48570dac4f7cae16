// A Device is where tensors live and kernels run: memory, lanes, events, and one method a kernel.
//
// A lane is an in-order queue of work (a CUDA stream; on a CPU simply program order: work is done
// when the call returns). Lanes run beside each other; an Event orders them. Nothing here knows what
// a schedule is. Not thread-safe: a rank owns its Device and calls it from one thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "topomoe/error.hpp"

namespace topomoe {

// Element type of a tensor. bf16 is stored as its upper 16 bits of fp32, round to nearest even.
enum class DType : std::uint8_t { f32, bf16 };
constexpr std::size_t size_of(DType t) { return t == DType::f32 ? 4 : 2; }

enum class MemorySpace : std::uint8_t { host, cuda };

// The queues of DESIGN 6. `compute` runs kernels, `copy` pack/repack copies beside it, the two others
// communication inside a node and between nodes.
enum class Lane : std::uint8_t { compute, copy, intra_node, inter_node };
constexpr int kLaneCount = 4;
std::string_view name(Lane);  // "inter_node"

// Something that will have happened. Shared: whoever must wait keeps it.
class Event {
 public:
  virtual ~Event() = default;
  // True once it has happened; never blocks; drives progress where the backend needs that.
  virtual bool poll() = 0;
  // Blocks the calling thread. Throws TransportError when the deadline passes or the transport failed.
  virtual void wait(std::chrono::steady_clock::time_point deadline) = 0;
  // cudaEvent_t that a lane can wait for without the host, as an opaque pointer; null: only the host can wait.
  virtual void* native_event() { return nullptr; }
};
using EventPtr = std::shared_ptr<Event>;

// Owns one allocation on one device; freed with the last copy of the pointer.
using DeviceMemory = std::shared_ptr<std::byte>;

// Called by long host kernels at least once a millisecond, so that nonblocking MPI moves (DESIGN 8).
struct ProgressHook {
  void (*call)(void*) = nullptr;
  void* state = nullptr;
  void operator()() const {
    if (call) call(state);
  }
};

namespace kernels {  // argument structs: each is documented in kernels/<op>.hpp
struct Router;
struct RouterBackward;
struct GatherRows;
struct SumRows;
struct RowDots;
struct OrderedSum;
struct GroupedFfn;
class PackedFfn;
struct GroupedFfnDgrad;
struct GroupedFfnWgrad;
struct Mix;
struct MixBackward;
struct ExpertMap;
struct ToFp8;
struct FromFp8;
}  // namespace kernels

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  virtual MemorySpace memory_space() const = 0;
  // Which of its kind, as this process counts them: CUDA's ordinal, DLPack's device_id.
  virtual int ordinal() const { return 0; }

  // 64-byte aligned (256 on CUDA), uninitialised. Throws MissingEnvironment when there is no memory left.
  virtual DeviceMemory allocate(std::size_t bytes) = 0;
  // Host <-> device, ordered on the lane. Pageable memory may be used again when `to_device` returns. `to_host` returns
  // when the bytes are there; a lane may wait for another rank, so that it calls the progress hook meanwhile, whose
  // exceptions pass, and throws TransportError when the lane has not come so far by the deadline.
  virtual void to_device(Lane lane, void* device, const void* host, std::size_t bytes) = 0;
  virtual void to_host(Lane lane, void* host, const void* device, std::size_t bytes,
                       std::chrono::steady_clock::time_point deadline) = 0;
  virtual void copy(Lane lane, void* to, const void* from, std::size_t bytes) = 0;
  virtual void zero(Lane lane, void* to, std::size_t bytes) = 0;

  // All work issued on `lane` so far. Null where that is already done (CPU).
  virtual EventPtr record(Lane lane) = 0;
  // Later work on `lane` starts after `event`. A CPU device, or a host event, waits here and now.
  virtual void wait(Lane lane, const EventPtr& event, std::chrono::steady_clock::time_point deadline) = 0;
  // Blocks until all lanes are empty: waits as `to_host` does, and the error names the lane that is not.
  virtual void synchronize(std::chrono::steady_clock::time_point deadline) = 0;
  // CUDA stream of a lane as an opaque pointer, null on a CPU; communicators of GPU memory need it.
  virtual void* native_queue(Lane lane) = 0;
  // A caller's queue on this device (a cudaStream_t): all work on it so far; and later work on it starts after `event`,
  // which this host waits for where no queue can. InvalidInput on a device that has no queues.
  virtual EventPtr record_queue(void* queue) { return no_queue(queue); }
  virtual void make_queue_wait(void* queue, const EventPtr& event, std::chrono::steady_clock::time_point deadline) {
    (void)event, (void)deadline, (void)no_queue(queue);
  }
  virtual void set_progress(ProgressHook hook) = 0;

  virtual void router(Lane, const kernels::Router&) = 0;
  virtual void router_backward(Lane, const kernels::RouterBackward&) = 0;
  virtual void gather_rows(Lane, const kernels::GatherRows&) = 0;
  virtual void sum_rows(Lane, const kernels::SumRows&) = 0;
  virtual void row_dots(Lane, const kernels::RowDots&) = 0;
  virtual void ordered_sum(Lane, const kernels::OrderedSum&) = 0;
  // The weights of an operation (of which nothing else but sizes is read) in the order that this device's grouped_ffn
  // reads fastest: a copy, to go with operations on the same weights until those change. Null: it reads none faster
  // (on a CPU those of experts without a gate). Must not outlive the device.
  virtual std::shared_ptr<const kernels::PackedFfn> pack_experts(const kernels::GroupedFfn&) { return nullptr; }
  virtual void grouped_ffn(Lane, const kernels::GroupedFfn&) = 0;
  virtual void grouped_ffn_dgrad(Lane, const kernels::GroupedFfnDgrad&) = 0;
  virtual void grouped_ffn_wgrad(Lane, const kernels::GroupedFfnWgrad&) = 0;
  virtual void mix(Lane, const kernels::Mix&) = 0;
  virtual void mix_backward(Lane, const kernels::MixBackward&) = 0;
  virtual void expert_map(Lane, const kernels::ExpertMap&) = 0;
  virtual void to_fp8(Lane, const kernels::ToFp8&) = 0;
  virtual void from_fp8(Lane, const kernels::FromFp8&) = 0;

 private:
  EventPtr no_queue(const void*) const {
    throw InvalidInput("stream", "given", name() + " has none: what it is told is done when a call returns");
  }
};

}  // namespace topomoe
