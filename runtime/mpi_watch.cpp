#include "runtime/mpi_watch.hpp"

#include <array>
#include <atomic>
#include <memory>
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
  MPI_Request request = MPI_REQUEST_NULL;
  const auto deadline = soon();
  box().wait_begins(step, others(), 0, deadline);
  try_mpi(MPI_Ibarrier(comm, &request), rank(), step);
  finish(request, deadline, step);
}

std::uint64_t Watch::sum(MPI_Comm comm, std::uint64_t mine, const char* step) {
  MPI_Request request = MPI_REQUEST_NULL;
  const auto deadline = soon();
  auto numbers = std::make_unique<std::array<std::uint64_t, 2>>();
  (*numbers)[0] = mine;
  box().wait_begins(step, others(), 0, deadline);
  try_mpi(MPI_Iallreduce(&(*numbers)[0], &(*numbers)[1], 1, MPI_UINT64_T, MPI_SUM, comm, &request), rank(), step);
  try {
    finish(request, deadline, step);
  } catch (...) {
    (void)numbers.release();  // MPI may still write there: it cannot take back what was started
    throw;
  }
  return (*numbers)[1];
}

void Watch::finish(MPI_Request& request, Clock::time_point deadline, const char* step) {
  const auto other = [&](int culprit) { return culprit == rank() ? -1 : culprit; };  // all are waited for
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
