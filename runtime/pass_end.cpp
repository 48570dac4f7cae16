#include "runtime/pass_end.hpp"

#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {

TransportError named(const TransportError& e, int rank, const std::string& step) {
  if (e.rank >= 0) return e;
  Failure f = e.failure();
  f.rank = rank, f.step = step;
  return TransportError(f);
}

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
  } catch (const TransportError& e) {
    const TransportError ours =
        named(e, communicator_.rank(), open_ < parts_.size() ? parts_[open_].step : "end of pass");
    communicator_.fail(ours.failure());
    throw ours;
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
