// The transfers of one MPI exchange, from their start to their end or their deadline.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "runtime/mpi_watch.hpp"

namespace topomoe::mpi {

// Shared by its event and the communicator, which polls it for progress.
class Flight {
 public:
  Flight(Watch& watch, std::string step) : watch_(watch), step_(std::move(step)) {}

  // A slot for the request of a transfer that is about to start.
  MPI_Request* add(int peer, std::size_t bytes, bool receive);
  void reserve(std::size_t parts) { requests_.reserve(parts), parts_.reserve(parts), peers_.reserve(parts); }

  const std::string& step() const { return step_; }
  std::span<const int> peers() const { return peers_; }
  double bytes() const { return bytes_; }
  bool done() const { return done_; }

  // True once all is over, well or not. Drives all of MPI, not only this exchange.
  bool poll();
  // Throws TransportError.
  void wait(Clock::time_point deadline);

 private:
  struct Part {
    int peer = -1;  // world rank
    std::size_t bytes = 0;
    bool receive = false;
  };

  bool test();
  void fail(const Part& p, const std::string& why);
  std::vector<Part> missing();
  std::vector<Part> record();
  int blame(int peer);
  [[noreturn]] void throw_missing(std::optional<int> told);

  Watch& watch_;
  std::string step_;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
  std::vector<Part> parts_;
  std::vector<int> peers_;  // of all transfers; twice where sends and receives are with the same
  double bytes_ = 0;
  Clock::time_point deadline_{};  // of the wait under way
  bool done_ = false;
  Part failed_;
  std::string failure_;
  bool peer_broke_ = false;
};

}  // namespace topomoe::mpi
