#include "runtime/nccl_comm.hpp"

#include <atomic>
#include <memory>
#include <thread>

#include "runtime/nccl_error.hpp"

namespace topomoe::nccl {
namespace {

// Between two looks. Assumed: short next to a launch (tens of microseconds) that settle() waits for in a step.
constexpr auto kLook = std::chrono::microseconds(2);

ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

// False at the deadline. The first looks come at once: most calls are over by then.
bool settles(ncclComm_t comm, Clock::time_point deadline, ncclResult_t& result) {
  for (int looks = 0;; ++looks) {
    result = state_of(comm);
    if (result != ncclInProgress) return true;
    if (Clock::now() > deadline) return false;
    if (looks < 100)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(kLook);
  }
}

}  // namespace

void try_nccl(ncclResult_t result, ncclComm_t comm, int rank, const std::string& what, const char* call,
              const char* place) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw NcclError("nccl: rank " + std::to_string(rank) + ": " + what + ": " + error_text(result, comm) + " in " + call +
                  " at " + place);
}

ncclResult_t state_of(ncclComm_t comm) {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm, &state);
  return asked == ncclSuccess ? state : asked;
}

std::string error_text(ncclResult_t result, ncclComm_t comm) {
  const char* detail = ncclGetLastError(comm);
  return ncclGetErrorString(result) +
         (detail != nullptr && *detail != '\0' ? std::string(" (") + detail + ")" : std::string());
}

void settle(ncclComm_t comm, Clock::time_point deadline, Failure what) {
  ncclResult_t result = ncclSuccess;
  const bool over = settles(comm, deadline, result);
  if (over && result == ncclSuccess) return;
  what.why = over ? error_text(result, comm) : "NCCL is still at it at the deadline";
  throw TransportError(what);
}

ncclComm_t join(int size, const ncclUniqueId& id, int rank, Clock::time_point deadline) {
  const std::string what = "join " + std::to_string(size) + " ranks";
  ncclConfig_t config = non_blocking();
  ncclComm_t world = nullptr;
  TOPOMOE_NCCL_TRY(nullptr, rank, what, ncclCommInitRankConfig(&world, size, id, rank, &config));
  try {
    settle(world, deadline, {.rank = rank, .peer = size == 2 ? 1 - rank : -1, .step = what});
  } catch (...) {
    abort(world);
    throw;
  }
  return world;
}

ncclComm_t split(ncclComm_t parent, int color, int key, Clock::time_point deadline, const Failure& what) {
  ncclConfig_t config = non_blocking();
  // NCCL fills it in when the split is over, which after a deadline may be any time.
  auto child = std::make_unique<ncclComm_t>(nullptr);
  TOPOMOE_NCCL_TRY(parent, what.rank, what.step, ncclCommSplit(parent, color, key, child.get(), &config));
  try {
    settle(parent, deadline, what);
  } catch (...) {
    (void)child.release();
    throw;
  }
  const ncclComm_t made = std::atomic_ref<ncclComm_t>(*child).load();
  try {
    settle(made, deadline, what);
  } catch (...) {
    abort(made);
    throw;
  }
  return made;
}

void finish(std::span<const ncclComm_t> comms, Clock::time_point deadline) noexcept {
  for (auto c = comms.rbegin(); c != comms.rend(); ++c) {
    const ncclResult_t begun = ncclCommFinalize(*c);
    ncclResult_t result = begun;
    if ((begun == ncclSuccess || begun == ncclInProgress) && settles(*c, deadline, result) && result == ncclSuccess)
      (void)ncclCommDestroy(*c);
    else
      abort(*c);
  }
}

void abort(ncclComm_t comm) noexcept { (void)ncclCommAbort(comm); }

}  // namespace topomoe::nccl
