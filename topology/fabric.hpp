// Sizes of a fabric that follow from its hosts.
#pragma once

#include "topomoe/topology.hpp"

namespace topomoe {

// What the hosts of one full leaf can send it: hosts_per_leaf (or all hosts, if fewer) times the NICs of one host on
// that leaf, of the leaf that is loaded most. 0 where hosts have no NICs.
double leaf_down_GBps(const Topology&, const Fabric&);

}  // namespace topomoe
