#include "topology/doctor/doctor_fabric.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topomoe/class_loads.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Bound of an all-to-all over all GPUs; 0: there is a pair without a path.
double all_to_all_GBps(const Topology& topology) {
  const int gpus = topology.gpu_count();
  if (gpus < 2) return 0;
  try {
    return (gpus - 1) / all_to_all_loads(Router(topology), 1).bottleneck().seconds / 1e9;
  } catch (const InvalidInput&) {
    return 0;
  }
}

// Loads of classes take milliseconds; hosts that all differ are walked pair by pair.
bool quick(const Topology& topology) {
  constexpr std::size_t kMostKinds = 256;
  constexpr int kMostGpus = 2048;
  return topology.gpu_count() <= kMostGpus ||
         (topology.templates.size() < kMostKinds && topology.groups.size() < kMostKinds &&
          topology.fabric->exceptions.size() < kMostKinds);
}

class FabricDoctor {
 public:
  FabricDoctor(const Topology& topology, const std::string& where, std::vector<Finding>& findings)
      : topology_(topology), fabric_(*topology.fabric), where_(where), findings_(findings) {}

  void run() {
    no_way();
    exceptions();
    oversubscription();
    rails();
    sizes();
    names();
    guessed(fabric_.uplink, fmt::format("uplinks of {} leaves", topology_.leaf_count()), fabric_.spine_count > 0);
    guessed(fabric_.pod_uplink, "uplinks of pods", fabric_.hosts_per_pod > 0 && fabric_.core_count > 0);
    guessed(fabric_.ring, "rings", fabric_.kind == FabricKind::torus);
  }

 private:
  void add(Severity severity, const std::string& element, std::string seen, std::string expected, std::string check,
           std::string cost = {}) {
    findings_.push_back(
        {severity, where_ + element, std::move(seen), std::move(expected), std::move(cost), std::move(check)});
  }

  void no_way() {
    if (!quick(topology_)) {
      add(Severity::note, "fabric", "too many kinds of hosts and cables to walk",
          "fewer than 256 of more than 2048 GPUs", "what is dead is named; what it costs is not counted");
      return;
    }
    try {
      all_to_all_loads(Router(topology_), 1);
    } catch (const InvalidInput& error) {
      add(Severity::severe, "fabric", fmt::format("no path for {} {}", error.field, error.value),
          "a path between any two GPUs", "leaves that nothing joins, dead uplinks, hosts without a NIC",
          "an all-to-all over all hosts is impossible");
    }
  }

  void exceptions() {
    constexpr std::size_t kMostCosts = 32;
    for (std::size_t i = 0; i < fabric_.exceptions.size(); ++i) {
      const FabricException& own = fabric_.exceptions[i];
      if (own.factor >= 1) continue;
      Topology repaired = topology_;
      repaired.fabric->exceptions.erase(repaired.fabric->exceptions.begin() + static_cast<std::ptrdiff_t>(i));
      const bool dead = own.factor == 0;
      add(dead ? Severity::severe : Severity::warning, own.name,
          dead ? "dead" : fmt::format("at {} of its rate", short_number(own.factor)),
          "its full rate, as others of its kind",
          "the cable, its transceivers and the ports at both ends (ibdiagnet, mlxlink, ethtool)",
          i < kMostCosts ? fabric_cost(topology_, repaired) : "");
    }
  }

  void oversubscription() {
    const auto note = [&](const char* element, double ratio, const char* key) {
      if (!(ratio > 1.001)) return;
      std::string cost;
      try {
        cost = fabric_cost(topology_, edit(topology_, {parse_set(std::string(key) + "=1")}));
      } catch (const InvalidInput&) {  // a fabric whose rates do not let themselves be set alone: the ratio stands
      }
      add(Severity::note, element, fmt::format("{}:1 oversubscribed", short_number(ratio)),
          "1:1 where all-to-all between leaves matters", "meant so? Then expert groups belong under one leaf", cost);
    };
    note("uplinks of leaves", fabric_.spine_count > 0 ? fabric_.oversubscription : 1, "oversubscription");
    note("uplinks of pods", fabric_.hosts_per_pod > 0 ? fabric_.pod_oversubscription : 1, "pod_oversubscription");
  }

