#include <cstdint>
#include <limits>

#include "topology/router_state.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

Router::Router(const Topology& topology, RouteOptions options) {
  require_valid(topology, topology.name.empty() ? "topology" : topology.name);
  auto state = std::make_shared<State>();
  state->topology = topology;
  state->options = options;
  state->has_fabric = topology.fabric.has_value();
  state->has_spine = state->has_fabric && topology.fabric->spine_count > 0;
  for (const HostTemplate& host : topology.templates) state->paths.push_back(find_host_paths(host));
  std::int64_t links = 0;
  int hosts = 0;
  for (const HostGroup& group : topology.groups) {
    const auto index = static_cast<std::size_t>(group.template_index);
    const HostPaths& paths = state->paths[index];
    const int per_host = static_cast<int>(paths.directed.size()) + (state->has_fabric ? 2 * paths.nics : 0);
    state->runs.push_back(
        {hosts, state->gpus, static_cast<int>(links), group.count, paths.gpus, per_host, group.template_index});
    hosts += group.count;
    state->gpus += group.count * paths.gpus;
    links += std::int64_t{group.count} * per_host;
    if (links > std::numeric_limits<int>::max() / 2)
      throw InvalidInput(topology.name + ": links", std::to_string(links), "at most 10^9; take fewer hosts");
  }
  state->first_leaf_link = static_cast<int>(links);
  state->links = static_cast<int>(links) + (state->has_spine ? 2 * topology.leaf_count() : 0);
  state_ = std::move(state);
}

void Router::State::require_gpu(int gpu) const {
  if (gpu < 0 || gpu >= gpus)
    throw InvalidInput("gpu", std::to_string(gpu), "allowed: 0 to " + std::to_string(gpus - 1));
}

int Router::State::relay_gpu(const Place& at, int rail, int* nic) const {
  for (int gpu = 0; gpu < at.run->gpus_per_host; ++gpu) {
    const PathClass reach = at.paths->between(at.local, gpu).path_class;
    if (reach != PathClass::NVL && reach != PathClass::NVB) continue;
    for (const int own : at.paths->own_nics[static_cast<std::size_t>(gpu)]) {
      if (at.host_template->nics[static_cast<std::size_t>(own)].rail != rail) continue;
      *nic = own;
      return gpu;
    }
  }
  return -1;
}

const Topology& Router::topology() const { return state_->topology; }
int Router::link_count() const { return state_->links; }

Route Router::route(int src_gpu, int dst_gpu) const {
  state_->require_gpu(src_gpu);
  state_->require_gpu(dst_gpu);
  Route result;
  result.path_class = state_->walk(src_gpu, dst_gpu, [&](int id) { result.links.push_back(id); });
  if (result.path_class == PathClass::DIS) return result;
  result.bottleneck_GBps = std::numeric_limits<double>::infinity();
  for (const int id : result.links) {
    const LinkInfo info = link(id);
    result.bottleneck_GBps = std::min(result.bottleneck_GBps, info.GBps_per_direction);
    result.latency_us += info.latency_us;
  }
  return result;
}

Route Router::route_to_nic(int gpu, int nic) const {
  state_->require_gpu(gpu);
  const State::Place at = state_->place(gpu);
  if (nic < 0 || nic >= at.paths->nics)
    throw InvalidInput("nic", std::to_string(nic), "allowed: 0 to " + std::to_string(at.paths->nics - 1));
  const HostPath& path = at.paths->to_nic(at.local, nic);
  Route result{path.path_class, {}, path.latency_us, path.bottleneck_GBps};
  for (int i = path.first; i < path.first + path.count; ++i)
    result.links.push_back(at.link_base + at.paths->pool[static_cast<std::size_t>(i)]);
  return result;
}

int Router::nearest_nic(int gpu) const {
  state_->require_gpu(gpu);
  const State::Place at = state_->place(gpu);
  const auto& own = at.paths->own_nics[static_cast<std::size_t>(at.local)];
  return own.empty() ? -1 : own.front();
}

Route route(const Topology& topology, int src_gpu, int dst_gpu) { return Router(topology).route(src_gpu, dst_gpu); }

}  // namespace topomoe
