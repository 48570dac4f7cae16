// Hosts, leaves and pods as a Topology: names, sizes, the rate that most of a tier have, and who has less.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topology/read/cable_graph.hpp"
#include "topology/warnings.hpp"

namespace topomoe {
namespace {

constexpr double kMostRatio = 1000;  // what a Topology may say (check.cpp); nothing is computed from it without GPUs

class FabricBuilder {
 public:
  FabricBuilder(const CablePods& pods, const std::string& note) : in_(pods), note_(note) {}

  Topology run() {
    bool any_link = false;
    for (const CablePods::Pod& pod : in_.pods)
      for (const CablePods::Leaf& leaf : pod.leaves)
        for (const CablePods::Host& host : leaf.hosts) {
          add_host(host);
          any_link = any_link || host.GBps > 0;
        }
    if (!any_link) return std::move(topology_);
    find_sizes();
    find_rates();
    topology_.fabric = fabric_;
    find_exceptions();
    topology_.fabric = fabric_;
    update_oversubscription(topology_);
    for (double* ratio : {&topology_.fabric->oversubscription, &topology_.fabric->pod_oversubscription})
      if (*ratio > kMostRatio || *ratio < 1 / kMostRatio) {
        add_warning(topology_, fmt::format("an oversubscription of {:.6g}:1 stands as {}:1", *ratio,
                                           *ratio > 1 ? kMostRatio : 1 / kMostRatio));
        *ratio = *ratio > 1 ? kMostRatio : 1 / kMostRatio;
      }
    return std::move(topology_);
  }

 private:
  void add_host(const CablePods::Host& host) {
    const auto [found, fresh] = template_.emplace(std::pair(host.GBps, host.latency_us), topology_.templates.size());
    if (fresh) {
      HostTemplate own;
      own.name = host.GBps > 0 ? fmt::format("host of {} GB/s", short_number(host.GBps, 6)) : "host without a link";
      own.devices = {{DeviceKind::numa, "numa0", "", -1, {}}};
      if (host.GBps > 0) {
        own.devices.push_back({DeviceKind::nic, "nic0", "", -1, {}});
        own.nics = {{1, 0, "nic0", rate(host.GBps, host.latency_us), {}}};
      }
      // Links of one rate may differ in latency.
      if (const int again = ++named_[own.name]; again > 1) own.name += fmt::format(" ({})", again);
      topology_.templates.push_back(std::move(own));
    }
    const int index = static_cast<int>(found->second);
    if (topology_.groups.empty() || topology_.groups.back().template_index != index)
      topology_.groups.push_back({index, 0});
    ++topology_.groups.back().count;
    topology_.host_names.push_back(host.name);
  }

  Rate rate(double GBps, double latency_us) const { return {GBps, latency_us, Source::assumed, note_}; }
  // What nothing limits carries what comes from below.
  static double up_GBps(const CablePods::Leaf& leaf) {
    if (leaf.up_GBps != kNoLimit) return leaf.up_GBps;
    double below = 0;
    for (const CablePods::Host& host : leaf.hosts) below += host.GBps;
    return below;
  }
  static double out_GBps(const CablePods::Pod& pod) {
    if (pod.out_GBps != kNoLimit) return pod.out_GBps;
    double below = 0;
    for (const CablePods::Leaf& leaf : pod.leaves) below += up_GBps(leaf);
    return below;
  }
  bool is_mesh() const { return !in_.between_GBps.empty(); }
  bool has_pods() const { return in_.tiers > 2 || is_mesh() || (in_.tiers == 2 && in_.pods.size() > 1); }

