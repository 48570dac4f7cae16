// A network as ports and cables: what ibnetdiscover prints, in either form, or a simulator is given.
//
// Model: a switch is its GUID; a NIC port is a port of an adapter whose description begins with its host's name
// ("n17 mlx5_0"). Several cables between two switches add up.
// Ignored: routers, aggregation nodes inside switches, ports without a cable.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct IbGraph {
  struct Port {
    std::string host, name;  // "n17", "mlx5_0"; a second port of an adapter is "mlx5_0/2"
    std::string leaf;        // GUID of the switch
    double GBps = 0;         // 0: not known
  };
  struct Cables {
    int count = 0;
    double GBps = 0;  // of all together
    bool known = true;
  };
  std::map<std::string, std::string> switches;  // GUID -> name
  std::vector<std::string> order;               // GUIDs as the file lists them
  std::vector<Port> ports;
  std::map<std::pair<std::string, std::string>, Cables> cables;  // between switches, the lesser GUID first
  std::vector<std::string> warnings;
  std::string hosts_note =
      "hosts: GPUs are not in such a file, nor how adapters hang on PCIe";  // a warning; empty: none
};

// Leaves, spines and cores by their distance from the hosts. InvalidInput says what was found where it is no tree.
Topology topology_of(const IbGraph&, const std::string& where);

}  // namespace topomoe
