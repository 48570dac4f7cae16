#include "planner/fewer_gpus.hpp"

#include <bit>
#include <optional>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace topomoe {
namespace {

constexpr unsigned kMostGpus = 1024;

// "DP9", or "CP3 PP3": where the odd factors went.
std::string odd_sizes(const Layout& l) {
  std::string text;
  for (const auto& [what, size] : {std::pair{"TP", l.tp}, {"CP", l.cp}, {"DP", l.dp}, {"PP", l.pp}})
    if (!std::has_single_bit(static_cast<unsigned>(size)))
      text += fmt::format("{}{}{}", text.empty() ? "" : " ", what, size);
  return text;
}

}  // namespace

std::string faster_on_fewer(const Search& s, const Plan& plan) {
  const auto gpus = static_cast<unsigned>(plan.layout.world);
  if (gpus > kMostGpus || std::has_single_bit(gpus)) return "";
  const unsigned fewer = std::bit_floor(gpus), odd = gpus >> std::countr_zero(gpus);
  PlanRequest there = s.request;
  there.cache = s.cache;
  there.flips = there.exhaustive = false;
  std::optional<Plan> other;
  try {
    there.topology = resize_hosts(there.topology, static_cast<int>(fewer), nullptr);
    if (auto made = make_plan(there)) other = std::move(*made);
  } catch (const InvalidInput&) {
    return "";  // a fabric of another shape, or half a rack: there is nothing to compare with
  }
  if (!other || other->time.total_ms() >= plan.time.total_ms()) return "";
  std::vector<std::string> parts;
  const Model& m = plan.model;
  for (const auto& [count, what] : {std::pair{plan.job.global_batch, "sequences"},
                                    {m.layers, "layers"},
                                    {m.heads, "heads"},
                                    {m.experts, "experts"}})
    if (static_cast<unsigned>(count) % odd != 0) parts.push_back(fmt::format("{} {}", count, what));
  return fmt::format(
      "{0} GPUs take {1:.2f} times as long as {2} would ({3:.0f} against {4:.0f} ms, {5}): a factor {6} of "
      "{0} fell to {7}{8}; --gpus {2}",
      gpus, plan.time.total_ms() / other->time.total_ms(), fewer, plan.time.total_ms(), other->time.total_ms(),
      name(other->layout), odd, odd_sizes(plan.layout),
      parts.empty() ? "" : fmt::format(", as it divides none of {}", fmt::join(parts, ", ")));
}

}  // namespace topomoe
