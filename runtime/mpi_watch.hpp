// What the waits of an MPI communicator share: how they pause, what they tell the black box and the other ranks, and
// the failure that ended it all. For communicator_mpi.cpp and mpi_flight.cpp.
//
// Any call into MPI may be one that does not come back: Open MPI's own abort can block for ever in a survivor. The
// black box therefore holds an entry around each of them, with the time at which it should be over; whoever owns the
// process may watch that (cli/last_words.cpp does).
#pragma once

// Neither library's deprecated C++ bindings.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>

#include "runtime/watch.hpp"

namespace topomoe::mpi {

using Clock = std::chrono::steady_clock;

std::string text_of(int code);
void try_mpi(int code, int rank, const char* what);

// MPI is one a process, and so is whether it can still be finalized.
void leave_behind() noexcept;
bool is_left_behind() noexcept;

// Between two polls of a wait. With more ranks than cores the peer we wait for may need this very core, so
// yield from the start, and sleep once it is clear that the wait is no short one.
class Pause {
 public:
  void operator()() {
    if (++polls_ < 2000) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

 private:
  int polls_ = 0;
};

class Watch : public topomoe::Watch {
 public:
  // `patience`: how long a call may take that no wait's deadline bounds.
  Watch(int rank, int size, BlackBox* box, std::chrono::milliseconds patience)
      : topomoe::Watch(rank, size, box), patience_(patience) {}
  Clock::time_point soon() const { return Clock::now() + patience_; }

  // The ranks tell each other how to be reached. Collective.
  void connect(MPI_Comm comm);

  // Waits until all ranks are here, so that a blocking collective which follows does not wait for an absent one.
  void come_together(MPI_Comm comm, const char* step);
  // Of all ranks' numbers, on all. Collective, with a deadline.
  std::uint64_t sum(MPI_Comm comm, std::uint64_t mine, const char* step);

  // And MPI is not to be finalized.
  void fail(const Failure& f) noexcept;

 private:
  void finish(MPI_Request& request, Clock::time_point deadline, const char* step);
  std::chrono::milliseconds patience_;
};

// Around calls into MPI that are no waits: what the black box says should they not come back.
class InsideMpi {
 public:
  InsideMpi(Watch& watch, std::string_view step, std::span<const int> peers, double bytes) : box_(watch.box()) {
    box_.wait_begins(step, peers, bytes, watch.soon());
  }
  ~InsideMpi() { box_.wait_ends(); }
  InsideMpi(const InsideMpi&) = delete;
  InsideMpi& operator=(const InsideMpi&) = delete;

 private:
  BlackBox& box_;
};

}  // namespace topomoe::mpi
