// The second half of composing: each host to its place in a network, and its NICs to their cables. Internal to
// topology/.
#pragma once

#include <string>
#include <vector>

#include "topology/compose/compose_hosts.hpp"

namespace topomoe {

// In the network's order, with its rails; hosts that nobody described are there as the network knows them.
// InvalidInput: see compose(). What was assumed goes to `warnings`.
std::vector<ComposedHost> placed_on_network(std::vector<ComposedHost> hosts, const Topology& network,
                                            ComposeOptions::Prefer prefer, std::vector<std::string>& warnings);

// Its file, for messages.
inline std::string called(const Topology& network) { return network.source.empty() ? "network" : network.source; }

}  // namespace topomoe
