// What switches of a simulator's topology are, where the file does not say it: by what they join.
#pragma once

#include <set>
#include <string>

#include "topology/read/simai_network.hpp"

namespace topomoe {

// ns-3's form has no word for NVSwitches. A switch that only ends are on, two or more, all of which meet in another one
// with more ends or with cables to switches, becomes one, and the ends GPUs; a warning says so.
void take_islands_as_nvswitches(SimaiNetwork&);

// Leaves that are cabled and have no host yet look like cores. Such a switch is listed before the spines above it, and
// those are of one pod: a core is listed after them, or joins several pods.
std::set<int> leaves_without_hosts(const SimaiNetwork&);

// "..._64gpu_...", "..._16g_...", "..._128_gpus_...": what people named the file after, and then edited; -1: nothing.
int gpus_in_name(const std::string& name);

}  // namespace topomoe
