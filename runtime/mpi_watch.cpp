#include "runtime/mpi_watch.hpp"

#include <atomic>
#include <random>

namespace topomoe::mpi {
namespace {

std::atomic<bool> left_behind{false};

}  // namespace

std::string text_of(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return {text, static_cast<std::size_t>(length)};
}

void try_mpi(int code, int rank, const char* what) {
  if (code != MPI_SUCCESS) throw TransportError(rank, -1, what, 0, text_of(code));
}

void leave_behind() noexcept { left_behind = true; }
bool is_left_behind() noexcept { return left_behind; }

void Watch::connect(MPI_Comm comm) {
  std::vector<DistressAddress> all(others().size() + 1);
  const DistressAddress own = mine();
  std::uint64_t job = (std::uint64_t{std::random_device()()} << 32) + std::random_device()();
  const InsideMpi inside(*this, "addresses", others(), 0);
  try_mpi(MPI_Allgather(&own, sizeof own, MPI_BYTE, all.data(), sizeof own, MPI_BYTE, comm), rank(), "addresses");
  try_mpi(MPI_Bcast(&job, sizeof job, MPI_BYTE, 0, comm), rank(), "addresses");
  topomoe::Watch::connect(all, job);
}

void Watch::come_together(MPI_Comm comm, const char* step) {
  const auto deadline = soon();
  const auto other = [&](int culprit) { return culprit == rank() ? -1 : culprit; };  // all are waited for
  box().wait_begins(step, others(), 0, deadline);
  MPI_Request request = MPI_REQUEST_NULL;
  try_mpi(MPI_Ibarrier(comm, &request), rank(), step);
  ask_before(deadline);
  for (Pause pause;; pause()) {
    int over = 0;
    try_mpi(MPI_Test(&request, &over, MPI_STATUS_IGNORE), rank(), step);
    if (over != 0) break;
    if (connected()) {
      if (const auto culprit = hear()) throw TransportError({rank(), other(*culprit), *culprit, step, 0, kTold});
      ask_if_due(Clock::now());
    }
    if (Clock::now() > deadline) {
      const int culprit = connected() ? conclude() : others().size() == 1 ? others()[0] : -1;
      throw TransportError({rank(), other(culprit), culprit, step, 0, "not all ranks came before the deadline"});
    }
  }
  box().wait_ends();
}

void Watch::fail(const Failure& f) noexcept {
  if (failed()) return;
  leave_behind();
  topomoe::Watch::fail(f);
}

}  // namespace topomoe::mpi
