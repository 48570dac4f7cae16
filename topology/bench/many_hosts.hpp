// Hosts for benchmarks of readers and of what is said of a cluster: an 8 x H100 host as NCCL saw it, with virtual
// functions of its NICs so that its XML is about 160 kB (a plain one has 15), and no two hosts alike.
#pragma once

#include <string>

#include "topology/read/read_file.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::bench {

inline std::string source_text(const std::string& path) {
  return read_text_file(std::string(TOPOMOE_SOURCE_DIR) + "/" + path);
}

// A PCI entry for each virtual function, on the switch of its NIC, with a <net> of its own.
inline void add_functions(HostTemplate& host, int each) {
  const std::vector<Nic> nics = host.nics;
  const std::vector<Link> links = host.links;
  for (const Nic& nic : nics)
    for (int function = 1; function <= each; ++function) {
      const auto index = static_cast<int>(host.devices.size());
      HostDevice device = host.devices[static_cast<std::size_t>(nic.device)];
      device.name = "nic" + std::to_string(host.nics.size());
      device.bus_id = device.bus_id.substr(0, device.bus_id.rfind(':')) + ":" + std::to_string(10 + function) + ".0";
      host.devices.push_back(device);
      for (Link link : links)
        if (link.src == nic.device) {
          link.src = index;
          host.links.push_back(link);
        }
      Nic own = nic;
      own.device = index;
      own.name += "_vf" + std::to_string(function);
      own.rail = static_cast<int>(host.nics.size());
      for (Attribute& word : own.attributes)
        if (word.name == "dev") word.value = std::to_string(own.rail);
      host.nics.push_back(own);
    }
}

inline Topology many_hosts(int hosts, int functions_of_a_nic, bool distinct) {
  Topology topology = read_nccl_xml(source_text("configs/clusters/h100-host.nccl.xml"), "h100-host.xml");
  add_functions(topology.templates[0], functions_of_a_nic);
  topology.groups = {{0, distinct ? 1 : hosts}};
  for (int i = 1; i < hosts && distinct; ++i) {
    HostTemplate host = topology.templates[0];
    host.name += "-" + std::to_string(i);
    host.devices.back().attributes.push_back({"firmware", std::to_string(i)});
    topology.templates.push_back(std::move(host));
    topology.groups.push_back({i, 1});
  }
  return topology;
}

}  // namespace topomoe::bench
