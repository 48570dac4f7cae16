#include "topomoe/planned_layer.hpp"

#include "planner/plan/capacity.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Of those after the first; null: the first.
const PlannedKind* later_kind(const Plan& plan, int kind) {
  const int kinds = moe_kind_count(plan.model);
  if (kind < 0 || kind >= kinds)
    throw InvalidInput("kind", std::to_string(kind), "the plan has kinds 0 to " + std::to_string(kinds - 1));
  return kind == 0 ? nullptr : &plan.later_kinds.at(static_cast<std::size_t>(kind) - 1);
}

}  // namespace

const Schedule& schedule_of(const Plan& plan, int kind) {
  const PlannedKind* const later = later_kind(plan, kind);
  return later != nullptr ? later->schedule : plan.schedule;
}

LayerShape layer_shape_of(const Plan& plan, int kind) {
  const PlannedKind* const later = later_kind(plan, kind);
  const Model& m = plan.model;
  const MoeKind k = moe_kind(m, kind);
  return {.hidden = m.hidden,
          .ffn = k.expert_ffn,
          .experts = k.experts,
          .top_k = k.top_k,
          .renormalize = m.renormalize,
          .dtype = plan.job.dtype,
          .expert_owners = later != nullptr ? later->expert_owners : plan.expert_owners,
          .capacity_factor = plan.job.capacity_factor,
          .router = {.scoring = m.scoring,
                     .groups = m.router_groups,
                     .topk_groups = m.router_topk_groups,
                     .scale = static_cast<float>(m.routed_scaling)},
          .shared_ffn = k.shared_ffn,
          .shared_gate = k.shared_ffn > 0 ? m.shared_gate : SharedGate::none,
          .gated = m.gated_ffn};
}

LayerOptions layer_options_of(const Plan& plan, int kind) {
  later_kind(plan, kind);
  const Capacity capacity = capacity_of(plan, kind);
  return {capacity.tokens, capacity.skew};
}

std::vector<int> held_experts(const Plan& plan, int rank, int kind) {
  const LayerShape shape = layer_shape_of(plan, kind);
  const Layout& l = plan.layout;
  if (rank < 0 || rank >= l.world)
    throw InvalidInput("rank", std::to_string(rank), "0 to " + std::to_string(l.world - 1));
  const ExpertPlacement placement(shape.experts, l.ep, shape.expert_owners);
  std::vector<int> experts;
  for (const int copy : placement.held_by(index_in(l, Role::ep, rank, plan.topology.gpus_per_node)))
    experts.push_back(placement.expert_of(copy));
  return experts;
}

}  // namespace topomoe
