// Channels of a layout's groups, opened once and shared by all layers and schedules of the layout.
//
// Opening is collective over the communicator: all ranks open the same roles in the same order.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

// Roles over whose groups a schedule communicates, each once, in the order of Role.
std::vector<Role> roles_of(const Schedule& schedule);

class GroupChannels {
 public:
  GroupChannels(Communicator& communicator, RankGroups groups)
      : communicator_(communicator), groups_(std::move(groups)) {}
  // Opens those that are not open yet. Throws InvalidInput for node and rail groups of unequal size.
  void open(const std::vector<Role>& roles);
  // Throws std::logic_error for a role that was not opened.
  ChannelId of(Role role) const;

 private:
  Communicator& communicator_;
  RankGroups groups_;
  std::map<Role, ChannelId> channels_;
};

}  // namespace topomoe
