// From a directed link's number to its name, class and rate.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

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

// The end of a link as people call it: "host3.nic0" as "n4.nic0", "leaf2" as "isr2"; edits take either.
std::string called(const Topology& topology, const std::string& end) {
  const std::size_t dot = std::min(end.find('.'), end.size());
  const auto replaced = [&](const std::vector<std::string>& names, std::string_view stem) -> std::string {
    std::size_t place = 0;
    const char* const last = end.data() + dot;
    if (names.empty() || !end.starts_with(stem)) return end;
    const auto [stop, error] = std::from_chars(end.data() + stem.size(), last, place);
    if (error != std::errc{} || stop != last || place >= names.size() || names[place].empty()) return end;
    return names[place] + end.substr(dot);
  };
  if (const std::string name = replaced(topology.host_names, "host"); name != end || !topology.fabric) return name;
  return replaced(topology.fabric->leaf_names, "leaf");
}

// Both ends, the second without a host that is the first one's.
std::string name_of(const Topology& topology, const LinkInfo& info) {
  const std::size_t dot = info.src.find('.');
  const bool same_host = dot != std::string::npos && info.dst.compare(0, dot + 1, info.src, 0, dot + 1) == 0;
  return called(topology, info.src) + "->" + (same_host ? info.dst.substr(dot + 1) : called(topology, info.dst));
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
  info.name = name_of(state.topology, info);
  info.src = called(state.topology, info.src);
  info.dst = called(state.topology, info.dst);
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
