#include "planner/schedules/build.hpp"

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::string shards_over_tp(const ScheduleRequest& r) {
  return r.etp == 1 || r.etp == r.tp ? "" : "it needs ETP 1 or ETP = TP";
}

std::string shards_as_layouts_have_them(const ScheduleRequest& r) {
  return r.etp == 1 || r.etp == r.tp || r.ep == 1 ? "" : "it needs ETP 1, ETP = TP or EP = 1";
}

// One row a transport; order is the order in which ties are broken.
constexpr Transport kTransports[] = {
    {"flat", "pack, exchange(EP), experts, exchange(EP), combine", build_flat, false, false, shards_over_tp},
    {"two_level", "pack, exchange(node), repack, exchange(rail), experts, and back", build_two_level, true, true,
     shards_over_tp},
    {"node_dedup", "exchange(rail) once a node, exchange(node) once a rank, experts, sums on the way back",
     build_node_dedup, true, true, shards_over_tp},
    {"gather", "all-gather(rail, node), own experts, reduce-scatter back; EP 1: over ETP", build_gather, true, false,
     shards_as_layouts_have_them},
};

}  // namespace

std::span<const Transport> transports() { return kTransports; }

const Transport& find_transport(std::string_view name) {
  std::string known;
  for (const Transport& t : transports()) {
    if (t.name == name) return t;
    known += (known.empty() ? "" : ", ") + std::string(t.name);
  }
  throw InvalidInput("transport", std::string(name), "known: " + known);
}

Schedule build_schedule(std::string_view transport, const ScheduleRequest& request) {
  const Transport& t = find_transport(transport);
  if (const std::string why = t.refuses(request); !why.empty())
    throw InvalidInput("transport", std::string(transport), why);
  return t.build(request);
}

}  // namespace topomoe
