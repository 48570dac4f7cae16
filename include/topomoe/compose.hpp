// From descriptions of single hosts, made on each of them, and a description of the network to one cluster.
//
// Model: hosts are told apart by name; equal ones share a template, and what the others do differently is said. The
// network's file names its hosts, or fabric_from_spec() builds one over the hosts in the order of their names ("n2"
// before "n10"). Hosts that the network has and nobody described keep their place, without GPUs.
// Nothing that two descriptions say differently is chosen silently: it is refused, unless `prefer` says whom to
// believe. Hosts are in one scale-up domain where their GPUs say so (NVML's fabric clique), where one file describes
// them as one, or as asked; blocks of the network alone are no domains, since they are racks as often. Hosts in a
// domain that nobody described are given the NVSwitch that joins it. NICs are matched by name; by their order only
// where all are on one leaf, or on request; rates within 2 % are one rate, the host's. Ignored: cables inside a
// scale-up domain.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// One description of a host or several. A host without a name in it is called as the file: "n01" for n01.json,
// "rack1/host3" where there are several.
struct DescribedHosts {
  std::string label;      // "n01"
  Topology topology;      // without a fabric
  std::string file = {};  // for messages; empty: the label
};

struct ComposeOptions {
  enum class Prefer { nobody, hosts, network };
  Prefer prefer = Prefer::nobody;  // where a port's rate is not the same in both
  int hosts_per_domain = 0;        // 0: as the descriptions say
  std::string fabric_spec;         // see fabric_from_spec; with no network only
};

// InvalidInput by name of host, switch or option: a name described twice and differently, a host that the network
// lacks, NICs that do not match the network's, domains that the order of hosts cuts. What was assumed, left out or
// found to differ is in Topology::warnings.
Topology compose(std::span<const DescribedHosts> hosts, const std::optional<Topology>& network,
                 const ComposeOptions& options);

// Whether a text is one of the forms below, by its beginning; else it is a file's name.
bool is_fabric_spec(const std::string& text);
// "fat-tree:hosts_per_leaf=16,spine_count=8,oversubscription=2", "rail-optimised:hosts_per_leaf=32,spine_count=8",
// "dragonfly-plus:hosts_per_leaf=8,hosts_per_group=32,spine_count=4", "torus:dims=4x4,GBps=50": the fields of the
// shapes in build_fabric.hpp by name. InvalidInput names the field and lists those that there are.
Fabric fabric_from_spec(const Topology& hosts, const std::string& spec);

}  // namespace topomoe
