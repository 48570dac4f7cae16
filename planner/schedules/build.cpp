#include "planner/schedules/build.hpp"

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::string nothing(const ScheduleRequest&) { return ""; }

std::string whole_experts_only(const ScheduleRequest& r) {
  return r.etp == 1 ? "" : "experts sharded over tensor ranks (ETP > 1) are not built for it yet";
}

// One row a transport; order is the order in which ties are broken.
constexpr Transport kTransports[] = {
    {"flat", "pack, exchange(EP), experts, exchange(EP), combine", build_flat, false, nothing},
    {"node_dedup", "exchange(rail) once a node, exchange(node) once a rank, experts, sums on the way back",
     build_node_dedup, true, whole_experts_only},
};

}  // namespace

std::span<const Transport> transports() { return kTransports; }

Schedule build_schedule(std::string_view transport, const ScheduleRequest& request) {
  std::string known;
  for (const Transport& t : transports()) {
    known += (known.empty() ? "" : ", ") + std::string(t.name);
    if (t.name != transport) continue;
    if (const std::string why = t.refuses(request); !why.empty())
      throw InvalidInput("transport", std::string(transport), why);
    return t.build(request);
  }
  throw InvalidInput("transport", std::string(transport), "known: " + known);
}

}  // namespace topomoe
