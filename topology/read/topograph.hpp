// What NVIDIA's topograph reads and writes: who stands below which switch, and who shares an accelerated (NVLink)
// domain.
#pragma once

#include <string_view>

namespace topomoe {

bool is_topograph_model(std::string_view text);  // "switches:", "blocks:", "capacity_blocks:" or "nodes:" in column 0
bool is_topograph_graph(std::string_view text);  // an object with "instances"
bool is_topograph_netq(std::string_view text);   // a list with "compounded_nodes" or "compounded_links"

}  // namespace topomoe
