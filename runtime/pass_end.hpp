// The end of a pass on a device whose lanes run beside the host: one event for a caller's stream, which also says what
// failed to whoever waits for it on the host. It must not outlive the pass's communicator.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "topomoe/communicator.hpp"

namespace topomoe {

// What a device says of a lane that does not get on, which knows neither rank nor step, with these; others as they are.
TransportError named(const TransportError& e, int rank, const std::string& step);

class PassEnd final : public Event {
 public:
  using Clock = std::chrono::steady_clock;
  struct Part {
    EventPtr event;  // of one step
    std::size_t row = 0;
    double end_s = 0;  // when somebody first saw that it is over, since `begin`; 0: nobody has
    std::string step = "pass";
  };
  // `end` happens when all parts have.
  PassEnd(std::vector<Part> parts, EventPtr end, Communicator& communicator, Clock::time_point begin,
          std::chrono::milliseconds deadline);

  bool poll() override;
  // In order of the steps, so that the first that does not end is named. Fails the communicator before it throws.
  void wait(Clock::time_point deadline) override;
  void* native_event() override { return end_->native_event(); }

  // Waits with the pass's own deadline.
  void wait() { wait(Clock::now() + deadline_); }
  // On the device alone, without a word of what failed: for destructors.
  void drain() noexcept;
  const std::vector<Part>& parts() const { return parts_; }

 private:
  bool look();

  std::vector<Part> parts_;
  EventPtr end_;
  Communicator& communicator_;
  Clock::time_point begin_;
  std::chrono::milliseconds deadline_;
  std::size_t open_ = 0;  // all parts before it are over
};

}  // namespace topomoe
