// All-to-all among hosts of a torus, on its rings.
//
// Model: host s sends weight[s] * weight[t] to host t, dimension by dimension. On ring (t0 .. t[d-1]; s[d+1] ..) of
// dimension d, the flow from place a to place b is the sum over all sources at a with those later places, times the sum
// over all destinations at b with those earlier ones: no pair of hosts is looked at.
#pragma once

#include <vector>

#include "topology/fabric_map.hpp"

namespace topomoe {

// Calls visit(link id, flow) a few times for each link; false, with some calls made, where dead links leave a ring
// without a way.
template <class Visit>
bool add_ring_loads(const FabricMap& fabric, const std::vector<double>& weight, Visit visit) {
  std::vector<double> later = weight;  // by places of this and later dimensions: what sources there send
  // earlier[d]: by places of dimensions 0 .. d, what destinations there take.
  std::vector<std::vector<double>> earlier(fabric.dims.size());
  int size = fabric.hosts;
  for (std::size_t d = fabric.dims.size(); d-- > 0;) {
    const std::vector<double>& from = d + 1 == fabric.dims.size() ? later : earlier[d + 1];
    if (d + 1 < fabric.dims.size()) size /= fabric.dims[d + 1];
    earlier[d].assign(static_cast<std::size_t>(size), 0.0);
    for (std::size_t i = 0; i < from.size(); ++i) earlier[d][i % static_cast<std::size_t>(size)] += from[i];
  }
  int stride = 1, rest = fabric.hosts;
  std::vector<double> up, down;
  for (int dim = 0; dim < static_cast<int>(fabric.dims.size()); ++dim) {
    const int k = fabric.dims[static_cast<std::size_t>(dim)];
    const std::vector<double>& takes = earlier[static_cast<std::size_t>(dim)];
    const int next_rest = rest / k;
    std::vector<double> next(static_cast<std::size_t>(next_rest), 0.0);
    for (int tail = 0; tail < next_rest; ++tail) {
      double sent = 0;
      for (int a = 0; a < k; ++a) sent += later[static_cast<std::size_t>(tail * k + a)];
      next[static_cast<std::size_t>(tail)] = sent;
      if (sent == 0) continue;
      for (int head = 0; head < stride; ++head) {
        const int base = tail * k * stride + head;
        // A flow from a to b adds to a stretch of links: +1 where it begins, -1 behind its end; twice round unrolls it.
        up.assign(static_cast<std::size_t>(2 * k + 1), 0.0);
        down.assign(static_cast<std::size_t>(2 * k + 1), 0.0);
        for (int a = 0; a < k; ++a) {
          const double out = later[static_cast<std::size_t>(tail * k + a)];
          if (out == 0) continue;
          for (int b = 0; b < k; ++b) {
            const double flow = out * takes[static_cast<std::size_t>(b * stride + head)];
            if (a == b || flow == 0) continue;
            const int direction = fabric.ring_direction(base, stride, dim, a, b);
            if (direction < 0) return false;
            // Up: links a .. b-1 of "to the next". Down: links b+1 .. a of "to the previous".
            std::vector<double>& on = direction == 0 ? up : down;
            const int first = direction == 0 ? a : b + 1, length = direction == 0 ? (b - a + k) % k : (a - b + k) % k;
            on[static_cast<std::size_t>(first)] += flow;
            on[static_cast<std::size_t>(first + length)] -= flow;
          }
        }
        for (int direction = 0; direction < 2; ++direction) {
          const std::vector<double>& on = direction == 0 ? up : down;
          double flow = 0;
          for (int place = 0; place < 2 * k; ++place) {
            flow += on[static_cast<std::size_t>(place)];
            if (flow != 0) visit(fabric.ring(base + place % k * stride, dim, direction), flow);
          }
        }
      }
    }
    later = std::move(next);
    rest = next_rest;
    stride *= k;
  }
  return true;
}

}  // namespace topomoe
