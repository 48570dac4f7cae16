#include "runtime/settle.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

namespace topomoe {

bool settles(const LayerShape& shape, const ExpertPlacement& placement) {
  return shape.capacity_factor > 0 || placement.replicated();
}

std::int64_t capacity(const LayerShape& shape, std::int64_t tokens) {
  return static_cast<std::int64_t>(
      std::ceil(shape.capacity_factor * static_cast<double>(shape.top_k * tokens) / shape.experts));
}

std::int64_t settle(std::span<std::int32_t> ids, const LayerShape& shape, const ExpertPlacement& placement,
                    std::vector<std::int64_t>& used) {
  const auto k = static_cast<std::size_t>(shape.top_k), tokens = ids.size() / k;
  const std::int64_t room = capacity(shape, static_cast<std::int64_t>(tokens));
  std::int64_t dropped = 0;
  used.assign(static_cast<std::size_t>(shape.experts), 0);
  for (std::size_t slot = 0; slot < k; ++slot)
    for (std::size_t token = 0; token < tokens; ++token) {
      std::int32_t& id = ids[token * k + slot];
      if (id < 0 || id >= shape.experts)
        throw std::logic_error("topomoe bug: a router chose expert " + std::to_string(id) + " of " +
                               std::to_string(shape.experts));
      const bool full = shape.capacity_factor > 0 && used[static_cast<std::size_t>(id)]++ >= room;
      id = placement.copy_for(id, static_cast<std::int64_t>(token));
      if (full) id = ~id, ++dropped;
    }
  return dropped;
}

void unsettle(std::span<std::int32_t> ids, const ExpertPlacement& placement) {
  for (std::int32_t& id : ids) id = placement.expert_of(id < 0 ? ~id : id);
}

}  // namespace topomoe
