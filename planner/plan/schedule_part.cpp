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

// Of the backward of a gate: the gradient rows that it makes for the routed experts are the caller's then.
void read_instead(std::vector<Step>& steps, std::vector<IndexMap>& maps, const View& made, const View& given) {
  const auto change = [&](View& v) {
    if (v.buffer != made.buffer) return;
    v.buffer = given.buffer;
    if (!v.sources) v.sources = given.sources;
    if (!v.chunks) v.chunks = given.chunks;
  };
  for (Step& s : steps)
    for (auto* views : {&s.in, &s.out}) std::for_each(views->begin(), views->end(), change);
  for (IndexMap& m : maps) change(m.from), change(m.to);
}

void remove_beside(std::vector<Step>& steps) {
  std::vector<std::vector<int>> stands_for(steps.size());  // by old step: the new one, or what a lost one waited for
  std::vector<Step> kept;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::vector<int> after;
    for (const int before : steps[i].after) {
      const auto& other = stands_for[static_cast<std::size_t>(before)];
      after.insert(after.end(), other.begin(), other.end());
    }
    std::sort(after.begin(), after.end());
    after.erase(std::unique(after.begin(), after.end()), after.end());
    if (steps[i].beside) {
      stands_for[i] = std::move(after);
      continue;
    }
    stands_for[i] = {static_cast<int>(kept.size())};
    kept.push_back(std::move(steps[i]));
    kept.back().after = std::move(after);
  }
  steps = std::move(kept);
}

}  // namespace

Schedule without_shared(Schedule s) {
  for (const Step& step : s.backward)
    if (step.kind == StepKind::mix_backward) {
      const View made = step.out[0], given = step.in[1];
      read_instead(s.backward, s.maps, made, given);
      break;
    }
  remove_beside(s.forward);
  remove_beside(s.backward);
  return s;
}

std::vector<std::uint8_t> steps_of(const Schedule& schedule, Part part) {
  const std::vector<Step>& steps = schedule.forward;
  const std::size_t count = steps.size();
  std::vector<std::uint8_t> out(count, 1);
  if (part == Part::whole) return out;
  const auto is_expert = [&](std::size_t i) { return steps[i].kind == StepKind::expert_forward; };
  const auto of_combine = waiting_for(steps, is_expert);
  if (part != Part::exchange) {
    for (std::size_t i = 0; i < count; ++i)
      out[i] = !is_expert(i) && !steps[i].beside && (of_combine[i] != 0) == (part == Part::combine);
    return out;
  }
  // How tokens come in (the gather of sequence parallelism) is over before anything is routed.
  const auto routed = waiting_for(steps, [&](std::size_t i) { return steps[i].kind == StepKind::route; });
  const auto travels = [&](std::size_t i) {
    return (steps[i].kind == StepKind::exchange || steps[i].kind == StepKind::all_gather) && !steps[i].beside &&
           routed[i] && !of_combine[i];
  };
  const auto arrived = waiting_for(steps, travels);
  std::vector<std::uint8_t> goes_on(count, 0);  // something that travels waits for it
  for (std::size_t i = count; i-- > 0;)
    for (const int before : steps[i].after)
      if (travels(i) || goes_on[i]) goes_on[static_cast<std::size_t>(before)] = 1;
  for (std::size_t i = 0; i < count; ++i) out[i] = travels(i) || (arrived[i] && goes_on[i] && !steps[i].beside);
  return out;
}

}  // namespace topomoe