  // Rails that no host has a port on. (One host short of a rail that others have: its siblings tell.)
  void rails() {
    std::set<int> used;
    for (const HostTemplate& host : topology_.templates)
      for (const Nic& nic : host.nics) used.insert(nic.rail);
    if (!fabric_.rail_optimised || used.empty() || static_cast<int>(used.size()) >= fabric_.rails) return;
    std::string missing;
    for (int rail = 0; rail < fabric_.rails; ++rail)
      if (!used.count(rail)) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", rail);
    add(Severity::warning, "rails", fmt::format("no host has a port on rail {}", missing),
        fmt::format("ports on each of {} rails", fabric_.rails),
        "NICs that the description of the host leaves out; rails");
  }

  void sizes() {
    const auto uneven = [&](const std::vector<int>& sizes, const char* element, const char* what) {
      if (std::set<int>(sizes.begin(), sizes.end()).size() < 2) return;
      const int most = *std::max_element(sizes.begin(), sizes.end());
      const auto full = std::count(sizes.begin(), sizes.end(), most);
      add(Severity::note, element,
          fmt::format("{} {} each: {} of {} have {}", sizes_words(sizes, most), what, full, sizes.size(), most),
          "equal ones: groups of equal size then fit under them",
          "meant so? Else hosts that are down, or missing in the file of the network");
    };
    uneven(fabric_.leaf_hosts, "leaves", "hosts");
    uneven(fabric_.pod_leaves, "pods", "leaves");
  }

  void names() {
    int unnamed = 0;
    std::set<std::string> seen, twice;
    for (const std::string& own : topology_.host_names)
      if (own.empty())
        ++unnamed;
      else if (!seen.insert(own).second)
        twice.insert(own);
    if (unnamed > 0 && !seen.empty())
      add(Severity::warning, "hosts", fmt::format("{} of {} have no name", unnamed, topology_.host_names.size()),
          "a name each, as the network knows them", "hosts that the file of the network does not have");
    for (const std::string& own : twice)
      add(Severity::warning, own, "named twice", "a name each", "the file of the network");
  }

  void guessed(const Rate& rate, const std::string& element, bool there) {
    if (!there || (rate.source != Source::assumed && rate.source != Source::unknown)) return;
    add(Severity::note, element,
        rate.source == Source::unknown ? "their rate is not known"
                                       : fmt::format("{} GB/s assumed{}", short_number(rate.GBps_per_direction),
                                                     rate.source_note.empty() ? "" : " (" + rate.source_note + ")"),
        "a rate that somebody knows; figures that follow from it are guesses", "give it in a cluster.json (fabric)");
  }

  const Topology& topology_;
  const Fabric& fabric_;
  const std::string& where_;
  std::vector<Finding>& findings_;
};

}  // namespace

std::string fabric_cost(const Topology& now, const Topology& repaired) {
  if (!now.fabric || !quick(now)) return {};
  const double is = all_to_all_GBps(now), was = all_to_all_GBps(repaired);
  if (!(is > 0) || !(was > is * 1.001)) return {};
  int hosts = 0;
  for (const HostGroup& group : now.groups)
    if (!now.templates[static_cast<std::size_t>(group.template_index)].gpus.empty()) hosts += group.count;
  return fmt::format("all-to-all over {} hosts: at most {} of {} GB/s a GPU", hosts, short_number(is, 1),
                     short_number(was, 1));
}

void diagnose_fabric(const Topology& topology, const std::string& where, std::vector<Finding>& findings) {
  if (!topology.fabric || topology.gpu_count() == 0) return;
  FabricDoctor(topology, where, findings).run();
}

}  // namespace topomoe
