// ncclComm_t's of our own: made, waited for and ended by calls that do not block, so that each has a deadline.
//
// In NCCL's non-blocking mode a call may return before it has done its work; the comm is then "in progress", and takes
// no further call (nor may its stream be used) until ncclCommGetAsyncError says otherwise: settle() waits for that. A
// comm that the caller made is split from and nothing else: it is never ended or aborted here, also when its split
// does not end. If it is a blocking one, NCCL blocks in that one split, and no deadline holds there.
#pragma once

#include <nccl.h>

#include <chrono>
#include <span>
#include <string>

#include "topomoe/error.hpp"

// TOPOMOE_NCCL_TRY(comm or null, rank, "what was attempted", ncclCall(...)): throws NcclError. What is in progress is
// no failure; settle() says how it ends.
#define TOPOMOE_NCCL_TRY(comm, rank, what, call) \
  nccl::try_nccl((call), comm, rank, what, #call, __FILE__ ":" TOPOMOE_STRINGIFY(__LINE__))

namespace topomoe::nccl {

using Clock = std::chrono::steady_clock;

void try_nccl(ncclResult_t result, ncclComm_t comm, int rank, const std::string& what, const char* call,
              const char* place);

// What a comm's asynchronous error is; ncclInProgress where it works on something.
ncclResult_t state_of(ncclComm_t comm);
std::string error_text(ncclResult_t result, ncclComm_t comm);

// Waits until the comm has done what it was told; `what` is whom to name if it fails or passes the deadline
// (TransportError, with `why` filled in).
void settle(ncclComm_t comm, Clock::time_point deadline, Failure what);

// Joins a world. Aborts what was begun when it throws.
ncclComm_t join(int size, const ncclUniqueId& id, int rank, Clock::time_point deadline);

// The part of `parent` with this color. The parent is in progress meanwhile, and still is if that is why this throws.
ncclComm_t split(ncclComm_t parent, int color, int key, Clock::time_point deadline, const Failure& what);

// Ends comms that nothing is under way on, the last first. Collective: what the others do not end by the deadline is
// aborted.
void finish(std::span<const ncclComm_t> comms, Clock::time_point deadline) noexcept;

void abort(ncclComm_t comm) noexcept;

}  // namespace topomoe::nccl
