// The steps from a CableNet to a fabric: what meets where, what of it matters, and its hosts, leaves and pods.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "topology/read/cable_net.hpp"

namespace topomoe {

struct CableGraph {
  struct Edge {
    int a = 0, b = 0;
    double GBps = 0, latency_us = 0;
    std::vector<int> cables;          // none: a port, or made up
    double ab_GBps = 0, ba_GBps = 0;  // until simplified; 0: no walk goes that way
  };
  struct Medium {
    int node = 0;
    CableNet::Cable cable;
    int index = -1;  // in CableNet::cables; -1: none of them
  };
  std::vector<CableNet::Node> nodes;  // those of the net first; name "": where cables meet
  std::vector<Edge> edges;
  std::vector<Medium> media;
  std::vector<bool> is_medium;  // of the cables
  std::vector<std::string> warnings;

  int other(int edge, int node) const {
    const Edge& own = edges[static_cast<std::size_t>(edge)];
    return own.a == node ? own.b : own.a;
  }
  bool is_host(int node) const { return nodes[static_cast<std::size_t>(node)].is_host; }
  std::vector<std::vector<int>> edges_of_nodes() const;
  // What stands in a message for a node that may have no name: the name of a cable that ends there.
  std::string called(int node, const CableNet& net) const;
};

inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// The ends of each cable from the walks. Nodes that are one stand under one number.
CableGraph graph_of(const CableNet&, const std::string& where);
// One rate for both directions (which may have cables of their own); cables in a row are one edge; what leads to no
// host is gone; hosts that pass on what others send stand at a switch of their name, joined without limit: hosts have
// one edge at most, to a switch.
void simplify(CableGraph&, const CableNet&);

// Each walk leads over its own cables and media, and over no others; of cables side by side over one. For trees, each
// with one of `roots`. InvalidInput names the walk that does not.
void check_walks(const CableGraph&, const CableNet&, const std::vector<int>& roots);

struct CablePods {
  struct Host {
    std::string name;
    double GBps = 0, latency_us = 0;  // 0 GB/s: it has no link
  };
  struct Leaf {
    std::string name;
    double up_GBps = 0, up_latency_us = 0;  // kNoLimit: whatever its hosts send
    std::vector<Host> hosts;
  };
  struct Pod {
    std::string name;
    double out_GBps = 0, out_latency_us = 0;
    std::vector<Leaf> leaves;
  };
  std::vector<Pod> pods;
  int tiers = 1;                                  // 1: leaves alone, all in one pod
  bool are_joined = true;                         // pods by a core; of two tiers only where there are several
  std::vector<std::vector<double>> between_GBps;  // of pods of one leaf that are joined each with each
  double between_latency_us = 0;
};
// With hosts, names, sizes and rates; not checked yet.
Topology topology_of(const CablePods&, const std::string& note);

}  // namespace topomoe
