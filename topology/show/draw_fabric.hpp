// The fabric of a drawing: leaves folded by what tells them apart, above them pods or groups, spines, cores or rings.
#pragma once

#include <utility>
#include <vector>

#include "topology/fabric_map.hpp"
#include "topology/show/draw_host.hpp"

namespace topomoe {

// Leaves of one rank in their unit, over as many hosts of each template, whose cables carry the same share of their
// rates, below pods that are alike.
struct LeafKind {
  int pod_kind = 0, rank = 0, first = 0, leaves = 0;  // rank -1: all of them, below pods that are few
  std::vector<std::pair<int, int>> hosts;             // template, hosts of it on one such leaf
  double factor = 1;                                  // of the uplinks' rate
  double share = -1;                                  // of the most loaded of them
  double x = 0;
};
struct PodKind {
  int first = 0, pods = 0;
  std::vector<double> factors;  // of its links up or to other groups, sorted
  double share = -1;
};
struct FoldedFabric {
  std::vector<LeafKind> leaves;
  std::vector<PodKind> pods;  // one, and not drawn, where there is none
  int usual_pods = 0;         // the kind with most of them: its leaves are drawn rank by rank
};
FoldedFabric fold_fabric(const Router&, const DrawnLoad&);

// A host as the fabric sees it.
struct DrawnHost {
  int template_index = 0;
  double left = 0, right = 0, nic_y = 0;                // nic_y: where cables end
  std::map<int, std::vector<HostDrawing::Port>> ports;  // by rail; empty: nothing is known of its NICs
};

// Rows that it takes above the hosts, in points; 0 without a fabric.
double fabric_height(const Topology&);
void draw_fabric(Canvas&, const Router&, const DrawnLoad&, double top, double host_top, const std::vector<DrawnHost>&);

}  // namespace topomoe
