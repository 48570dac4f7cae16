#include "planner/plan/schedule_part.hpp"

#include <algorithm>

namespace topomoe {
namespace {

// Steps that wait, through others, for one of the chosen.
template <class Chosen>
std::vector<std::uint8_t> waiting_for(const std::vector<Step>& steps, Chosen chosen) {
  std::vector<std::uint8_t> out(steps.size(), 0);
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (const int before : steps[i].after) {
      const auto b = static_cast<std::size_t>(before);
      out[i] = out[i] || out[b] || chosen(b);
    }
  return out;
}

}  // namespace

std::vector<std::uint8_t> steps_of(const Schedule& schedule, Part part) {
  const std::vector<Step>& steps = schedule.forward;
  const std::size_t count = steps.size();
  std::vector<std::uint8_t> out(count, 1);
  if (part == Part::whole) return out;
  const auto is_expert = [&](std::size_t i) { return steps[i].kind == StepKind::expert_forward; };
  const auto of_combine = waiting_for(steps, is_expert);
  if (part != Part::exchange) {
    for (std::size_t i = 0; i < count; ++i) out[i] = !is_expert(i) && (of_combine[i] != 0) == (part == Part::combine);
    return out;
  }
  // How tokens come in (the gather of sequence parallelism) is over before anything is routed.
  const auto routed = waiting_for(steps, [&](std::size_t i) { return steps[i].kind == StepKind::route; });
  const auto travels = [&](std::size_t i) {
    return (steps[i].kind == StepKind::exchange || steps[i].kind == StepKind::all_gather) && routed[i] &&
           !of_combine[i];
  };
  const auto arrived = waiting_for(steps, travels);
  std::vector<std::uint8_t> goes_on(count, 0);  // something that travels waits for it
  for (std::size_t i = count; i-- > 0;)
    for (const int before : steps[i].after)
      if (travels(i) || goes_on[i]) goes_on[static_cast<std::size_t>(before)] = 1;
  for (std::size_t i = 0; i < count; ++i) out[i] = travels(i) || (arrived[i] && goes_on[i]);
  return out;
}

}  // namespace topomoe
