// What the waits of a communicator of processes share: the black box, the mail of other ranks, and the failure that
// ended it all.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <vector>

#include "runtime/distress.hpp"
#include "topomoe/black_box.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

class Watch {
 public:
  using Clock = std::chrono::steady_clock;

  // `box` null: one of its own.
  Watch(int rank, int size, BlackBox* box) : box_(box != nullptr ? *box : own_), distress_(rank, size, box_) {
    box_.rank = rank;
    for (int r = 0; r < size; ++r)
      if (r != rank) others_.push_back(r);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    box_.distress = nullptr;
    if (!failure_) box_.wait_ends();
  }

  int rank() const { return box_.rank; }
  std::span<const int> others() const { return others_; }
  BlackBox& box() { return box_; }
  const DistressAddress& mine() const { return distress_.mine(); }

  void connect(const std::vector<DistressAddress>& all, std::uint64_t job) {
    distress_.connect(all, job);
    box_.distress = &distress_;
  }

  // Answers the others. The culprit that one of them named, once that happened.
  std::optional<int> hear() {
    const auto now = Clock::now();
    if (now < next_look_) return std::nullopt;
    next_look_ = now + kLook;
    const int culprit = distress_.look();
    return culprit < 0 ? std::nullopt : std::optional(culprit);
  }

  int ask() { return distress_.ask(kPatience, Blame::the_busy_too); }

  // For a wait that may end at `deadline`: the others are asked a little earlier, so that their answers are here by
  // then.
  void ask_before(Clock::time_point deadline) {
    asked_for_ = deadline;
    asking_ = false;
  }
  void ask_if_due(Clock::time_point now) {
    if (asking_ || now < asked_for_ - kPatience) return;
    asking_ = true;
    distress_.start_asking();
  }
  int conclude() { return asking_ ? distress_.conclude(kPatience, Blame::the_busy_too) : ask(); }

  void fail(const Failure& f) noexcept {
    if (failure_) return;
    try {
      failure_ = f;
    } catch (...) {  // no memory for the text
      failure_.emplace();
    }
    distress_.tell(f.culprit);
  }
  void check() const {
    if (failure_) throw TransportError(*failure_);
  }
  bool failed() const { return failure_.has_value(); }

  static constexpr const char* kTold = "another rank named the culprit";

 private:
  // How long a rank that gives up waits for the others to say that they live. Assumed: ranks answer from every wait,
  // and from kernels every millisecond; what takes longer is a core that several ranks share.
  static constexpr auto kPatience = std::chrono::milliseconds(500);
  // Between two looks at the mail while waiting. Assumed: next to a deadline nothing, and one system call.
  static constexpr auto kLook = std::chrono::milliseconds(5);

  BlackBox own_;
  BlackBox& box_;
  Distress distress_;
  std::vector<int> others_;
  Clock::time_point next_look_{}, asked_for_{};
  bool asking_ = false;
  std::optional<Failure> failure_;
};

}  // namespace topomoe
