#include "topomoe/compose.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "topology/compose/compose_hosts.hpp"
#include "topology/compose/compose_network.hpp"
#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class Composer {
 public:
  Composer(std::span<const DescribedHosts> files, const std::optional<Topology>& network, const ComposeOptions& options)
      : network_(network), options_(options) {
    if (files.empty()) throw InvalidInput("compose", "no description", "one file for each host");
    if (network && !options.fabric_spec.empty())
      throw InvalidInput("fabric", options.fabric_spec, "there is a description of the network already");
    hosts_ = hosts_of(files, topology_.warnings);
  }

  Topology run() {
    topology_.name = "composed";
    topology_.source = fmt::format("{} hosts", hosts_.size());
    if (network_)
      hosts_ = placed_on_network(std::move(hosts_), *network_, options_.prefer, topology_.warnings);
    else
      sort_by_domain();
    find_domains();
    fold_hosts(hosts_, topology_);
    if (network_) {
      topology_.source += " on " + called(*network_);
      topology_.fabric = network_->fabric;
      complete_fabric();
    } else if (!options_.fabric_spec.empty()) {
      topology_.fabric = fabric_from_spec(topology_, options_.fabric_spec);
    }
    if (!topology_.fabric && topology_.node_count() > 1)
      warn("nothing joins the hosts: say what does with --fabric, or no traffic between them has a way");
    require_valid(topology_, "composed");
    for (const std::string& line : warnings_from_sources(topology_)) add_warning(topology_, line);
    return std::move(topology_);
  }

 private:
  void warn(const std::string& line) { add_warning(topology_, line); }

  // Hosts of a domain follow its first; those of none keep their order among themselves, before the others.
  void sort_by_domain() {
    std::map<std::string, std::size_t> first{{"", 0}};
    for (std::size_t i = 0; i < hosts_.size(); ++i) first.emplace(hosts_[i].domain, i + 1);
    std::stable_sort(hosts_.begin(), hosts_.end(), [&](const ComposedHost& a, const ComposedHost& b) {
      return first.at(a.domain) < first.at(b.domain);
    });
  }

  // Which hosts are one scale-up domain, and whether the order of hosts has them side by side.
  void find_domains() {
    std::map<std::string, int> sizes;
    std::vector<std::string> without;
    for (const ComposedHost& host : hosts_)
      if (!host.domain.empty())
        ++sizes[host.domain];
      else if (!host.own.gpus.empty())
        without.push_back(host.name);
    int largest = 1;
    for (const auto& [domain, size] : sizes) largest = std::max(largest, size);
    if (largest > 1 && !without.empty())
      throw InvalidInput(without[0], "in no NVLink domain",
                         "others are in domains of several hosts: describe all in the "
                         "same way, when their fabric manager has finished");
    const int size = domain_size(largest);
    topology_.hosts_per_domain = size;
    if (size == 1) return;
    std::map<std::string, std::size_t> node_of;
    std::map<std::size_t, std::string> in_node;
    for (std::size_t i = 0; i < hosts_.size(); ++i) {
      const std::string& domain = hosts_[i].domain;
      if (domain.empty()) continue;
      const std::size_t node = i / static_cast<std::size_t>(size);
      if (node_of.emplace(domain, node).first->second != node || in_node.emplace(node, domain).first->second != domain)
        throw InvalidInput(
            hosts_[i].name,
            fmt::format("its NVLink domain does not fit into hosts {} to {}", node * static_cast<std::size_t>(size),
                        (node + 1) * static_cast<std::size_t>(size) - 1),
            fmt::format("domains are runs of {} hosts in the order of the network, or of names; describe "
                        "whole domains of one size",
                        size));
    }
    give_planes();
  }

  // Blocks are racks as often as NVLink domains: only hosts that say they share one do.
  int domain_size(int largest) {
    if (options_.hosts_per_domain > 0) {
      const auto each = static_cast<std::size_t>(options_.hosts_per_domain);
      if (hosts_.size() % each != 0)
        warn(fmt::format("{} hosts in domains of {}: the last one is not full", hosts_.size(), each));
      return options_.hosts_per_domain;
    }
    const int blocks = network_ ? network_->hosts_per_domain : 1;
    if (blocks > 1 && largest > blocks)
      throw InvalidInput(called(*network_), fmt::format("blocks of {} hosts", blocks),
                         fmt::format("the hosts have NVLink domains of {}; hosts_per_domain decides", largest));
    if (blocks > 1 && largest == 1)
      warn(
          fmt::format("blocks of {} hosts, and no host says that it shares its NVLink with another: taken as separate; "
                      "--hosts-per-domain {} where a block is an NVLink domain",
                      blocks, blocks));
    return largest > 1 ? std::max(largest, blocks) : 1;
  }

  // What joins a domain is a device of each of its hosts, and so of those that nobody described.
  void give_planes() {
    for (ComposedHost& host : hosts_) {
      const auto is_plane = [](const HostDevice& own) { return own.kind == DeviceKind::nvswitch; };
      if (host.own.gpus.empty() && std::none_of(host.own.devices.begin(), host.own.devices.end(), is_plane))
        host.own.devices.push_back({DeviceKind::nvswitch, "nvswitch", "", -1, {}});
    }
  }

  // Rates that the network's file does not know, from what its leaves could be sent.
  void complete_fabric() {
    const std::vector<std::string> told = warnings_from_sources(*network_);
    for (const std::string& line : network_->warnings)
      if (!line.starts_with(kOfHosts) && std::find(told.begin(), told.end(), line) == told.end()) warn(line);
    if (!topology_.fabric || topology_.fabric->kind == FabricKind::torus) return;
    Fabric& fabric = *topology_.fabric;
    if (!fabric.rail_optimised)
      for (const HostTemplate& host : topology_.templates)
        for (const Nic& nic : host.nics) fabric.rails = std::max(fabric.rails, nic.rail + 1);
    const auto complete = [&](Rate& rate, double& ratio, double GBps) {
      if (rate.GBps_per_direction > 0) return;
      if (!(GBps > 0))
        throw InvalidInput("nics", "none of a known rate",
                           "what leaves send up cannot be assumed; add NICs to the hosts");
      rate = {GBps, rate.latency_us, Source::assumed, "1:1, as the network's file has no rates"};
      ratio = 1;
    };
    if (topology_.gpu_count() > 0) {
      if (fabric.spine_count > 0) complete(fabric.uplink, fabric.oversubscription, leaf_down_GBps(topology_, fabric));
      if (fabric.hosts_per_pod > 0 && (fabric.core_count > 0 || fabric.kind != FabricKind::fat_tree))
        complete(fabric.pod_uplink, fabric.pod_oversubscription, pod_uplink_GBps(topology_, fabric, 1));
    }
    update_oversubscription(topology_);
  }

  const std::optional<Topology>& network_;
  const ComposeOptions& options_;
  std::vector<ComposedHost> hosts_;
  Topology topology_;
};

}  // namespace

Topology compose(std::span<const DescribedHosts> hosts, const std::optional<Topology>& network,
                 const ComposeOptions& options) {
  return Composer(hosts, network, options).run();
}

}  // namespace topomoe
