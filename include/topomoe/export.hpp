// A topology in the form of other programs: pure functions of it. InvalidInput says what the form cannot hold.
// What read_topology() makes of each again: topology/README.md.
#pragma once

#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// Slurm's topology.conf for topology/tree: a switch for each unit of hosts (its leaves together, where it has one for
// each rail or plane), each pod or group, and what joins them. Rates have no place in it; TopologyParam=Dragonfly of
// slurm.conf is in a comment. A torus, and hosts that nothing joins, are refused.
std::string write_slurm_tree(const Topology&);
// The same for topology/block (one file is for one plugin): a block for each scale-up domain of several hosts.
// BlockSizes is the size of the smallest: Slurm asks at least that of every block.
std::string write_slurm_blocks(const Topology&);

// SimGrid's platform XML (4.1): a SimGrid host for each GPU ("host0.gpu3"), or for each host where none has a GPU; each
// directed link as a link of our name, rate and latency that its flows share; and for each two the route that Router
// takes, each direction of its own. speed is the GPU's dense bf16 rate, 1Gf where that is not known.
// Its size grows with the square of the hosts: at most 256. Unknown rates are refused by name.
std::string write_simgrid(const Topology&);

// ASTRA-sim's analytical network: one dimension inside a node, one (a torus: one for each of its own) between nodes.
// Equal hosts only; leaves, rails and oversubscription have no place in it, and comments say what was lost.
std::string write_astra(const Topology&);

// SimAI's topology: each GPU, NVSwitch, leaf, spine and core a node, each link a line. Of hosts without GPUs, the form
// of ns-3 with three fields in its first line. What hangs on PCIe inside a host has no place in it.
std::string write_simai(const Topology&);

}  // namespace topomoe
