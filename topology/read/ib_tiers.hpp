// What is where in an InfiniBand subnet: the rails of its hosts, the tiers of its switches, which of them hang
// together. Internal to topology/.
//
// Model: a switch with hosts is a leaf, one next to a leaf a spine, one next to a spine a core. Leaves and spines that
// hang together are a pod.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "topology/read/ib_graph.hpp"

namespace topomoe {

struct IbTiers {
  struct Host {
    std::vector<const IbGraph::Port*> ports;
    std::vector<int> rails;
  };
  std::map<std::string, Host> hosts;
  int rails = 1;
  bool one_leaf = true;                                                 // of each host, for all its ports
  std::vector<std::string> leaves, spines, cores;                       // GUIDs as the file lists them
  std::map<std::string, std::map<std::string, IbGraph::Cables>> above;  // of a leaf or spine, by the upper switch
  std::map<std::string, std::string> joined;                            // union of leaves and spines that hang together
  std::map<std::string, std::vector<std::string>> spines_of;            // by the root of their union

  const std::string& root(const std::string& guid) const;  // of the union
  // For messages: the switch's name in quotes, or its GUID.
  static std::string called(const IbGraph&, const std::string& guid);
};

// InvalidInput{where}: no tree of leaves, spines and cores, or rails that cannot be told. What is left out goes to
// `warnings`. The graph must live as long as the answer.
IbTiers tiers_of(const IbGraph&, const std::string& where, std::vector<std::string>& warnings);

}  // namespace topomoe
