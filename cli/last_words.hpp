// What a rank of `topomoe run` says when it ends before its time: one line on stderr, written once and at once.
//
// Three ways lead there: an error of our own, SIGTERM (mpirun ends the survivors of a killed rank), and _exit from
// inside Open MPI, which does that to survivors whose connection breaks. The line names rank, peers, culprit, step
// and bytes. Only the program does this: the libraries install no handlers and end no process.
#pragma once

#include "runtime/black_box.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {

// This process's; a communicator is given it.
BlackBox& black_box();

// Before MPI starts, so that its threads leave SIGTERM to ours: a broken pipe is an error and no signal.
void prepare_last_words();
// Once MPI has started.
void arm_last_words();

// Says it, answers the other ranks until they too had time to speak, ends the job.
[[noreturn]] void leave_job(const topomoe::Failure& failure);

}  // namespace topomoe::cli
