#include "topology/show/drawn_load.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "topology/names.hpp"
#include "topology/router_state.hpp"

namespace topomoe {

DrawnLoad::DrawnLoad(const Router& router, const PatternLoad* load) : router_(router), load_(load) {
  const Router::State& state = router.state();
  const FabricMap& fabric = state.fabric;
  ring.assign(state.topology.templates.size(), -1);
  for (const HostTemplate& host : state.topology.templates) {
    link.emplace_back(host.links.size(), -1);
    port.emplace_back(host.nics.size(), -1);
  }
  if (load_ == nullptr) return;
  const bool torus = state.has_fabric && fabric.top == FabricMap::Top::torus;
  for (const HostRun& run : state.runs) {
    const auto own = static_cast<std::size_t>(run.template_index);
    const auto& directed = state.paths[own].directed;
    for (int host = 0; host < run.hosts; ++host) {
      const int base = run.first_link + host * run.links_per_host;
      const auto take = [&](double& most, int id) { most = std::max(most, share(id)); };
      for (std::size_t i = 0; i < directed.size(); ++i)
        take(link[own][static_cast<std::size_t>(directed[i].link)], base + static_cast<int>(i));
      // Without a fabric ports lead nowhere, and are no links.
      for (std::size_t nic = 0; state.has_fabric && nic < port[own].size(); ++nic)
        for (const int way : {0, 1})
          take(port[own][nic], base + static_cast<int>(directed.size()) + 2 * static_cast<int>(nic) + way);
      if (torus)
        for (int dim = 0; dim < static_cast<int>(fabric.dims.size()); ++dim)
          for (const int way : {0, 1}) take(ring[own], fabric.ring(run.first_host + host, dim, way));
    }
  }
}

double DrawnLoad::share(int id) const {
  if (load_ == nullptr) return -1;
  const double bytes = load_->loads.bytes_on(id);
  return bytes <= 0 ? 0 : bytes / (router_.link_GBps_per_direction(id) * 1e9) / load_->bottleneck.seconds;
}

std::string share_words(double share) {
  return share < 0 ? "" : fmt::format("; {}% of the slowest link's time", short_number(100 * share, 1));
}

}  // namespace topomoe
