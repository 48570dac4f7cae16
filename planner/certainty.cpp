#include "planner/certainty.hpp"

#include <algorithm>
#include <cmath>

namespace topomoe {

TimeParts time_parts(const Search& s, const Candidate& c) {
  const Algorithm& a = c.algorithm;
  const double layer = c.costs.moe_forwards * a.forward_s + a.backward_s;
  const double compute = c.costs.moe_forwards * a.forward_compute_s + a.backward_compute_s;
  const double share = layer > 0 ? std::min(1.0, compute / layer) : 0;
  TimeParts p;
  p.compute_ms = c.time.moe_ms * share + c.time.attention_ms + c.time.bubble_ms + c.time.other_ms;
  const bool leaves = nodes_spanned(c.layout, 0, s.gpus_per_node()) > 1;
  (leaves ? p.between_ms : p.node_ms) += c.time.moe_ms * (1 - share);
  (s.request.topology.node_count() > 1 ? p.between_ms : p.node_ms) += c.time.gradients_ms;
  // Collectives of TP and CP and sends between stages are in those times, and as sure as links are.
  const bool apart = c.layout.world / std::max(2, c.layout.pp) >= s.gpus_per_node();
  const LinkTimes links = links_beside_moe(c.costs, {a.forward_s, a.backward_s, a.idle_s}, apart);
  p.compute_ms -= 1e3 * (links.node_s + links.between_s);
  p.node_ms += 1e3 * links.node_s, p.between_ms += 1e3 * links.between_s;
  return p;
}

double error_ms(const Machine& machine, const TimeParts& p) {
  const Efficiency& e = machine.efficiency;
  return std::hypot(e.compute_error * p.compute_ms, e.node_error * p.node_ms, e.between_error * p.between_ms);
}

bool as_fast(double ms, double other_ms) { return std::abs(ms / other_ms - 1) < 5e-4; }

bool undecided(const Search& s, const Candidate& a, const Candidate& b) {
  const TimeParts x = time_parts(s, a), y = time_parts(s, b);
  const TimeParts difference{x.compute_ms - y.compute_ms, x.node_ms - y.node_ms, x.between_ms - y.between_ms};
  return std::abs(a.time.total_ms() - b.time.total_ms()) < error_ms(s.machine, difference);
}

}  // namespace topomoe
