// The table of token-movement algorithms (DESIGN 5): token split x transport x chunks. A transport is one
// file with one function that returns the whole layer's Schedule, forward and backward, and one row here.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "planner/schedules/draft.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

struct Transport {
  std::string_view name;
  std::string_view steps;  // one line for people
  Schedule (*build)(const ScheduleRequest&);
  bool needs_even_nodes;  // EP groups must spread evenly over nodes
  bool needs_two_nodes;   // and over two or more of them
  // Empty where it applies, else why not.
  std::string (*refuses)(const ScheduleRequest&);
};

std::span<const Transport> transports();
// Throws InvalidInput listing the known names.
const Transport& find_transport(std::string_view name);
// Throws InvalidInput where the transport refuses the request.
Schedule build_schedule(std::string_view transport, const ScheduleRequest& request);

Schedule build_flat(const ScheduleRequest& request);
Schedule build_two_level(const ScheduleRequest& request);
Schedule build_node_dedup(const ScheduleRequest& request);
Schedule build_gather(const ScheduleRequest& request);

}  // namespace topomoe
