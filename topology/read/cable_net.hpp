// A network of hosts and switches of which only the cables on the ways between some of them are known, as simulators
// describe it; and what it is as a fabric.
//
// Model: the ways must fit a tree, or leaves that are joined each with each. A cable that the ways give more than two
// ends is a medium that all of them share. Where two ways disagree it is refused.
// Ignored, with a warning: that both directions of a half-duplex cable share its rate, what a medium carries in all.
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct CableNet {
  // split: each direction has the rate; shared: both together; fatpipe: each flow has it, whatever the others do.
  enum class Share { split, shared, fatpipe };

  struct Node {
    std::string name;
    bool is_host = false;
  };
  struct Cable {
    std::string name;
    double GBps = 0, latency_us = 0;
    Share share = Share::split;
  };
  // A cable of its own between a host and its switch.
  struct Port {
    int host = 0, node = 0;
    double up_GBps = 0, down_GBps = 0, latency_us = 0;
    Share share = Share::split;
  };
  // All that passes this switch takes this cable.
  struct Medium {
    int node = 0;
    Cable cable;
  };
  struct Walk {
    std::string line;  // where it is described
    int from = 0, to = 0;
    std::vector<int> cables;
    bool both_ways = true;
  };
  std::vector<Node> nodes;
  std::vector<Cable> cables;
  std::vector<Port> ports;
  std::vector<Medium> media;
  std::vector<Walk> walks;
};

// Hosts without GPUs and with one NIC; rates of source `assumed` with this note. InvalidInput names the walk that the
// others contradict, or what is no such network.
Topology topology_of(const CableNet&, const std::string& where, const std::string& note);

}  // namespace topomoe
