// What a Plan says of its MoE layers of one kind (Model::moe_kinds), as those who execute them take it:
//
//   MoeLayer layer(schedule_of(plan), plan.layout, plan.topology.gpus_per_node, layer_shape_of(plan), ranks, device);
//
// A copy of what is planned, which callers may change before they make a layer: other widths, coefficients of the
// router's losses (a plan has none), memory of bounded size. All throw InvalidInput("kind", ..) for a kind that the
// plan does not have.
#pragma once

#include <string>
#include <vector>

#include "topomoe/layer_shape.hpp"
#include "topomoe/moe_layer.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

const Schedule& schedule_of(const Plan& plan, int kind = 0);
// Sizes, placement, capacity factor, router options, and the shared (or residual) expert.
LayerShape layer_shape_of(const Plan& plan, int kind = 0);
// Memory of bounded size, as the plan counts it (planner/plan/capacity.hpp): for layers whose shape has neither a
// capacity factor nor router losses.
LayerOptions layer_options_of(const Plan& plan, int kind = 0);
// Ids, in the order in which the rank's tensors have them.
std::vector<int> held_experts(const Plan& plan, int rank, int kind = 0);

}  // namespace topomoe
