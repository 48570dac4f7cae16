// NCCL between threads: see fake_gpu.hpp. A comm is a world of inproc communicators with one channel.

#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/communicator_inproc.hpp"
#include "tests/runtime/fake_gpu.hpp"

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

  std::unique_ptr<Communicator> communicator;
  ChannelId channel = 0;
  std::atomic<bool> failed = false;
};

namespace {

using Worlds = std::vector<std::unique_ptr<Communicator>>;

std::mutex registry_mutex;
std::map<std::string, std::shared_ptr<Worlds>> registry;  // by unique id

struct Group {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  cudaStream_t stream = nullptr;
};
thread_local int depth = 0;
thread_local std::map<ncclComm*, Group> groups;

}  // namespace

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

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  const std::lock_guard lock(registry_mutex);
  auto& world = registry[id.internal];
  if (!world) world = std::make_shared<Worlds>(topomoe::make_inproc_world(size));
  *comm = new ncclComm(std::move((*world)[static_cast<std::size_t>(rank)]));
  return ncclSuccess;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* split, ncclConfig_t*) {
  struct Choice {
    int color, key, rank;
  };
  const int rank = comm->communicator->rank();
  auto choices = comm->all_gather(Choice{color, key, rank});
  std::erase_if(choices, [&](const Choice& c) { return c.color != color; });
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.key < b.key; });
  // The first one makes the world, and all hear where it is.
  Worlds mine;
  if (choices[0].rank == rank) mine = topomoe::make_inproc_world(static_cast<int>(choices.size()));
  const auto worlds = comm->all_gather(&mine);
  Worlds& ours = *worlds[static_cast<std::size_t>(choices[0].rank)];
  for (std::size_t i = 0; i < choices.size(); ++i)
    if (choices[i].rank == rank) *split = new ncclComm(std::move(ours[i]));
  comm->all_gather(0);  // all have taken theirs
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->communicator->rank();
  return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->communicator->size();
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  *result = comm->failed ? ncclRemoteError : ncclSuccess;
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
// Unlike NCCL's it reaches all ranks at once, and leaks: a stream may be about to use the comm.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->communicator->fail({.rank = comm->communicator->rank(), .step = "ncclCommAbort", .why = "ncclCommAbort"});
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--depth > 0) return ncclSuccess;
  for (auto& [comm, group] : groups)
    topomoe::testing::enqueue(group.stream, [c = comm, g = std::move(group)] { c->exchange(g.sends, g.receives); });
  groups.clear();
  return ncclSuccess;
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  groups[comm].sends.push_back({peer, data, count});
  groups[comm].stream = stream;
  return depth > 0 ? ncclSuccess : ncclInvalidUsage;
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t stream) {
  groups[comm].receives.push_back({peer, data, count});
  groups[comm].stream = stream;
  return depth > 0 ? ncclSuccess : ncclInvalidUsage;
}
ncclResult_t ncclAllReduce(const void* in, void* out, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t comm,
                           cudaStream_t stream) {
  topomoe::testing::enqueue(stream, [=] {
    const auto all = comm->all_gather(*static_cast<const unsigned char*>(in));
    *static_cast<unsigned char*>(out) = *std::max_element(all.begin(), all.end());
  });
  return ncclSuccess;
}
}
