// NCCL between threads: see fake_gpu.hpp. A comm is a world of inproc communicators with one channel.
//
// Its non-blocking mode is as awkward as NCCL's may be: what a call starts is done when the comm is asked how it goes
// for the third time, or when all ranks have come; any other call on it meanwhile is refused, and a split's comm is
// written when it is over, by another thread.

#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/runtime/fake_gpu.hpp"
#include "topomoe/communicator_inproc.hpp"

using topomoe::ChannelId;
using topomoe::Communicator;
using topomoe::Incoming;
using topomoe::Outgoing;

struct ncclComm {
  explicit ncclComm(std::unique_ptr<Communicator> ranks) : communicator(std::move(ranks)) {
    std::vector<int> everyone(static_cast<std::size_t>(communicator->size()));
    std::iota(everyone.begin(), everyone.end(), 0);
    channel = communicator->open_channel(everyone);
  }
  // Blocks, as the stream's thread may.
  void exchange(const std::vector<Outgoing>& sends, const std::vector<Incoming>& receives) {
    try {
      communicator->exchange(channel, sends, receives, {.step = "fake nccl"})
          ->wait(std::chrono::steady_clock::now() + std::chrono::minutes(2));
    } catch (const std::exception&) {
      failed = true;
    }
  }
  template <class T>
  std::vector<T> all_gather(const T& mine) {
    std::vector<T> all(static_cast<std::size_t>(communicator->size()));
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    for (int i = 0; i < communicator->size(); ++i) {
      sends.push_back({i, &mine, sizeof mine});
      receives.push_back({i, &all[static_cast<std::size_t>(i)], sizeof mine});
    }
    exchange(sends, receives);
    return all;
  }

  // Does `work` after some looks, or now.
  ncclResult_t start(std::function<void()> work) {
    if (blocking) {
      work();
      return ncclSuccess;
    }
    later = std::move(work);
    looks = 0;
    return ncclInProgress;
  }
  bool busy() const { return later != nullptr || splitting || (joined && *joined < communicator->size()); }

  std::unique_ptr<Communicator> communicator;
  ChannelId channel = 0;
  std::atomic<bool> failed = false;
  bool blocking = true, finalized = false;
  std::function<void()> later;
  int looks = 0;
  std::shared_ptr<std::atomic<int>> joined;  // of how many ranks that made it; null for a split's
  std::atomic<bool> splitting = false;
  std::thread splitter;
};

namespace {

using topomoe::testing::FakeNccl;
using Worlds = std::vector<std::unique_ptr<Communicator>>;

struct Joining {
  Worlds worlds;
  std::shared_ptr<std::atomic<int>> joined = std::make_shared<std::atomic<int>>(0);
};

std::mutex registry_mutex;
std::map<std::string, Joining> registry;  // by unique id
FakeNccl ledger;                          // with registry_mutex

ncclComm* make(std::unique_ptr<Communicator> ranks, const ncclConfig_t* config) {
  auto* comm = new ncclComm(std::move(ranks));
  comm->blocking = config == nullptr || config->blocking != 0;
  const std::lock_guard lock(registry_mutex);
  ledger.made.push_back(comm);
  return comm;
}

void note(std::vector<const void*> FakeNccl::*list, ncclComm* comm) {
  const std::lock_guard lock(registry_mutex);
  (ledger.*list).push_back(comm);
}

struct Group {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  cudaStream_t stream = nullptr;
};
thread_local int depth = 0;
thread_local std::map<ncclComm*, Group> groups;

ncclComm* split(ncclComm& comm, int color, int key, const ncclConfig_t* config) {
  struct Choice {
    int color, key, rank;
  };
  const int rank = comm.communicator->rank();
  auto choices = comm.all_gather(Choice{color, key, rank});
  if (comm.failed) return nullptr;
  std::erase_if(choices, [&](const Choice& c) { return c.color != color; });
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.key < b.key; });
  // The first one makes the world, and all hear where it is.
  Worlds mine;
  if (choices[0].rank == rank) mine = topomoe::make_inproc_world(static_cast<int>(choices.size()));
  const auto worlds = comm.all_gather(&mine);
  if (comm.failed) return nullptr;
  Worlds& ours = *worlds[static_cast<std::size_t>(choices[0].rank)];
  ncclComm* part = nullptr;
  for (std::size_t i = 0; i < choices.size(); ++i)
    if (choices[i].rank == rank) part = make(std::move(ours[i]), config);
  comm.all_gather(0);  // all have taken theirs
  return part;
}

}  // namespace

