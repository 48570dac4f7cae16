// From a directed link's number to its name, class and rate.
#include <fmt/format.h>

#include "topology/router_state.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

struct HostLink {
  const HostRun* run;
  int host;
  int local;  // below the template's directed links: one of them; above: 2 * nic + (0 out, 1 in)
};

HostLink host_link(const Router::State& state, int id) {
  const HostRun& run = state.run_of_link(id);
  const int within = id - run.first_link;
  return {&run, run.first_host + within / run.links_per_host, within % run.links_per_host};
}

std::string device_name(const Topology& topology, const HostTemplate& host_template, int host, int device) {
  const HostDevice& own = host_template.devices[static_cast<std::size_t>(device)];
  // The NVLink plane of several hosts is one device: it is named after its domain.
  if (own.kind == DeviceKind::nvswitch && topology.hosts_per_domain > 1)
    return fmt::format("domain{}.{}", host / topology.hosts_per_domain, own.name);
  return fmt::format("host{}.{}", host, own.name);
}

std::string short_name(const std::string& src, const std::string& dst) {
  const std::size_t dot = src.find('.');
  const bool same_host = dot != std::string::npos && dst.compare(0, dot + 1, src, 0, dot + 1) == 0;
  return src + "->" + (same_host ? dst.substr(dot + 1) : dst);
}

void set_rate(LinkInfo& info, const Rate& rate) {
  info.GBps_per_direction = rate.GBps_per_direction;
  info.latency_us = rate.latency_us;
  info.source = rate.source;
  info.source_note = rate.source_note;
}

}  // namespace

LinkInfo Router::link(int id) const {
  const State& state = *state_;
  if (id < 0 || id >= state.links)
    throw InvalidInput("link", std::to_string(id), "allowed: 0 to " + std::to_string(state.links - 1));
  LinkInfo info;
  info.id = id;
  if (id >= state.first_fabric_link) {
    state.fabric.describe(*state.topology.fabric, id, info);
  } else {
    const HostLink at = host_link(state, id);
    const auto index = static_cast<std::size_t>(at.run->template_index);
    const HostTemplate& host_template = state.topology.templates[index];
    const int directed = state.directed_links(*at.run);
    if (at.local < directed) {
      const DirectedLink& link = state.paths[index].directed[static_cast<std::size_t>(at.local)];
      const Link& own = host_template.links[static_cast<std::size_t>(link.link)];
      info.kind = own.kind;
      info.klass = topomoe::name(own.kind);
      info.src = device_name(state.topology, host_template, at.host, link.src);
      info.dst = device_name(state.topology, host_template, at.host, link.dst);
      set_rate(info, {own.GBps_per_direction, own.latency_us, own.source, own.source_note});
    } else {
      const Nic& nic = host_template.nics[static_cast<std::size_t>((at.local - directed) / 2)];
      const bool out = (at.local - directed) % 2 == 0;
      const std::string host_end = device_name(state.topology, host_template, at.host, nic.device);
      const std::string leaf_end = state.fabric.leaf_name(at.host, nic.rail);
      info.kind = LinkKind::nic;
      info.klass = out ? "nic_out" : "nic_in";
      info.src = out ? host_end : leaf_end;
      info.dst = out ? leaf_end : host_end;
      set_rate(info, nic.port);
    }
  }
  info.name = short_name(info.src, info.dst);
  return info;
}

double Router::link_GBps_per_direction(int id) const {
  const State& state = *state_;
  if (id < 0 || id >= state.links) return link(id).GBps_per_direction;  // says what is wrong
  if (id >= state.first_fabric_link)
    return state.fabric.rate(*state.topology.fabric, id).GBps_per_direction * state.fabric.factor(id);
  const HostLink at = host_link(state, id);
  const auto index = static_cast<std::size_t>(at.run->template_index);
  const int directed = state.directed_links(*at.run);
  if (at.local < directed) return state.paths[index].directed[static_cast<std::size_t>(at.local)].GBps_per_direction;
  return state.topology.templates[index]
      .nics[static_cast<std::size_t>((at.local - directed) / 2)]
      .port.GBps_per_direction;
}

}  // namespace topomoe
