// Ranks as MPI processes that exchange host memory: several machines, no GPU.
//
// A channel is a tag of one communicator, which is split off the caller's once; an exchange is one nonblocking send or
// receive per transfer, matched by MPI's rule that messages of one sender, communicator and tag do not overtake.
// Calls come from one thread (MPI_THREAD_FUNNELED), and transfers move only while that thread is inside
// one: waits poll, and long kernels must call progress(). Every wait has a deadline, opening a channel too. Only MPI's
// own start and that one split block inside MPI: ranks meet before the split, with a deadline, so that only one that
// dies within it can hold the others, and the black box knows when either should be over. At a deadline ranks ask each
// other who is to blame (runtime/distress.hpp). After a TransportError the buffers stay with MPI, which cannot take
// back a send: MPI can only be left behind. Open MPI may also end a survivor from inside, by _exit, when a connection
// breaks: no library can prevent that. mpi.h is not included here; where MPI is not built in, everything throws
// MissingEnvironment.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "topomoe/black_box.hpp"
#include "topomoe/communicator.hpp"

namespace topomoe {

struct MpiOptions {
  std::size_t largest_message_bytes = std::size_t{1} << 30;  // longer ones are cut: MPI counts in int
  // Of barriers and of opening channels; and what the black box is told of calls that should not block at all.
  std::chrono::milliseconds barrier_deadline = std::chrono::seconds(30);
  // Told of every wait; for whoever speaks a process's last words. Must outlive the communicator.
  BlackBox* black_box = nullptr;
  // What this rank is to be called, where ranks are to have another order (topomoe/rank_check.hpp): all ranks give one,
  // each another. Below 0: as in the communicator given.
  int rank = -1;
};

// MPI_Init at the start unless the caller did that already, and MPI_Finalize at the end if it was us.
// Finalize waits for the other ranks, which only the black box knows a deadline of: declare it outside of the try block
// that reports errors. After a communicator of this process has failed it is left out, as it would wait for the dead.
class MpiSession {
 public:
  explicit MpiSession(const MpiOptions& options = {});
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

 private:
  MpiOptions options_;
  bool finalize_ = false;
};

// Collective over `mpi_comm`, the address of an MPI_Comm, null for MPI_COMM_WORLD. It is duplicated and
// not used after that. MPI must be initialised, and stay so while the communicator lives.
// fail() names the culprit to the other ranks by UDP and leaves the job to its owner.
std::unique_ptr<Communicator> make_mpi_communicator(const void* mpi_comm = nullptr, const MpiOptions& options = {});

// MPI_Abort of all ranks of MPI_COMM_WORLD: for programs that own the job, once they have said what there is to say.
void end_mpi_job() noexcept;

// One line for `topomoe --version`.
std::string mpi_description();

}  // namespace topomoe