FakeNccl topomoe::testing::fake_nccl() {
  const std::lock_guard lock(registry_mutex);
  return std::exchange(ledger, {});
}

extern "C" {

const char* ncclGetErrorString(ncclResult_t) { return "fake error"; }
const char* ncclGetLastError(ncclComm_t) { return ""; }
ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> next = 0;
  std::memset(id, 0, sizeof *id);
  const std::string text = std::to_string(++next);
  std::copy(text.begin(), text.end(), id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  std::unique_ptr<Communicator> mine;
  std::shared_ptr<std::atomic<int>> joined;
  {
    const std::lock_guard lock(registry_mutex);
    Joining& world = registry[id.internal];
    if (world.worlds.empty()) world.worlds = topomoe::make_inproc_world(size);
    mine = std::move(world.worlds[static_cast<std::size_t>(rank)]);
    joined = world.joined;
  }
  *comm = make(std::move(mine), config);
  ++*joined;
  if ((*comm)->blocking) return ncclSuccess;
  (*comm)->joined = joined;
  return ncclInProgress;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  return ncclCommInitRankConfig(comm, size, id, rank, nullptr);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t* config) {
  if (comm->busy()) return ncclInvalidUsage;
  const ncclConfig_t its = *config;
  if (comm->blocking) {
    *part = split(*comm, color, key, &its);
    return ncclSuccess;
  }
  if (comm->splitter.joinable()) comm->splitter.join();
  comm->splitting = true;
  comm->splitter = std::thread([comm, color, key, part, its] {
    ncclComm* made = split(*comm, color, key, &its);
    std::atomic_ref<ncclComm_t>(*part).store(made);
    comm->splitting = false;
  });
  return ncclInProgress;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  if (comm->busy()) return ncclInvalidUsage;
  *rank = comm->communicator->rank();
  return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  if (comm->busy()) return ncclInvalidUsage;
  *count = comm->communicator->size();
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  if (comm->later && ++comm->looks == 3) std::exchange(comm->later, nullptr)();
  *result = comm->failed ? ncclRemoteError : comm->busy() ? ncclInProgress : ncclSuccess;
  return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (comm->busy() || comm->finalized) return ncclInvalidUsage;
  note(&FakeNccl::finalized, comm);
  comm->finalized = true;
  return comm->start([] {});
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm->busy() || (!comm->blocking && !comm->finalized)) return ncclInvalidUsage;
  note(&FakeNccl::destroyed, comm);
  if (comm->splitter.joinable()) comm->splitter.join();
  delete comm;
  return ncclSuccess;
}
// Unlike NCCL's it reaches all ranks at once, and leaks: a stream may be about to use the comm.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  note(&FakeNccl::aborted, comm);
  comm->communicator->fail({.rank = comm->communicator->rank(), .step = "ncclCommAbort", .why = "ncclCommAbort"});
  if (comm->splitter.joinable()) comm->splitter.join();
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--depth > 0) return ncclSuccess;
  ncclResult_t result = ncclSuccess;
  for (auto& [comm, group] : groups) {
    const auto started =
        comm->start([c = comm, g = std::move(group)] { g.stream->add([c, g] { c->exchange(g.sends, g.receives); }); });
    if (started != ncclSuccess) result = started;
  }
  groups.clear();
  return result;
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  if (depth == 0 || comm->busy() || comm->finalized) return ncclInvalidUsage;
  groups[comm].sends.push_back({peer, data, count});
  groups[comm].stream = stream;
  return ncclSuccess;
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  if (depth == 0 || comm->busy() || comm->finalized) return ncclInvalidUsage;
  groups[comm].receives.push_back({peer, data, count});
  groups[comm].stream = stream;
  return ncclSuccess;
}
ncclResult_t ncclAllReduce(const void* in, void* out, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t comm,
                           cudaStream_t stream) {
  if (comm->busy() || comm->finalized) return ncclInvalidUsage;
  return comm->start([=] {
    stream->add([=] {
      const auto all = comm->all_gather(*static_cast<const unsigned char*>(in));
      *static_cast<unsigned char*>(out) = *std::max_element(all.begin(), all.end());
    });
  });
}
}
