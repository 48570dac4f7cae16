// What a rank of `topomoe run` says when it ends before its time: one line on stderr, written once and at once.
//
// Four ways lead there: an error of our own; SIGTERM (mpirun ends the survivors of a killed rank); _exit from inside
// Open MPI, which does that to survivors whose connection breaks; and a call into MPI that does not come back, which a
// thread of its own notices soon after the deadline in the black box. The line names rank, peers, culprit, step
// and bytes. Only the program does this: the libraries install no handlers and end no process.
#pragma once

#include <chrono>
#include <memory>

#include "topomoe/black_box.hpp"
#include "topomoe/communicator.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {

// This process's; a communicator is given it.
BlackBox& black_box();

// Before MPI starts, which may take until `deadline`, or 20 s where that is shorter: its threads then leave SIGTERM to
// ours, and a broken pipe is an error and no signal. Rank and size as the launcher told them; -1 and 0 where it did
// not.
void prepare_last_words(int rank, int size, std::chrono::milliseconds deadline);
// Once MPI has started.
void arm_last_words();

// Both around a session of MPI, with the launcher's rank where it told one.
std::unique_ptr<MpiSession> start_mpi(const MpiOptions& options);

// Says it, answers the other ranks until they too had time to speak, ends the job.
[[noreturn]] void leave_job(const topomoe::Failure& failure);
// Tells the other ranks of `job` first: they would wait for us.
[[noreturn]] void give_up(Communicator& job, const std::exception& e);

}  // namespace topomoe::cli
