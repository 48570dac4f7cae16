// A network as schedulers describe it: named switches over named switches over named hosts, and blocks of hosts.
//
// Model: switches with hosts are leaves; what stands directly above leaves is a layer of spines, or where there is more
// above it a pod; everything higher is one core. A block is a scale-up domain. Rates, and how many real switches and
// cables one name stands for, are not said: spine_count 1, Source::unknown.
// Ignored: tiers above the pods (they are one core, with a warning).
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct SwitchTree {
  // Of hosts, and of switches: twice what the largest clusters have (assumed); a line of text may name millions.
  static constexpr std::size_t kMostNames = 250'000;

  struct Switch {
    std::string name, line;  // line: where it is described, "topology.conf: line 7"
    std::vector<std::string> switches, hosts;
  };
  struct Block {
    std::string name, line;
    std::vector<std::string> hosts;
  };
  std::vector<Switch> switches;
  std::vector<Block> blocks;
  std::string no_rates;  // the note of the uplinks, of unknown source
  // Blocks that are no scale-up domains of one size are left out with a warning; otherwise they are refused.
  bool blocks_may_differ = false;
};

// InvalidInput names what is no tree, or is one that a Topology cannot hold.
Topology topology_of(const SwitchTree&, const std::string& where);

}  // namespace topomoe
