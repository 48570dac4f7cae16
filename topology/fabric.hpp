// Sizes of a fabric that follow from its hosts.
#pragma once

#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// Units of leaves, and pods or groups of them, above so many hosts.
int unit_count(const Fabric&, int hosts);
int pod_count(const Fabric&, int hosts);
// Hosts of each unit, units of each pod, given or not.
std::vector<int> unit_sizes(const Fabric&, int hosts);
std::vector<int> pod_sizes(const Fabric&, int hosts);

// What the hosts of one full leaf can send it: hosts_per_leaf times the NICs of one host on
// that leaf, of the leaf that is loaded most. 0 where hosts have no NICs.
double leaf_down_GBps(const Topology&, const Fabric&);

// What the leaves of one full pod can send into one plane of it, over what that plane sends out (to one other group, of
// a dragonfly+) at the given oversubscription: the rate of Fabric::pod_uplink.
double pod_uplink_GBps(const Topology&, const Fabric&, double oversubscription);

// "4 to 8" of sizes that differ; where none are given, the usual one.
std::string sizes_words(const std::vector<int>& sizes, int usual);
// For drawings and the text of show: "4 spines, 8 leaves of 32 hosts, 1:1 oversubscription; pods of ...".
std::string fabric_words(const Topology&);

// The ratios that follow from the rates, after these or the hosts have changed.
void update_oversubscription(Topology&);
// After the number of hosts has changed at the end: leaves, pods, names and exceptions that are no longer there go;
// where leaves are given one by one, further ones are full, and without a name.
void fit_fabric(Topology&);

}  // namespace topomoe
