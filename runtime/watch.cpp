#include "runtime/watch.hpp"

namespace topomoe {
namespace {

// How long a rank that gives up waits for the others to say that they live. Assumed: ranks answer from every wait,
// and from kernels every millisecond; what takes longer is a core that several ranks share.
constexpr auto kPatience = std::chrono::milliseconds(500);
// Between two looks at the mail while waiting. Assumed: next to a deadline nothing, and one system call.
constexpr auto kLook = std::chrono::milliseconds(5);

}  // namespace

Watch::Watch(int rank, int size, BlackBox* box) : box_(box != nullptr ? *box : own_), distress_(rank, size, box_) {
  box_.rank = rank;
  for (int r = 0; r < size; ++r)
    if (r != rank) others_.push_back(r);
}

Watch::~Watch() {
  box_.distress = nullptr;
  if (!failure_) box_.wait_ends();
}

void Watch::connect(const std::vector<DistressAddress>& all, std::uint64_t job) {
  distress_.connect(all, job);
  box_.distress = &distress_;
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
  try {
    failure_ = f;
  } catch (...) {  // no memory for the text
    failure_.emplace();
  }
  distress_.tell(f.culprit);
}

}  // namespace topomoe
