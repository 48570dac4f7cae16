// The few lines of a plan that a person asks for first. All of them follow from the rest of the plan:
// the writer puts them at the top, the reader refuses a file whose summary says something else.
#pragma once

#include "planner/plan/json.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

ordered_json summary_json(const Plan& plan);

}  // namespace topomoe
