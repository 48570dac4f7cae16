// Names of the schedule's enumerators and of lanes, in JSON, traces and messages alike.

#include <array>

#include "topomoe/schedule.hpp"

namespace topomoe {

std::string_view name(Symbol s) {
  constexpr std::array<std::string_view, 5> names{"held", "tokens", "pairs", "rank_tokens", "node_tokens"};
  return names[static_cast<std::size_t>(s)];
}

std::string_view name(StepKind k) {
  constexpr std::array<std::string_view, 23> names{
      "route",        "counts_exchange", "index",        "pack",           "repack",
      "exchange",     "all_gather",      "ordered_sum",  "expert_forward", "expert_dgrad",
      "expert_wgrad", "partial_combine", "combine",      "weight_grad",    "route_backward",
      "copy",         "shared_forward",  "shared_dgrad", "shared_wgrad",   "add",
      "mix",          "mix_backward",    "convert"};
  return names[static_cast<std::size_t>(k)];
}

std::string_view name(StepPhase p) {
  constexpr std::array<std::string_view, 4> names{"metadata", "forward", "dgrad", "wgrad"};
  return names[static_cast<std::size_t>(p)];
}

std::string_view name(Lane l) {
  constexpr std::array<std::string_view, kLaneCount> names{"compute", "copy", "intra_node", "inter_node"};
  return names[static_cast<std::size_t>(l)];
}

}  // namespace topomoe
