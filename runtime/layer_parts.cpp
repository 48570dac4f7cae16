#include "runtime/layer_parts.hpp"

#include <algorithm>
#include <utility>

#include "kernels/router.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// A schedule that was built for another kind of layout would run, and return something else.
void require_fit(const Schedule& s, const Layout& l) {
  if (const auto violations = check(s); !violations.empty())
    throw InvalidInput("schedule " + s.name, violations.front(), "plan again");
  bool sums_shards = false, visits_experts = false, cuts_over_etp = false;
  for (const Step& step : s.forward) {
    sums_shards |= step.group == Role::etp && step.kind == StepKind::ordered_sum;
    visits_experts |= (step.kind == StepKind::exchange || step.kind == StepKind::all_gather) &&
                      (step.group == Role::ep || step.group == Role::node || step.group == Role::rail);
  }
  for (const Buffer& b : s.buffers) cuts_over_etp |= b.split && b.split->role == Role::etp;
  const auto refuse = [&](const std::string& built_for) {
    throw InvalidInput("schedule", s.name,
                       "it was built for " + built_for + ", the layout is " + name(l) + ": plan again for it");
  };
  if (sums_shards != (l.etp > 1)) refuse(sums_shards ? "sharded experts" : "whole experts");
  if (l.ep > 1 && !visits_experts) refuse("ranks that hold a part of every expert");
  if (cuts_over_etp && l.etp != l.tp) refuse("ETP groups that hold the same tokens");
  if (s.intake == Intake::tp_slice && (l.tp == 1 || l.sequence_parallel)) refuse("tokens that a TP group holds alike");
  if (s.intake == Intake::tp_gather && !l.sequence_parallel) refuse("sequence parallelism");
}

// Before any channel is opened.
Schedule checked(Schedule schedule, const Layout& layout, int gpus_per_node, const LayerShape& shape,
                 const Communicator& communicator, const Device& device) {
  check(layout, shape.expert_owners.empty() ? shape.experts : layout.ep);  // uneven placements need not divide
  if (communicator.size() != layout.world)
    throw InvalidInput("communicator", std::to_string(communicator.size()) + " ranks",
                       "the layout has " + std::to_string(layout.world));
  if (const std::string why = communicator.refuses(device); !why.empty())
    throw InvalidInput("device", device.name(), why);
  if (gpus_per_node < 1) throw InvalidInput("gpus_per_node", std::to_string(gpus_per_node), "at least 1");
  if (shape.hidden < 1) throw InvalidInput("shape.hidden", std::to_string(shape.hidden), "at least 1");
  if (shape.ffn < 1 || shape.ffn % layout.etp != 0)
    throw InvalidInput("shape.ffn", std::to_string(shape.ffn),
                       "a positive multiple of ETP " + std::to_string(layout.etp));
  const int most_k = std::min(shape.experts, kernels::kMaxTopK);
  if (shape.top_k < 1 || shape.top_k > most_k)
    throw InvalidInput("shape.top_k", std::to_string(shape.top_k), "1 to " + std::to_string(most_k));
  check(shape.router, shape.experts, shape.top_k, "shape.router");
  require_fit(schedule, layout);
  return schedule;
}

}  // namespace

Capacity capacity_of(const LayerOptions& options) {
  if (!(options.tokens >= 0)) throw InvalidInput("options.tokens", std::to_string(options.tokens), "0 or more");
  if (!(options.skew >= 1)) throw InvalidInput("options.skew", std::to_string(options.skew), "1 or more");
  return {options.tokens, options.skew};
}

LayerParts::LayerParts(Schedule its_schedule, const Layout& layout, int gpus_per_node, const LayerShape& its_shape,
                       Communicator& communicator, Device& device, std::chrono::milliseconds deadline,
                       std::shared_ptr<GroupChannels> shared)
    : schedule(checked(std::move(its_schedule), layout, gpus_per_node, its_shape, communicator, device)),
      shape(its_shape),
      groups(layout, gpus_per_node),
      placement(shape.experts, layout.ep, shape.expert_owners, "shape.expert_owners"),
      its_channels(shared ? std::move(shared) : std::make_shared<GroupChannels>(communicator, groups)),
      channels(*its_channels),
      context{schedule, groups, shape, placement, channels, communicator, device, deadline, communicator.rank()} {
  std::vector<Role> roles = roles_of(schedule);
  if (placement.replicated()) roles.push_back(Role::ep);  // of sum_over_replicas
  channels.open(roles);
}

int LayerParts::boundary(const std::string& name) const {
  for (std::size_t i = 0; i < schedule.buffers.size(); ++i)
    if (schedule.buffers[i].name == name && schedule.buffers[i].storage == Storage::caller &&
        schedule.buffers[i].alias < 0)
      return static_cast<int>(i);
  throw InvalidInput("schedule", schedule.name, "has no buffer " + name + " of the caller's");
}

void LayerParts::bind(PassState& pass, const std::string& buffer, const void* tensor, std::int64_t first) const {
  // No schedule writes what the caller hands in as const.
  pass.bound[boundary(buffer)] = static_cast<std::byte*>(const_cast<void*>(tensor)) +
                                 static_cast<std::size_t>(first * shape.hidden) * size_of(shape.dtype);
}

void LayerParts::hold(PassState& pass, std::int64_t rows) const {
  if (rows < 0) throw InvalidInput("rows", std::to_string(rows), "0 or more");
  if (schedule.intake == Intake::tp_slice) {
    for (const int member : groups.members(Role::tp, context.rank)) pass.counts.set_held(member, rows);
  } else {
    pass.counts.set_held(context.rank, rows);
  }
}

}  // namespace topomoe
