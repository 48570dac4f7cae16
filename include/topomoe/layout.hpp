// A Layout: which ranks form which parallel groups.
//
// Attention groups TP x CP x DP x PP and expert groups ETP x EP x EDP x PP lie over the same ranks
// (Megatron's parallel folding): tp*cp*dp*pp == etp*ep*edp*pp == world. Rank r runs through the attention
// dimensions fastest first as tp-cp-dp-pp, and through the expert dimensions in one of two orders. Node n
// is ranks [n*gpus_per_node, (n+1)*gpus_per_node). All functions are arithmetic and never list the world.
// Ignored: uneven group sizes, layouts that differ per layer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

// The groups that steps of a schedule name. node and rail lie inside the EP group: `node` is the members
// of the rank's EP group on its own node, `rail` those with the same index inside their node's part.
enum class Role : std::uint8_t { ep, etp, tp, edp, node, rail, dp, cp, pp };
constexpr int kRoleCount = 9;
std::string_view to_string(Role);
Role role_from(std::string_view text, std::string_view field = "group");

// ep_inner: etp-ep-edp-pp, an EP group is packed into as few nodes as it can be.
// edp_inner: etp-edp-ep-pp, an EP group is strided over as many nodes as it can be.
enum class ExpertOrder : std::uint8_t { ep_inner, edp_inner };
std::string_view to_string(ExpertOrder);
ExpertOrder expert_order_from(std::string_view text, std::string_view field = "expert_order");

struct Layout {
  int world = 1;
  int tp = 1, cp = 1, dp = 1, pp = 1;
  int vpp = 1;  // model chunks a pipeline rank holds (interleaved 1F1B)
  int etp = 1, ep = 1, edp = 1;
  ExpertOrder expert_order = ExpertOrder::ep_inner;
  bool sequence_parallel = false;  // activations outside attention and FFN are cut over TP
  // What data-parallel ranks share out in training (ZeRO): 0 nothing, 1 optimizer, 2 gradients too, 3 weights too.
  int zero = 1;

  bool operator==(const Layout&) const = default;
};

// Derives dp and edp. Throws InvalidInput when they are not whole.
Layout make_layout(int world, int tp, int cp, int pp, int etp, int ep, ExpertOrder order = ExpertOrder::ep_inner);

// Throws InvalidInput that names what is off and the nearest valid choice: ZeRO 0 to 3, above 1 only without pipeline
// stages (whose micro-batches accumulate whole gradients; DeepSpeed refuses it too), sizes positive, both products
// equal to world, experts % ep == 0, etp is 1 or tp (any where ep == 1: MoEShard), sequence parallel only with tp > 1.
void check(const Layout&, int experts, std::string_view where = "layout");

// Where a rank stands in each dimension.
struct Coordinates {
  int tp, cp, dp, pp, etp, ep, edp;
  bool operator==(const Coordinates&) const = default;
};
Coordinates coordinates(const Layout&, int rank);

// World ranks of `rank`'s group, in group order (which is ascending); the groups of a role partition the
// world. gpus_per_node matters to node and rail only.
std::vector<int> members(const Layout&, Role, int rank, int gpus_per_node);
// Position of `rank` in members(...), and their number. Without building the group for all but rail, node.
int index_in(const Layout&, Role, int rank, int gpus_per_node);
int group_size(const Layout&, Role, int rank, int gpus_per_node);

// True when every EP group has equally many members on each node that it touches, all groups alike. Only
// then are node and rail groups of equal size and do two-level transports apply.
bool even_nodes(const Layout&, int gpus_per_node);
// Nodes that the EP group of `rank` touches (N of DESIGN 5).
int nodes_spanned(const Layout&, int rank, int gpus_per_node);

// Layers that a pipeline stage holds, ascending: pp*vpp chunks dealt round robin, as even as they go, the
// first ones longer by one layer. MTP layers, not listed, are on the last stage.
std::vector<int> layers_of_stage(const Layout&, int layers, int stage);

// "TP8 CP1 DP2 PP1 | ETP8 EP2 EDP1"; " VPP4", " ZeRO3" (unless 1) after PP and ", EDP inner", ", SP" at the end where
// they apply.
std::string name(const Layout&);

}  // namespace topomoe
