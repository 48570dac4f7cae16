// Clusters in the words of network simulators. read_topology() reads them back.
//
// Both throw InvalidInput with the reason where a cluster cannot be said in that form.
#pragma once

#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// ASTRA-sim's analytical network: one dimension inside a node, one (a torus: one for each of its own) between nodes.
// Equal hosts only; leaves, rails and oversubscription have no place in it, and comments say what was lost.
std::string write_astra(const Topology&);

// SimAI's topology: each GPU, NVSwitch, leaf, spine and core a node, each link a line. Of hosts without GPUs, the form
// of ns-3 with three fields in its first line. What hangs on PCIe inside a host has no place in it.
std::string write_simai(const Topology&);

}  // namespace topomoe
