// Ranks telling each other a few numbers in host memory, outside of any schedule: agreement before a run, and
// gathering its results. Blocks; simple rather than fast.
#pragma once

#include <chrono>
#include <functional>
#include <string_view>
#include <vector>

#include "topomoe/communicator.hpp"

namespace topomoe {

class HostExchange {
 public:
  // Collective: opens a channel over all ranks.
  explicit HostExchange(Communicator& communicator, std::chrono::seconds deadline = std::chrono::minutes(10));

  int rank() const { return communicator_.rank(); }
  int size() const { return communicator_.size(); }

  // Each rank sends send(peer) to every peer and gets what that sends here; both know its length.
  using Send = std::function<std::vector<double>(int peer)>;
  using Length = std::function<std::size_t(int peer)>;
  std::vector<std::vector<double>> exchange(std::string_view step, const Send& send, const Length& length);
  // Values of all ranks, by rank, on rank `root`; elsewhere empty. All have as many.
  std::vector<std::vector<double>> gather(std::string_view step, const std::vector<double>& mine, int root = 0);
  // Values of all ranks, on all ranks.
  std::vector<std::vector<double>> gather_on_all(std::string_view step, const std::vector<double>& mine);
  // A barrier for those who measure: hosts of so many ranks report to the first, by one message each, and go when it
  // says so. Where messages between hosts are dear, a barrier that sends many of them lets ranks go one after the
  // other.
  void line_up(int ranks_per_host);

 private:
  Communicator& communicator_;
  ChannelId channel_;
  std::chrono::seconds deadline_;
};

}  // namespace topomoe
