#include "planner/rates/collective_work.hpp"

#include <algorithm>
#include <cmath>

#include "planner/plan/names.hpp"

namespace topomoe {
namespace {

constexpr NameTable<Collective, 5> kNames{{{Collective::alltoall, "alltoall"},
                                           {Collective::all_gather, "all_gather"},
                                           {Collective::reduce_scatter, "reduce_scatter"},
                                           {Collective::all_reduce, "all_reduce"},
                                           {Collective::send_recv, "send_recv"}}};

}  // namespace

std::string_view to_string(Collective op) { return name_of(kNames, op); }
Collective collective_from(std::string_view name, std::string_view field) { return value_of(kNames, name, field); }

double work_of(Collective op, int gpus, bool reduces_in_switch) {
  const double n = gpus;
  if (op == Collective::send_recv) return 1;
  if (op != Collective::all_reduce) return (n - 1 + kLocalShare) / n;
  const double ring = (2 * (n - 1) + kLocalShare) / n;
  return reduces_in_switch ? std::min(ring, (1 + 1 / n) / kInSwitchRate) : ring;
}

double latency_steps(Collective op, int gpus) {
  if (op == Collective::alltoall || op == Collective::send_recv) return std::log2(std::max(gpus, 1));
  return (op == Collective::all_reduce ? 2.0 : 1.0) * (gpus - 1);
}

double whole_buffer_bytes(Collective op, double send_bytes, int gpus) {
  return op == Collective::all_gather ? send_bytes * gpus : send_bytes;
}

}  // namespace topomoe
