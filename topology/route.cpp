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
  state->first_fabric_link = static_cast<int>(links);
  state->links = state->first_fabric_link;
  if (state->has_fabric) {
    state->fabric = FabricMap(topology, state->first_fabric_link);
    state->links = state->fabric.end;
  }
  state_ = std::move(state);
}

void Router::State::require_gpu(int gpu) const {
  if (gpu < 0 || gpu >= gpus)
    throw InvalidInput("gpu", std::to_string(gpu), "allowed: 0 to " + std::to_string(gpus - 1));
}

template <class Fits>
Router::State::Exit Router::State::own_exit(const Place& at, Fits fits) const {
  for (const int nic : at.paths->own_nics[static_cast<std::size_t>(at.local)])
    if (fits(nic)) return {nic, at.local};
  return {};
}

template <class Fits>
Router::State::Exit Router::State::relay_exit(const Place& at, Fits fits) const {
  if (!options.pxn) return {};
  for (int gpu = 0; gpu < at.run->gpus_per_host; ++gpu) {
    const PathClass reach = at.paths->between(at.local, gpu).path_class;
    if (reach != PathClass::NVL && reach != PathClass::NVB) continue;
    for (const int nic : at.paths->own_nics[static_cast<std::size_t>(gpu)])
      if (fits(nic)) return {nic, gpu};
  }
  return {};
}

Router::State::Hop Router::State::hop(const Place& src, const Place& dst, Exit exit, int dst_nic) const {
  const auto rank = [&](const Place& at, int nic) {
    return fabric.rank_of(at.host_template->nics[static_cast<std::size_t>(nic)].rail);
  };
  return {exit.sender != src.local ? PathClass::PXN : PathClass::NET,
          exit.sender,
          exit.nic,
          dst_nic,
          rank(src, exit.nic),
          rank(dst, dst_nic)};
}

Router::State::Hop Router::State::choose(const Place& src, const Place& dst) const {
  const auto& src_nics = src.paths->own_nics[static_cast<std::size_t>(src.local)];
  const auto& dst_nics = dst.paths->own_nics[static_cast<std::size_t>(dst.local)];
  if (src_nics.empty() || dst_nics.empty()) return {};
  // A GPU with several NICs spreads its peers over them; the same rule at both ends meets on the same rail.
  const auto stripe = static_cast<std::size_t>(src.local) + static_cast<std::size_t>(dst.local) +
                      static_cast<std::size_t>(src.host) + static_cast<std::size_t>(dst.host);
  const int dst_nic = dst_nics[stripe % dst_nics.size()];
  if (dst.paths->from_nic(dst_nic, dst.local).path_class == PathClass::DIS) return {};
  const int rail = dst.host_template->nics[static_cast<std::size_t>(dst_nic)].rail;
  const auto rail_of = [&](int nic) { return src.host_template->nics[static_cast<std::size_t>(nic)].rail; };
  Exit exit;
  if (fabric.rail_optimised) {
    const auto same_rail = [&](int nic) { return rail_of(nic) == rail; };
    exit = own_exit(src, same_rail);
    if (exit.nic < 0) exit = relay_exit(src, same_rail);
  }
  if (exit.nic < 0 && fabric.planes > 1) {
    const auto same_plane = [&](int nic) { return rail_of(nic) % fabric.planes == rail % fabric.planes; };
    exit = own_exit(src, same_plane);
    if (exit.nic < 0) exit = relay_exit(src, same_plane);
  }
  if (exit.nic < 0) exit = {src_nics[stripe % src_nics.size()], src.local};
  const Hop direct = hop(src, dst, exit, dst_nic);
  if (fabric.joined(src.host, direct.src_rank, dst.host, direct.dst_rank)) return direct;
  return detour(src, dst, stripe);
}

// Where the usual NICs do not meet: the destination's own NICs first, then any of its host; to each of them the
// sender's own NICs, then those over NVLink, then any of its host.
Router::State::Hop Router::State::detour(const Place& src, const Place& dst, std::size_t stripe) const {
  const auto& own = dst.paths->own_nics[static_cast<std::size_t>(dst.local)];
  const auto count = own.size() + static_cast<std::size_t>(dst.paths->nics);
  for (std::size_t i = 0; i < count; ++i) {
    const int dst_nic = i < own.size() ? own[(stripe + i) % own.size()] : static_cast<int>(i - own.size());
    if (dst.paths->from_nic(dst_nic, dst.local).path_class == PathClass::DIS) continue;
    const auto fits = [&](int nic) {
      const Hop way = hop(src, dst, {nic, src.local}, dst_nic);
      return fabric.joined(src.host, way.src_rank, dst.host, way.dst_rank);
    };
    Exit exit = own_exit(src, fits);
    if (exit.nic < 0) exit = relay_exit(src, fits);
    for (int nic = 0; nic < src.paths->nics && exit.nic < 0; ++nic)
      if (src.paths->to_nic(src.local, nic).path_class != PathClass::DIS && fits(nic)) exit = {nic, src.local};
    if (exit.nic >= 0) return hop(src, dst, exit, dst_nic);
  }
  return {};
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