  void find_sizes() {
    std::set<std::string> leaf_names, pod_names;
    const auto once = [](const std::string& name, std::set<std::string>& known) {
      return known.insert(name).second ? name : "";
    };
    int most = 0;
    for (const CablePods::Pod& pod : in_.pods) {
      fabric_.pod_names.push_back(once(pod.name, pod_names));
      fabric_.pod_leaves.push_back(static_cast<int>(pod.leaves.size()));
      most = std::max(most, fabric_.pod_leaves.back());
      for (const CablePods::Leaf& leaf : pod.leaves) {
        fabric_.leaf_names.push_back(once(leaf.name, leaf_names));
        fabric_.leaf_hosts.push_back(static_cast<int>(leaf.hosts.size()));
      }
    }
    fabric_.hosts_per_leaf = *std::max_element(fabric_.leaf_hosts.begin(), fabric_.leaf_hosts.end());
    const auto even = [](const std::vector<int>& sizes, int usual) {
      return std::all_of(sizes.begin(), sizes.end() - 1, [&](int size) { return size == usual; });
    };
    if (has_pods()) fabric_.hosts_per_pod = fabric_.hosts_per_leaf * most;
    if (!has_pods() || even(fabric_.pod_leaves, most)) fabric_.pod_leaves.clear();
    if (even(fabric_.leaf_hosts, fabric_.hosts_per_leaf)) fabric_.leaf_hosts.clear();
    if (in_.tiers == 1 && !is_mesh()) fabric_.pod_names.clear();
    for (std::vector<std::string>* names : {&fabric_.leaf_names, &fabric_.pod_names})
      if (std::all_of(names->begin(), names->end(), [](const std::string& own) { return own.empty(); })) names->clear();
    fabric_.spine_count = in_.tiers > 1 || is_mesh() ? 1 : 0;
    fabric_.core_count = in_.tiers > 2 && !is_mesh() ? 1 : 0;
    if (is_mesh()) fabric_.kind = FabricKind::dragonfly_plus;
  }

  void find_rates() {
    if (fabric_.spine_count == 0) return;
    double up = 0, out = 0, up_us = 0, out_us = 0;
    bool differ = false;
    for (const CablePods::Pod& pod : in_.pods) {
      out = std::max(out, out_GBps(pod)), out_us = std::max(out_us, pod.out_latency_us);
      differ = differ || pod.out_latency_us != in_.pods[0].out_latency_us;
      for (const CablePods::Leaf& leaf : pod.leaves) {
        up = std::max(up, up_GBps(leaf)), up_us = std::max(up_us, leaf.up_latency_us);
        differ = differ || leaf.up_latency_us != in_.pods[0].leaves[0].up_latency_us;
      }
    }
    fabric_.uplink = rate(up, up_us);
    if (fabric_.core_count > 0) fabric_.pod_uplink = rate(out, out_us);
    if (is_mesh()) {
      double most = 0;
      for (const auto& own : in_.between_GBps) most = std::max(most, *std::max_element(own.begin(), own.end()));
      fabric_.pod_uplink = rate(most, in_.between_latency_us);
    }
    if (differ) add_warning(topology_, "uplinks of one tier have different latencies: the largest counts for all");
  }

  void find_exceptions() {
    if (fabric_.spine_count == 0) return;
    const FabricMap map(topology_, 0);
    const auto except = [&](int id, double own, const Rate& all) {
      if (own <= 0 || own >= all.GBps_per_direction * (1 - 1e-9)) return;
      LinkInfo link;
      map.describe(fabric_, id, link);
      fabric_.exceptions.push_back({link.src + "->" + link.dst, own / all.GBps_per_direction});
    };
    int leaf = 0;
    for (std::size_t i = 0; i < in_.pods.size(); ++i) {
      for (const CablePods::Leaf& own : in_.pods[i].leaves) except(map.leaf_up(leaf++), up_GBps(own), fabric_.uplink);
      if (fabric_.core_count > 0) except(map.pod_up(static_cast<int>(i), 0), out_GBps(in_.pods[i]), fabric_.pod_uplink);
      for (std::size_t j = i + 1; j < in_.between_GBps.size(); ++j)
        except(map.between(static_cast<int>(i), static_cast<int>(j), 0), in_.between_GBps[i][j], fabric_.pod_uplink);
    }
  }

  const CablePods& in_;
  const std::string& note_;
  Topology topology_;
  Fabric fabric_;
  std::map<std::pair<double, double>, std::size_t> template_;  // by rate and latency of the NIC
  std::map<std::string, int> named_;                           // templates by name
};

}  // namespace

Topology topology_of(const CablePods& pods, const std::string& note) { return FabricBuilder(pods, note).run(); }

}  // namespace topomoe
