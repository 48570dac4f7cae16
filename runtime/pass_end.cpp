#include "runtime/pass_end.hpp"

#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {

PassEnd::PassEnd(std::vector<Part> parts, EventPtr end, Communicator& communicator, Clock::time_point begin,
                 std::chrono::milliseconds deadline)
    : parts_(std::move(parts)), end_(std::move(end)), communicator_(communicator), begin_(begin), deadline_(deadline) {}

bool PassEnd::look() {
  for (std::size_t i = open_; i < parts_.size(); ++i) {
    Part& p = parts_[i];
    if (p.end_s == 0 && p.event->poll()) p.end_s = std::chrono::duration<double>(Clock::now() - begin_).count();
    if (i == open_ && p.end_s > 0) ++open_;
  }
  return open_ == parts_.size();
}

bool PassEnd::poll() {
  try {
    return look() && end_->poll();
  } catch (const std::exception& e) {
    communicator_.fail(failure_of(e, communicator_.rank()));
    throw;
  }
}

void PassEnd::wait(Clock::time_point deadline) {
  try {
    while (!look()) parts_[open_].event->wait(deadline);
    end_->wait(deadline);
  } catch (const std::exception& e) {
    communicator_.fail(failure_of(e, communicator_.rank()));
    throw;
  }
}

void PassEnd::drain() noexcept {
  try {
    end_->wait(Clock::now() + deadline_);
  } catch (const std::exception&) {  // whoever waits for the pass hears of it
  }
}

}  // namespace topomoe
