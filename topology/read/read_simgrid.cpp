// SimGrid's platform XML: a network of hosts without GPUs.
//
// Model: hosts have a NIC of their private link's rate (its figure is the platform's own choice: source `assumed`).
// Clusters, zones and graphs of links are trees of hosts (cable_net.hpp); a TORUS, FAT_TREE or DRAGONFLY cluster is
// read where it is alone. What is half-duplex, FATPIPE or a backbone, and all that changes over time, is said in
// warnings.
#include <fmt/format.h>

#include <unordered_map>

#include "topology/read/cable_net.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/simgrid_clusters.hpp"
#include "topology/read/simgrid_xml.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr const char* kNote = "SimGrid platform";

class NetBuilder {
 public:
  NetBuilder(const SimgridXml& xml, const std::string& where) : xml_(xml), where_(where) {}

  CableNet run() {
    for (const SimgridXml::Link& own : xml_.links) net_.cables.push_back(cable(own));
    for (const std::string& name : xml_.hosts) add(name, true);
    for (const std::string& name : xml_.routers) add(name, false);
    for (const SimgridXml::Hub& hub : xml_.hubs) add_hub(hub);
    for (const SimgridXml::Route& route : xml_.routes)
      net_.walks.push_back(
          {route.line, named(route, route.src), named(route, route.dst), route.links, route.both_ways});
    return std::move(net_);
  }

 private:
  static CableNet::Share share(SimgridXml::Policy policy) {
    return policy == SimgridXml::Policy::split    ? CableNet::Share::split
           : policy == SimgridXml::Policy::shared ? CableNet::Share::shared
                                                  : CableNet::Share::fatpipe;
  }
  static CableNet::Cable cable(const SimgridXml::Link& own) {
    return {own.name, own.GBps, own.latency_us, share(own.policy)};
  }

  int add(const std::string& name, bool is_host) {
    net_.nodes.push_back({name, is_host});
    const int node = static_cast<int>(net_.nodes.size()) - 1;
    know(name, node);
    return node;
  }
  void know(const std::string& name, int node) {
    if (!node_.emplace(name, node).second)
      throw InvalidInput(where_, '"' + name + '"', "two hosts or routers of this name; each has one of its own");
  }

  // The switch is called as the hub; its routers are other names of it.
  void add_hub(const SimgridXml::Hub& hub) {
    net_.nodes.push_back({hub.name, false});
    const int node = static_cast<int>(net_.nodes.size()) - 1;
    for (const std::string& router : hub.routers) know(router, node);
    for (const SimgridXml::Member& own : hub.members)
      net_.ports.push_back({add(own.host, true), node, own.up_GBps, own.down_GBps, own.latency_us, share(own.policy)});
    if (hub.has_backbone) net_.media.push_back({node, cable(hub.backbone)});
  }

  int named(const SimgridXml::Route& route, const std::string& name) const {
    const auto found = node_.find(name);
    if (found == node_.end())
      throw InvalidInput(route.line, fmt::format("\"{:.80}\"", name), "there is no host or router of this name");
    return found->second;
  }

  const SimgridXml& xml_;
  const std::string& where_;
  CableNet net_;
  std::unordered_map<std::string, int> node_;
};

}  // namespace

Topology read_simgrid(std::string_view text, const std::string& where) {
  const SimgridXml xml = parse_simgrid_xml(text, where);
  bool others = !xml.hosts.empty() || xml.shaped.size() > 1;
  for (const SimgridXml::Hub& hub : xml.hubs) others = others || !hub.members.empty();
  if (!xml.shaped.empty() && others)
    throw InvalidInput(xml.shaped[0].line,
                       fmt::format("\"{:.80}\" ({}) beside other hosts", xml.shaped[0].name, xml.shaped[0].topology),
                       "a cluster of that kind is read where it is the whole platform; keep it alone");
  if (xml.shaped.empty() && !others)
    throw InvalidInput(where, "no host", "a platform has hosts or clusters; a deployment file (actors) has none");
  Topology topology = xml.shaped.empty() ? topology_of(NetBuilder(xml, where).run(), where, kNote)
                                         : topology_of(xml.shaped[0], where, kNote);
  for (const std::string& line : xml.notes) add_warning(topology, line);
  add_warning(topology, "hosts: SimGrid says no GPU: these are hosts without GPUs, the network alone");
  return topology;
}

}  // namespace topomoe
