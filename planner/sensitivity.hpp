// Which rate, 20% lower, would change the choice: the best candidates priced again on a cluster with one rate changed.
//
// Rates are those of the topology: GPU arithmetic, HBM, NVLink, PCIe, NICs, uplinks, each where the cluster has it.
// Measured curves are scaled by the ratio of datasheet rates, as for any other machine.
// Ignored: candidates beyond the first six in the original order, which a lower rate might bring to the front.
#pragma once

#include <vector>

#include "planner/search_state.hpp"

namespace topomoe {

// `priced` in order of time; the choice is among them.
std::vector<Sensitivity> find_sensitivity(const Search& s, const Candidate& chosen,
                                          const std::vector<Candidate>& priced);

}  // namespace topomoe
