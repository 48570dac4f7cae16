// Two plans side by side: what was decided otherwise, and what that costs.
//
// Rows in the order in which a person asks: what was planned for, the decision, the time and its parts, link load,
// memory. A row is a figure with its unit or a text; rows that are equal are left out of the text, not of the JSON.
#pragma once

#include <string>
#include <vector>

#include "topomoe/plan.hpp"

namespace topomoe {

struct PlanRow {
  std::string what;
  std::string unit;                     // of figures; empty for texts
  double first = 0, second = 0;         // figures; 0 where a plan has none
  std::string first_text, second_text;  // texts
  bool operator==(const PlanRow&) const = default;
};
std::vector<PlanRow> compare_plans(const Plan& first, const Plan& second);

std::string compare_text(const Plan& first, const Plan& second);
// {"schema": "topomoe.compare/1", "rows": [{"what", "unit", "first", "second"}]}
std::string compare_json(const Plan& first, const Plan& second);

}  // namespace topomoe
