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
  Watch(int rank, int size, BlackBox* box);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();

  int rank() const { return box_.rank; }
  std::span<const int> others() const { return others_; }
  BlackBox& box() { return box_; }
  const DistressAddress& mine() const { return distress_.mine(); }

  // From here on the others can be asked.
  void connect(const std::vector<DistressAddress>& all, std::uint64_t job);
  bool connected() const { return box_.distress != nullptr; }

  // Answers the others. The culprit that one of them named, once that happened.
  std::optional<int> hear();
  int ask();

  // For a wait that may end at `deadline`: the others are asked a little earlier, so that their answers are here by
  // then.
  void ask_before(Clock::time_point deadline);
  void ask_if_due(Clock::time_point now);
  int conclude();

  void fail(const Failure& f) noexcept;
  void check() const {
    if (failure_) throw TransportError(*failure_);
  }
  bool failed() const { return failure_.has_value(); }

  static constexpr const char* kTold = "another rank named the culprit";

 private:
  BlackBox own_;
  BlackBox& box_;
  Distress distress_;
  std::vector<int> others_;
  Clock::time_point next_look_{}, asked_for_{};
  bool asking_ = false;
  std::optional<Failure> failure_;
};

}  // namespace topomoe
