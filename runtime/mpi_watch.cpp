#include "runtime/mpi_watch.hpp"

#include <atomic>
#include <random>

namespace topomoe::mpi {
namespace {

// How long a rank that gives up waits for the others to say that they live. Assumed: ranks answer from every wait,
// and from kernels every millisecond; what takes longer is a core that several ranks share.
constexpr auto kPatience = std::chrono::milliseconds(500);
// Between two looks at the mail while waiting. Assumed: next to a deadline nothing, and one system call.
constexpr auto kLook = std::chrono::milliseconds(5);

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

Watch::Watch(int rank, int size, BlackBox* box, std::chrono::milliseconds patience)
    : box_(box != nullptr ? *box : own_), distress_(rank, size, box_), patience_(patience) {
  box_.rank = rank;
  for (int r = 0; r < size; ++r)
    if (r != rank) others_.push_back(r);
}

Watch::~Watch() {
  box_.distress = nullptr;
  if (!failure_) box_.wait_ends();
}

void Watch::connect(MPI_Comm comm) {
  std::vector<DistressAddress> all(others_.size() + 1);
  const DistressAddress mine = distress_.mine();
  std::uint64_t job = (std::uint64_t{std::random_device()()} << 32) + std::random_device()();
  const InsideMpi inside(*this, "addresses", others_, 0);
  try_mpi(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, comm), rank(), "addresses");
  try_mpi(MPI_Bcast(&job, sizeof job, MPI_BYTE, 0, comm), rank(), "addresses");
  distress_.connect(all, job);
  box_.distress = &distress_;
}

void Watch::come_together(MPI_Comm comm, const char* step) {
  const bool connected = box_.distress != nullptr;
  const auto deadline = soon();
  const auto other = [&](int culprit) { return culprit == rank() ? -1 : culprit; };  // all are waited for
  box_.wait_begins(step, others_, 0, deadline);
  MPI_Request request = MPI_REQUEST_NULL;
  try_mpi(MPI_Ibarrier(comm, &request), rank(), step);
  ask_before(deadline);
  for (Pause pause;; pause()) {
    int over = 0;
    try_mpi(MPI_Test(&request, &over, MPI_STATUS_IGNORE), rank(), step);
    if (over != 0) break;
    if (connected) {
      if (const auto culprit = hear()) throw TransportError({rank(), other(*culprit), *culprit, step, 0, kTold});
      ask_if_due(Clock::now());
    }
    if (Clock::now() > deadline) {
      const int culprit = connected ? conclude() : others_.size() == 1 ? others_[0] : -1;
      throw TransportError({rank(), other(culprit), culprit, step, 0, "not all ranks came before the deadline"});
    }
  }
  box_.wait_ends();
}

std::optional<int> Watch::hear() {
  const auto now = Clock::now();
  if (now < next_look_) return std::nullopt;
  next_look_ = now + kLook;
  const int culprit = distress_.look();
  return culprit < 0 ? std::nullopt : std::optional(culprit);
}

int Watch::ask() { return distress_.ask(kPatience, Blame::the_busy_too); }

void Watch::ask_before(Clock::time_point deadline) {
  asked_for_ = deadline;
  asking_ = false;
}

void Watch::ask_if_due(Clock::time_point now) {
  if (asking_ || now < asked_for_ - kPatience) return;
  asking_ = true;
  distress_.start_asking();
}

int Watch::conclude() { return asking_ ? distress_.conclude(kPatience, Blame::the_busy_too) : ask(); }

void Watch::fail(const Failure& f) noexcept {
  if (failure_) return;
  leave_behind();
  try {
    failure_ = f;
  } catch (...) {  // no memory for the text
    failure_.emplace();
  }
  distress_.tell(f.culprit);
}

}  // namespace topomoe::mpi
