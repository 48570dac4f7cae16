#include "runtime/group_channels.hpp"

#include <set>

#include "topomoe/error.hpp"

namespace topomoe {

std::vector<Role> roles_of(const Schedule& schedule) {
  std::set<Role> roles;
  for (const auto* steps : {&schedule.forward, &schedule.backward})
    for (const Step& s : *steps)
      if (s.kind == StepKind::exchange || s.kind == StepKind::all_gather || s.kind == StepKind::counts_exchange)
        roles.insert(s.group);
  return {roles.begin(), roles.end()};
}

void GroupChannels::open(const std::vector<Role>& roles) {
  for (const Role role : roles) {
    if (channels_.contains(role)) continue;
    if ((role == Role::node || role == Role::rail) && !even_nodes(groups_.layout(), groups_.gpus_per_node()))
      throw InvalidInput("gpus_per_node", std::to_string(groups_.gpus_per_node()),
                         "the schedule needs equally many ranks of an EP group on each of its nodes: plan again for "
                         "this node size");
    channels_[role] = communicator_.open_channel(groups_.members(role, communicator_.rank()));
  }
}

ChannelId GroupChannels::of(Role role) const {
  const auto at = channels_.find(role);
  TOPOMOE_ASSERT(at != channels_.end());
  return at->second;
}

}  // namespace topomoe
