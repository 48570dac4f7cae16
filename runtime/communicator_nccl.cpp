#include "runtime/communicator_nccl.hpp"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#include "kernels/cuda_error.hpp"
#include "runtime/nccl_error.hpp"
#include "topomoe/error.hpp"

// TOPOMOE_NCCL_TRY(comm or null, rank, "what was attempted", ncclCall(...))
#define TOPOMOE_NCCL_TRY(comm, rank, what, call) \
  try_nccl((call), comm, rank, what, #call, __FILE__ ":" TOPOMOE_STRINGIFY(__LINE__))

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

void try_nccl(ncclResult_t result, ncclComm_t comm, int rank, const std::string& what, const char* call,
              const char* place) {
  if (result == ncclSuccess) return;
  const char* detail = ncclGetLastError(comm);
  throw NcclError("nccl: rank " + std::to_string(rank) + ": " + what + ": " + ncclGetErrorString(result) +
                  (detail != nullptr && *detail != '\0' ? std::string(" (") + detail + ")" : "") + " in " + call +
                  " at " + place);
}

// 22809 -> "2.28.9", as NCCL encodes its versions since 2.9.
std::string version_text(int v) {
  return std::to_string(v / 10000) + "." + std::to_string(v % 10000 / 100) + "." + std::to_string(v % 100);
}

// Calls between start and end are issued together. An open group would swallow all later calls of the
// thread, so that it is closed in any case.
class NcclGroup {
 public:
  explicit NcclGroup(int rank) : rank_(rank) { TOPOMOE_NCCL_TRY(nullptr, rank_, "open a group", ncclGroupStart()); }
  ~NcclGroup() {
    if (open_) (void)ncclGroupEnd();
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  void end(const std::string& what) {
    open_ = false;
    TOPOMOE_NCCL_TRY(nullptr, rank_, what, ncclGroupEnd());
  }

 private:
  int rank_;
  bool open_ = true;
};

// Where host memory stops over: sends then receives, pinned on the host (or a copy could not overlap
// anything), and the same on the GPU.
struct Stage {
  DeviceMemory host, device;
  std::size_t bytes = 0;
};

// What events share with their communicator, and may outlive it with.
struct NcclState {
  int rank = 0;
  std::vector<ncclComm_t> comms;  // the world's, then the channels'
  std::vector<Stage> idle;
  std::string aborted;
  int culprit = -1;  // of the failure in `aborted`

  // Throws when NCCL has noticed that a transfer cannot go on.
  void check(const std::string& step, double bytes, int peer = -1) const {
    if (!aborted.empty()) throw TransportError({rank, peer, culprit, step, bytes, aborted});
    for (const ncclComm_t comm : comms) {
      ncclResult_t result = ncclSuccess;
      if (ncclCommGetAsyncError(comm, &result) == ncclSuccess && (result == ncclSuccess || result == ncclInProgress))
        continue;
      throw TransportError(rank, peer, step, bytes,
                           std::string(ncclGetErrorString(result)) + ": " + ncclGetLastError(comm));
    }
  }

  Stage take(Device& device, std::size_t bytes) {
    const auto fits = std::find_if(idle.begin(), idle.end(), [&](const Stage& s) { return s.bytes >= bytes; });
    if (fits != idle.end()) {
      Stage s = std::move(*fits);
      idle.erase(fits);
      return s;
    }
    const std::size_t size = std::max<std::size_t>(bytes, 1 << 16);
    DeviceMemory on_device = device.allocate(size);
    void* host = nullptr;
    TOPOMOE_CUDA_TRY("allocate pinned memory", cudaHostAlloc(&host, size, cudaHostAllocDefault));
    return {DeviceMemory(static_cast<std::byte*>(host), [](std::byte* p) { (void)cudaFreeHost(p); }),
            std::move(on_device), size};
  }
};

std::size_t aligned(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

// The end of an exchange of host memory: when the stream is through, the bytes are still in the stage.
class StagedEvent final : public Event {
 public:
  struct Arrival {
    void* to;
    std::size_t offset, bytes;
  };
  StagedEvent(std::shared_ptr<NcclState> state, EventPtr on_stream, Stage stage, std::vector<Arrival> arrivals,
              std::string step, double bytes, int peer)
      : state_(std::move(state)),
        on_stream_(std::move(on_stream)),
        stage_(std::move(stage)),
        arrivals_(std::move(arrivals)),
        step_(std::move(step)),
        bytes_(bytes),
        peer_(peer) {}

  bool poll() override {
    if (done_) return true;
    state_->check(step_, bytes_, peer_);
    if (!on_stream_->poll()) return false;
    for (const Arrival& a : arrivals_) std::memcpy(a.to, stage_.host.get() + a.offset, a.bytes);
    state_->idle.push_back(std::move(stage_));
    return done_ = true;
  }
  void wait(Clock::time_point deadline) override {
    while (!poll()) {
      if (Clock::now() > deadline) throw TransportError(state_->rank, peer_, step_, bytes_, "not over at the deadline");
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

 private:
  std::shared_ptr<NcclState> state_;
  EventPtr on_stream_;
  Stage stage_;
  std::vector<Arrival> arrivals_;
  std::string step_;
  double bytes_;
  int peer_;
  bool done_ = false;
};

// A transfer of GPU memory: lanes wait for it on the GPU; a host that waits also hears of NCCL's errors.
class NcclEvent final : public Event {
 public:
  NcclEvent(std::shared_ptr<NcclState> state, EventPtr recorded, std::string step, double bytes, int peer)
      : state_(std::move(state)), recorded_(std::move(recorded)), step_(std::move(step)), bytes_(bytes), peer_(peer) {}

  bool poll() override {
    state_->check(step_, bytes_, peer_);
    return recorded_->poll();
  }
  void wait(Clock::time_point deadline) override {
    while (!poll()) {
      if (Clock::now() > deadline)
        throw TransportError(state_->rank, peer_, step_, bytes_, "the GPU did not finish it by the deadline");
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
  void* native_event() override { return recorded_->native_event(); }

 private:
  std::shared_ptr<NcclState> state_;
  EventPtr recorded_;
  std::string step_;
  double bytes_;
  int peer_;
};

class NcclCommunicator final : public Communicator {
 public:
  // Takes over `world`, which has this rank.
  NcclCommunicator(Device& device, ncclComm_t world, const NcclOptions& options) : device_(device), options_(options) {
    state_->comms.push_back(world);
    TOPOMOE_NCCL_TRY(world, -1, "ask for the rank", ncclCommUserRank(world, &state_->rank));
    TOPOMOE_NCCL_TRY(world, state_->rank, "ask for the size", ncclCommCount(world, &size_));
    scratch_ = device.allocate(static_cast<std::size_t>(size_) + 1);
    device.native_queue(Lane::inter_node);  // selects the GPU
    TOPOMOE_CUDA_TRY("create a stream", cudaStreamCreateWithFlags(&control_, cudaStreamNonBlocking));
    TOPOMOE_CUDA_TRY("zero memory", cudaMemsetAsync(scratch_.get(), 0, static_cast<std::size_t>(size_) + 1, control_));
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  ~NcclCommunicator() override {
    // ncclCommDestroy waits for what is under way, which after an error may be for ever.
    if (std::uncaught_exceptions() > exceptions_)
      fail({.rank = rank(), .step = "none", .why = "destroyed while an error is on its way"});
    if (control_ != nullptr) (void)cudaStreamDestroy(control_);
    if (!state_->aborted.empty()) return;
    for (auto c = state_->comms.rbegin(); c != state_->comms.rend(); ++c) (void)ncclCommDestroy(*c);
    state_->comms.clear();
    state_->aborted = "the communicator is gone";
  }

  int rank() const override { return state_->rank; }
  int size() const override { return size_; }

  ChannelId open_channel(std::span<const int> members) override {
    state_->check("open channel", 0);
    const auto me = std::find(members.begin(), members.end(), rank());
    if (me == members.end())
      throw InvalidInput("members", std::to_string(members.size()) + " ranks",
                         "must hold rank " + std::to_string(rank()));
    const int index = static_cast<int>(me - members.begin()), count = static_cast<int>(members.size());
    device_.native_queue(Lane::inter_node);
    Channel channel;
    channel.members.assign(members.begin(), members.end());
    // The channels of one call partition the world, so that its smallest rank names a channel.
    TOPOMOE_NCCL_TRY(
        world(), rank(), "open a channel",
        ncclCommSplit(world(), *std::min_element(members.begin(), members.end()), index, &channel.comm, nullptr));
    state_->comms.push_back(channel.comm);
    int its_rank = -1, its_size = 0;
    TOPOMOE_NCCL_TRY(channel.comm, rank(), "ask for the rank", ncclCommUserRank(channel.comm, &its_rank));
    TOPOMOE_NCCL_TRY(channel.comm, rank(), "ask for the size", ncclCommCount(channel.comm, &its_size));
    if (its_rank != index || its_size != count)
      throw InvalidInput("members", std::to_string(count) + " ranks",
                         "ranks disagree about who is in the channel, and in which order");
    connect(channel.comm, index, count);
    channels_.push_back(std::move(channel));
    return static_cast<ChannelId>(channels_.size()) - 1;
  }

  EventPtr exchange(ChannelId id, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    Channel& channel = channels_.at(static_cast<std::size_t>(id));
    const std::string step(info.step);
    double total = 0;
    for (const Outgoing& s : sends) total += static_cast<double>(s.bytes);
    state_->check(step, total);
    const auto stream = static_cast<cudaStream_t>(device_.native_queue(info.lane));
    // NCCL wants the operations of one comm in one order, whatever the streams.
    if (channel.last && channel.lane != info.lane) device_.wait(info.lane, channel.last, Clock::now());
    channel.lane = info.lane;
    if (info.memory == MemorySpace::cuda) {
      transfer(channel, sends, receives, stream, step);
      channel.last = device_.record(info.lane);
      return std::make_shared<NcclEvent>(state_, channel.last, step, total, only_peer(channel, sends, receives));
    }
    return staged(channel, sends, receives, info, stream, step, total);
  }

  void progress() override { state_->check("progress", 0); }

  void barrier() override {
    state_->check("barrier", 0);
    device_.native_queue(Lane::inter_node);
    TOPOMOE_NCCL_TRY(world(), rank(), "barrier",
                     ncclAllReduce(scratch_.get(), scratch_.get(), 1, ncclUint8, ncclMax, world(), control_));
    wait_control("barrier");
  }

  // Ends the kernels of this rank; the others notice at their deadline, or when NCCL sees a connection close.
  void fail(const Failure& failure) noexcept override {
    if (!state_->aborted.empty()) return;
    state_->culprit = failure.culprit;
    try {
      state_->aborted = "rank " + std::to_string(failure.rank) + " failed: " + failure.why;
    } catch (...) {  // no memory for the reason
      state_->aborted = "failed";
    }
    for (const ncclComm_t comm : state_->comms) (void)ncclCommAbort(comm);
    state_->comms.clear();
  }

 private:
  struct Channel {
    ncclComm_t comm = nullptr;
    std::vector<int> members;      // world ranks
    Lane lane = Lane::inter_node;  // of the last exchange
    EventPtr last;                 // its end
  };

  ncclComm_t world() const { return state_->comms.front(); }

  // The world rank of the one other that an exchange is with, -1 where they are several: NCCL tells only that
  // something failed.
  int only_peer(const Channel& c, std::span<const Outgoing> sends, std::span<const Incoming> receives) const {
    int only = -1;
    bool several = false;
    const auto add = [&](int peer, std::size_t bytes) {
      const int its_rank = c.members.at(static_cast<std::size_t>(peer));
      if (bytes == 0 || its_rank == rank()) return;
      several = several || (only >= 0 && only != its_rank);
      only = its_rank;
    };
    for (const Outgoing& s : sends) add(s.peer, s.bytes);
    for (const Incoming& r : receives) add(r.peer, r.bytes);
    return several ? -1 : only;
  }

  void transfer(const Channel& c, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                cudaStream_t stream, const std::string& step) {
    NcclGroup group(rank());
    for (const Incoming& r : receives)
      if (r.bytes > 0)
        TOPOMOE_NCCL_TRY(c.comm, rank(), step, ncclRecv(r.data, r.bytes, ncclUint8, r.peer, c.comm, stream));
    for (const Outgoing& s : sends)
      if (s.bytes > 0)
        TOPOMOE_NCCL_TRY(c.comm, rank(), step, ncclSend(s.data, s.bytes, ncclUint8, s.peer, c.comm, stream));
    group.end(step);
  }

  EventPtr staged(Channel& channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                  const ExchangeInfo& info, cudaStream_t stream, const std::string& step, double total) {
    std::size_t out_bytes = 0, bytes = 0;
    for (const Outgoing& s : sends) out_bytes += aligned(s.bytes);
    bytes = out_bytes;
    for (const Incoming& r : receives) bytes += aligned(r.bytes);
    Stage stage = state_->take(device_, bytes);
    std::vector<Outgoing> gpu_sends;
    std::vector<Incoming> gpu_receives;
    std::vector<StagedEvent::Arrival> arrivals;
    std::size_t offset = 0;
    for (const Outgoing& s : sends) {
      if (s.bytes > 0) std::memcpy(stage.host.get() + offset, s.data, s.bytes);
      gpu_sends.push_back({s.peer, stage.device.get() + offset, s.bytes});
      offset += aligned(s.bytes);
    }
    for (const Incoming& r : receives) {
      if (r.bytes > 0) arrivals.push_back({r.data, offset, r.bytes});
      gpu_receives.push_back({r.peer, stage.device.get() + offset, r.bytes});
      offset += aligned(r.bytes);
    }
    if (out_bytes > 0)
      TOPOMOE_CUDA_TRY("stage metadata", cudaMemcpyAsync(stage.device.get(), stage.host.get(), out_bytes,
                                                         cudaMemcpyHostToDevice, stream));
    transfer(channel, gpu_sends, gpu_receives, stream, step);
    if (bytes > out_bytes)
      TOPOMOE_CUDA_TRY("fetch metadata", cudaMemcpyAsync(stage.host.get() + out_bytes, stage.device.get() + out_bytes,
                                                         bytes - out_bytes, cudaMemcpyDeviceToHost, stream));
    channel.last = device_.record(info.lane);
    return std::make_shared<StagedEvent>(state_, channel.last, std::move(stage), std::move(arrivals), step, total,
                                         only_peer(channel, sends, receives));
  }

  // NCCL connects two ranks when they first exchange something, and blocks the host over it.
  void connect(ncclComm_t comm, int index, int count) {
    NcclGroup group(rank());
    for (int peer = 0; peer < count; ++peer) {
      if (peer == index) continue;
      TOPOMOE_NCCL_TRY(comm, rank(), "connect",
                       ncclRecv(scratch_.get() + 1 + peer, 1, ncclUint8, peer, comm, control_));
      TOPOMOE_NCCL_TRY(comm, rank(), "connect", ncclSend(scratch_.get(), 1, ncclUint8, peer, comm, control_));
    }
    group.end("connect");
    wait_control("open channel");
  }

  void wait_control(const char* step) {
    const auto deadline = Clock::now() + options_.barrier_deadline;
    while (true) {
      const cudaError_t status = cudaStreamQuery(control_);
      if (status == cudaSuccess) return;
      if (status != cudaErrorNotReady) TOPOMOE_CUDA_TRY(step, status);
      state_->check(step, 0);
      if (Clock::now() > deadline) throw TransportError(rank(), -1, step, 0, "not all ranks came before the deadline");
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

  Device& device_;
  NcclOptions options_;
  int size_ = 1;
  int exceptions_ = std::uncaught_exceptions();
  std::shared_ptr<NcclState> state_ = std::make_shared<NcclState>();
  DeviceMemory scratch_;            // the byte that barriers and connections send, then one for each peer
  cudaStream_t control_ = nullptr;  // of barriers and connections: never behind a lane
  std::vector<Channel> channels_;
};

void* select(Device& device) {
  if (device.memory_space() != MemorySpace::cuda)
    throw InvalidInput("device", device.name(), "nccl moves GPU memory: take a CUDA device");
  return device.native_queue(Lane::inter_node);
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Device& device, int rank, int size, const Broadcast& broadcast,
                                                     const NcclOptions& options) {
  if (size < 1 || rank < 0 || rank >= size)
    throw InvalidInput("rank", std::to_string(rank), "0 to size - 1, size is " + std::to_string(size));
  select(device);
  ncclUniqueId id{};
  if (rank == 0) TOPOMOE_NCCL_TRY(nullptr, rank, "make a unique id", ncclGetUniqueId(&id));
  broadcast(&id, sizeof id);
  ncclComm_t world = nullptr;
  TOPOMOE_NCCL_TRY(nullptr, rank, "join " + std::to_string(size) + " ranks", ncclCommInitRank(&world, size, id, rank));
  return std::make_unique<NcclCommunicator>(device, world, options);
}

std::unique_ptr<Communicator> make_nccl_communicator(Device& device, void* nccl_comm, const NcclOptions& options) {
  if (nccl_comm == nullptr) throw InvalidInput("ncclComm_t", "null", "an initialised communicator");
  select(device);
  const auto callers = static_cast<ncclComm_t>(nccl_comm);
  int rank = -1;
  TOPOMOE_NCCL_TRY(callers, rank, "ask for the rank", ncclCommUserRank(callers, &rank));
  ncclComm_t world = nullptr;
  TOPOMOE_NCCL_TRY(callers, rank, "split the caller's communicator", ncclCommSplit(callers, 0, rank, &world, nullptr));
  return std::make_unique<NcclCommunicator>(device, world, options);
}

std::string nccl_description() {
  int loaded = 0;
  const bool known = ncclGetVersion(&loaded) == ncclSuccess;
  return "NCCL " + version_text(NCCL_VERSION_CODE) + " (loaded " + (known ? version_text(loaded) : "unknown") + ")";
}

}  // namespace topomoe
