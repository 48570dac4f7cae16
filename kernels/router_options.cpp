#include "topomoe/router_options.hpp"

#include <cmath>
#include <string>

#include "topomoe/error.hpp"

namespace topomoe {

void check(const RouterOptions& o, int experts, int top_k, std::string_view where) {
  const auto fail = [&](const char* field, double value, const std::string& hint) {
    std::string text = std::to_string(value);
    if (std::abs(value) < 1e9 && value == std::floor(value)) text = std::to_string(static_cast<long long>(value));
    throw InvalidInput(std::string(where) + ": " + field, text, hint);
  };
  if (o.groups < 1 || experts % o.groups != 0)
    fail("groups", o.groups, "must divide experts = " + std::to_string(experts));
  if (o.topk_groups < 1 || o.topk_groups > o.groups)
    fail("topk_groups", o.topk_groups, "1 to groups = " + std::to_string(o.groups));
  if (experts / o.groups * o.topk_groups < top_k)
    fail("topk_groups", o.topk_groups, "these groups hold fewer experts than top_k = " + std::to_string(top_k));
  for (const auto& [field, value] :
       {std::pair{"scale", o.scale}, {"balance_loss", o.balance_loss}, {"z_loss", o.z_loss}})
    if (!std::isfinite(value)) fail(field, static_cast<double>(value), "must be finite");
}

}  // namespace topomoe
