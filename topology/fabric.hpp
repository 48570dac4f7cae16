// Sizes of a fabric that follow from its hosts.
#pragma once

#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// What the hosts of one full leaf can send it: hosts_per_leaf times the NICs of one host on
// that leaf, of the leaf that is loaded most. 0 where hosts have no NICs.
double leaf_down_GBps(const Topology&, const Fabric&);

// What the leaves of one full pod can send into one plane of it, over what that plane sends out (to one other group, of
// a dragonfly+) at the given oversubscription: the rate of Fabric::pod_uplink.
double pod_uplink_GBps(const Topology&, const Fabric&, double oversubscription);

// For drawings and the text of show: "4 spines, 8 leaves of 32 hosts, 1:1 oversubscription; pods of ...".
std::string fabric_words(const Topology&);

// The ratios that follow from the rates, after these or the hosts have changed.
void update_oversubscription(Topology&);
// Exceptions whose cable or switch is no longer there, after hosts went.
void drop_lost_exceptions(Topology&);

}  // namespace topomoe
