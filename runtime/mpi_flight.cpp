#include "runtime/mpi_flight.hpp"

#include <algorithm>

namespace topomoe::mpi {
namespace {

// Assumed: fresh enough for last words; a test a transfer that often costs nothing.
constexpr auto kRecord = std::chrono::milliseconds(20);

}  // namespace

MPI_Request* Flight::add(int peer, std::size_t bytes, bool receive) {
  parts_.push_back({peer, bytes, receive});
  requests_.push_back(MPI_REQUEST_NULL);
  bytes_ += static_cast<double>(bytes);
  // One more than a black box names, which then says that there are more.
  if (peer != watch_.rank() && peers_.size() <= Wait::kMostPeers &&
      std::find(peers_.begin(), peers_.end(), peer) == peers_.end())
    peers_.push_back(peer);
  return &requests_.back();
}

bool Flight::poll() {
  if (done_ || requests_.empty()) return done_ = true;
  const InsideMpi inside(watch_, step_, peers_, bytes_);
  return test();
}

bool Flight::test() {
  if (done_ || requests_.empty()) return done_ = true;
  statuses_.resize(requests_.size());
  int over = 0;
  const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &over, statuses_.data());
  if (code == MPI_SUCCESS && over == 0) return false;
  done_ = true;
  for (std::size_t i = 0; i < parts_.size() && failure_.empty(); ++i) {
    const Part& p = parts_[i];
    int count = 0;
    if (p.receive) MPI_Get_count(&statuses_[i], MPI_BYTE, &count);
    if (code == MPI_ERR_IN_STATUS && statuses_[i].MPI_ERROR != MPI_SUCCESS &&
        statuses_[i].MPI_ERROR != MPI_ERR_PENDING) {
      fail(p, text_of(statuses_[i].MPI_ERROR));
      peer_broke_ = statuses_[i].MPI_ERROR != MPI_ERR_TRUNCATE;  // too long a message is no death
    } else if (code == MPI_SUCCESS && p.receive && static_cast<std::size_t>(count) != p.bytes) {
      fail(p, "the peer sends " + std::to_string(count) + " bytes, expected are " + std::to_string(p.bytes));
    }
  }
  if (code != MPI_SUCCESS && failure_.empty()) failure_ = text_of(code);
  return true;
}

void Flight::wait(Clock::time_point deadline) {
  watch_.check();
  if (!done_) {
    deadline_ = deadline;
    watch_.box().wait_begins(step_, peers_, bytes_, deadline);
    watch_.ask_before(deadline);
    auto next_record = Clock::time_point::min();
    for (Pause pause; !test(); pause()) {
      const auto now = Clock::now();
      if (now > deadline) {
        if (test()) break;  // the core was another's for so long
        throw_missing(std::nullopt);
      }
      if (now > next_record) {
        record();
        watch_.ask_if_due(now);
        next_record = now + kRecord;
      }
      if (const auto culprit = watch_.hear()) throw_missing(culprit);
    }
    if (failure_.empty()) watch_.box().wait_ends();
  }
  if (failure_.empty()) return;
  throw TransportError({watch_.rank(), failed_.peer, peer_broke_ ? blame(failed_.peer) : -1, step_,
                        static_cast<double>(failed_.bytes), failure_});
}

void Flight::fail(const Part& p, const std::string& why) {
  failed_ = p;
  failure_ = why;
}

// Transfers under way, those of one peer in one direction added up.
std::vector<Flight::Part> Flight::missing() {
  std::vector<Part> out;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    int over = 0;
    MPI_Request_get_status(requests_[i], &over, MPI_STATUS_IGNORE);
    if (over != 0) continue;
    const Part& p = parts_[i];
    if (out.empty() || out.back().peer != p.peer || out.back().receive != p.receive) {
      out.push_back(p);
    } else {
      out.back().bytes += p.bytes;
    }
  }
  return out;
}

// Into the black box.
std::vector<Flight::Part> Flight::record() {
  const std::vector<Part> parts = missing();
  std::vector<int> peers;
  double bytes = 0;
  for (const Part& p : parts) {
    if (std::find(peers.begin(), peers.end(), p.peer) == peers.end()) peers.push_back(p.peer);
    bytes += static_cast<double>(p.bytes);
  }
  watch_.box().wait_begins(step_, peers, bytes, deadline_);
  return parts;
}

// Who is to blame where the direct peer is known: it, unless the others know better.
int Flight::blame(int peer) {
  watch_.box().wait_begins(step_, {&peer, 1}, static_cast<double>(failed_.bytes), watch_.soon());
  const int culprit = watch_.ask();
  return culprit >= 0 ? culprit : peer;
}

void Flight::throw_missing(std::optional<int> told) {
  const std::vector<Part> parts = record();
  std::string list;
  double bytes = 0;
  const int culprit = told ? *told : watch_.conclude();
  int peer = parts.empty() ? -1 : parts[0].peer;
  for (const Part& p : parts) {
    list += (list.empty() ? "" : ", ") + std::to_string(p.bytes) + (p.receive ? " bytes from " : " bytes to ") +
            std::to_string(p.peer);
    bytes += static_cast<double>(p.bytes);
    if (p.peer == culprit) peer = culprit;
  }
  throw TransportError({watch_.rank(), peer, culprit, step_, bytes,
                        (told ? Watch::kTold + std::string("; missing: ") : "still missing at the deadline: ") + list});
}

}  // namespace topomoe::mpi
