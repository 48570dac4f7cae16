#include "topomoe/communicator_nccl.hpp"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#include "kernels/cuda_error.hpp"
#include "runtime/nccl_comm.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

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
  // All of it is on one comm, and on its stream once this returns.
  void end(ncclComm_t comm, Clock::time_point deadline, const Failure& what) {
    open_ = false;
    TOPOMOE_NCCL_TRY(comm, rank_, what.step, ncclGroupEnd());
    nccl::settle(comm, deadline, what);
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

  // Throws when NCCL has noticed that a transfer cannot go on; `what` is what the caller is at.
  void check(const Failure& what) const {
    if (!aborted.empty()) throw TransportError({rank, what.peer, culprit, what.step, what.bytes, aborted});
    for (const ncclComm_t comm : comms) {
      const ncclResult_t result = nccl::state_of(comm);
      if (result == ncclSuccess || result == ncclInProgress) continue;
      throw TransportError({rank, what.peer, -1, what.step, what.bytes, nccl::error_text(result, comm) + what.why});
    }
  }
  void check(const char* step) const { check(Failure{.rank = rank, .step = step}); }

  // Until `done`, with what NCCL notices meanwhile.
  template <class Done>
  void wait(const Done& done, Clock::time_point deadline, const Failure& what, const char* late) const {
    while (!done()) {
      if (Clock::now() > deadline) throw TransportError({rank, what.peer, -1, what.step, what.bytes, late + what.why});
      std::this_thread::sleep_for(std::chrono::microseconds(20));
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
              Failure what)
      : state_(std::move(state)),
        on_stream_(std::move(on_stream)),
        stage_(std::move(stage)),
        arrivals_(std::move(arrivals)),
        what_(std::move(what)) {}

  bool poll() override {
    if (done_) return true;
    state_->check(what_);
    if (!on_stream_->poll()) return false;
    for (const Arrival& a : arrivals_) std::memcpy(a.to, stage_.host.get() + a.offset, a.bytes);
    state_->idle.push_back(std::move(stage_));
    return done_ = true;
  }
  void wait(Clock::time_point deadline) override {
    state_->wait([&] { return poll(); }, deadline, what_, "not over at the deadline");
  }

 private:
  std::shared_ptr<NcclState> state_;
  EventPtr on_stream_;
  Stage stage_;
  std::vector<Arrival> arrivals_;
  Failure what_;
  bool done_ = false;
};

// A transfer of GPU memory: lanes wait for it on the GPU; a host that waits also hears of NCCL's errors.
class NcclEvent final : public Event {
 public:
  NcclEvent(std::shared_ptr<NcclState> state, EventPtr recorded, Failure what)
      : state_(std::move(state)), recorded_(std::move(recorded)), what_(std::move(what)) {}

  bool poll() override {
    state_->check(what_);
    return recorded_->poll();
  }
  void wait(Clock::time_point deadline) override {
    state_->wait([&] { return poll(); }, deadline, what_, "the GPU did not finish it by the deadline");
  }
  void* native_event() override { return recorded_->native_event(); }

 private:
  std::shared_ptr<NcclState> state_;
  EventPtr recorded_;
  Failure what_;
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
    if (std::uncaught_exceptions() > exceptions_)
      fail({.rank = rank(), .step = "none", .why = "destroyed while an error is on its way"});
    if (control_ != nullptr) (void)cudaStreamDestroy(control_);
    if (!state_->aborted.empty()) return;
    nccl::finish(state_->comms, soon());
    state_->comms.clear();
    state_->aborted = "the communicator is gone";
  }

  int rank() const override { return state_->rank; }
  int size() const override { return size_; }
  std::string refuses(const Device& device) const override {
    return &device == &device_ ? ""
                               : "NCCL exchanges on the lanes of the device that it was made with, " + device_.name();
  }

  ChannelId open_channel(std::span<const int> members) override {
    state_->check("open channel");
    const auto me = std::find(members.begin(), members.end(), rank());
    if (me == members.end())
      throw InvalidInput("members", std::to_string(members.size()) + " ranks",
                         "must hold rank " + std::to_string(rank()));
    const int index = static_cast<int>(me - members.begin()), count = static_cast<int>(members.size());
    device_.native_queue(Lane::inter_node);
    Channel channel;
    channel.members.assign(members.begin(), members.end());
    // The channels of one call partition the world, so that its smallest rank names a channel.
    const Failure what{
        .rank = rank(), .peer = count == 2 ? members[1 - static_cast<std::size_t>(index)] : -1, .step = "open channel"};
    channel.comm = nccl::split(world(), *std::min_element(members.begin(), members.end()), index, soon(), what);
    state_->comms.push_back(channel.comm);
    int its_rank = -1, its_size = 0;
    TOPOMOE_NCCL_TRY(channel.comm, rank(), "ask for the rank", ncclCommUserRank(channel.comm, &its_rank));
    TOPOMOE_NCCL_TRY(channel.comm, rank(), "ask for the size", ncclCommCount(channel.comm, &its_size));
    if (its_rank != index || its_size != count)
      throw InvalidInput("members", std::to_string(count) + " ranks",
                         "ranks disagree about who is in the channel, and in which order");
    connect(channel.comm, index, count, what);
    channels_.push_back(std::move(channel));
    return static_cast<ChannelId>(channels_.size()) - 1;
  }

  EventPtr exchange(ChannelId id, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    Channel& channel = channels_.at(static_cast<std::size_t>(id));
    const Failure what = failure_in(channel, sends, receives, info.step);
    state_->check(what);
    const auto stream = static_cast<cudaStream_t>(device_.native_queue(info.lane));
    // NCCL wants the operations of one comm in one order, whatever the streams.
    if (channel.last && channel.lane != info.lane) device_.wait(info.lane, channel.last, Clock::now());
    channel.lane = info.lane;
    if (info.memory == MemorySpace::cuda) {
      transfer(channel, sends, receives, stream, what);
      channel.last = device_.record(info.lane);
      return std::make_shared<NcclEvent>(state_, channel.last, what);
    }
    return staged(channel, sends, receives, info, stream, what);
  }

  void progress() override { state_->check("progress"); }

  void barrier() override {
    state_->check("barrier");
    device_.native_queue(Lane::inter_node);
    const Failure what{.rank = rank(), .peer = size_ == 2 ? 1 - rank() : -1, .step = "barrier"};
    const auto deadline = soon();
    TOPOMOE_NCCL_TRY(world(), rank(), what.step,
                     ncclAllReduce(scratch_.get(), scratch_.get(), 1, ncclUint8, ncclMax, world(), control_));
    nccl::settle(world(), deadline, what);
    wait_control(deadline, what);
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
    for (const ncclComm_t comm : state_->comms) nccl::abort(comm);
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

  Clock::time_point soon() const { return Clock::now() + options_.barrier_deadline; }

  // What to say should the exchange fail. NCCL tells only that something did: the peer is known where there is one,
  // else `why` names those that it may be.
  Failure failure_in(const Channel& c, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                     std::string_view step) const {
    Failure what{.rank = rank(), .step = std::string(step)};
    std::vector<int> peers;
    const auto add = [&](int peer, std::size_t bytes) {
      const int its_rank = c.members.at(static_cast<std::size_t>(peer));
      what.bytes += static_cast<double>(bytes);
      if (bytes > 0 && its_rank != rank() && std::find(peers.begin(), peers.end(), its_rank) == peers.end())
        peers.push_back(its_rank);
    };
    for (const Outgoing& s : sends) add(s.peer, s.bytes);
    for (const Incoming& r : receives) add(r.peer, r.bytes);
    if (peers.size() == 1) what.peer = peers[0];
    if (peers.size() > 1) what.why = "; with ranks";
    for (std::size_t i = 0; peers.size() > 1 && i < peers.size(); ++i) what.why += " " + std::to_string(peers[i]);
    return what;
  }

  void transfer(const Channel& c, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                cudaStream_t stream, const Failure& what) {
    NcclGroup group(rank());
    for (const Incoming& r : receives)
      if (r.bytes > 0)
        TOPOMOE_NCCL_TRY(c.comm, rank(), what.step, ncclRecv(r.data, r.bytes, ncclUint8, r.peer, c.comm, stream));
    for (const Outgoing& s : sends)
      if (s.bytes > 0)
        TOPOMOE_NCCL_TRY(c.comm, rank(), what.step, ncclSend(s.data, s.bytes, ncclUint8, s.peer, c.comm, stream));
    group.end(c.comm, soon(), what);
  }

  EventPtr staged(Channel& channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                  const ExchangeInfo& info, cudaStream_t stream, const Failure& what) {
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
    transfer(channel, gpu_sends, gpu_receives, stream, what);
    if (bytes > out_bytes)
      TOPOMOE_CUDA_TRY("fetch metadata", cudaMemcpyAsync(stage.host.get() + out_bytes, stage.device.get() + out_bytes,
                                                         bytes - out_bytes, cudaMemcpyDeviceToHost, stream));
    channel.last = device_.record(info.lane);
    return std::make_shared<StagedEvent>(state_, channel.last, std::move(stage), std::move(arrivals), what);
  }

  // NCCL connects two ranks when they first exchange something, and the comm is in progress meanwhile.
  void connect(ncclComm_t comm, int index, int count, const Failure& what) {
    const auto deadline = soon();
    NcclGroup group(rank());
    for (int peer = 0; peer < count; ++peer) {
      if (peer == index) continue;
      TOPOMOE_NCCL_TRY(comm, rank(), "connect",
                       ncclRecv(scratch_.get() + 1 + peer, 1, ncclUint8, peer, comm, control_));
      TOPOMOE_NCCL_TRY(comm, rank(), "connect", ncclSend(scratch_.get(), 1, ncclUint8, peer, comm, control_));
    }
    group.end(comm, deadline, what);
    wait_control(deadline, what);
  }

  void wait_control(Clock::time_point deadline, const Failure& what) {
    const auto done = [&] {
      const cudaError_t status = cudaStreamQuery(control_);
      if (status != cudaSuccess && status != cudaErrorNotReady) TOPOMOE_CUDA_TRY("wait for a stream", status);
      if (status == cudaErrorNotReady) state_->check(what);
      return status == cudaSuccess;
    };
    state_->wait(done, deadline, what, "not all ranks came before the deadline");
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

// `world` is ours: ended with the communicator, or at once where that cannot be made.
std::unique_ptr<Communicator> take_over(Device& device, ncclComm_t world, const NcclOptions& options) {
  try {
    return std::make_unique<NcclCommunicator>(device, world, options);
  } catch (...) {
    nccl::abort(world);
    throw;
  }
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
  return take_over(device, nccl::join(size, id, rank, Clock::now() + options.barrier_deadline), options);
}

std::unique_ptr<Communicator> make_nccl_communicator(Device& device, void* nccl_comm, const NcclOptions& options) {
  if (nccl_comm == nullptr) throw InvalidInput("ncclComm_t", "null", "an initialised communicator");
  select(device);
  const auto callers = static_cast<ncclComm_t>(nccl_comm);
  Failure what{.step = "split the caller's communicator"};
  int size = 0;
  TOPOMOE_NCCL_TRY(callers, what.rank, "ask for the rank", ncclCommUserRank(callers, &what.rank));
  TOPOMOE_NCCL_TRY(callers, what.rank, "ask for the size", ncclCommCount(callers, &size));
  if (size == 2) what.peer = 1 - what.rank;
  const auto deadline = Clock::now() + options.barrier_deadline;
  return take_over(device, nccl::split(callers, 0, what.rank, deadline, what), options);
}

std::string nccl_description() {
  int loaded = 0;
  const bool known = ncclGetVersion(&loaded) == ncclSuccess;
  return "NCCL " + version_text(NCCL_VERSION_CODE) + " (loaded " + (known ? version_text(loaded) : "unknown") + ")";
}

}  // namespace topomoe
