#include "topology/edit_host.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "topology/host_tree.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

void scale(double& GBps, std::string& note, double factor) {
  GBps *= factor;
  note += (note.empty() ? "times " : "; times ") + short_number(factor, 4);
}

bool joins(const Link& link, int a, int b) {
  return (link.src == a && link.dst == b) || (link.src == b && link.dst == a);
}

int find_or_add(Topology& topology, HostTemplate host, const std::string& what) {
  const auto index = [&](auto at) { return static_cast<int>(at - topology.templates.begin()); };
  const auto equal = std::find_if(topology.templates.begin(), topology.templates.end(),
                                  [&](const HostTemplate& own) { return same_but_name(host, own); });
  if (equal != topology.templates.end()) return index(equal);
  const auto taken = [&](const std::string& name) {
    return std::any_of(topology.templates.begin(), topology.templates.end(),
                       [&](const HostTemplate& own) { return own.name == name; });
  };
  const std::string name = host.name + " " + what;
  host.name = name;
  for (int i = 2; taken(host.name); ++i) host.name = fmt::format("{} ({})", name, i);
  topology.templates.push_back(std::move(host));
  return static_cast<int>(topology.templates.size()) - 1;
}

// Neighbours of one template are one group; templates that no group uses any more go.
void fold(Topology& topology, const std::set<int>& used_before) {
  std::vector<HostGroup> groups;
  for (const HostGroup& group : topology.groups) {
    if (group.count == 0) continue;
    if (!groups.empty() && groups.back().template_index == group.template_index)
      groups.back().count += group.count;
    else
      groups.push_back(group);
  }
  std::set<int> used;
  for (const HostGroup& group : groups) used.insert(group.template_index);
  std::vector<HostTemplate> templates;
  std::vector<int> moved_to;
  for (int i = 0; i < static_cast<int>(topology.templates.size()); ++i) {
    moved_to.push_back(static_cast<int>(templates.size()));
    if (used.count(i) == 1 || used_before.count(i) == 0)
      templates.push_back(std::move(topology.templates[static_cast<std::size_t>(i)]));
  }
  for (HostGroup& group : groups) group.template_index = moved_to[static_cast<std::size_t>(group.template_index)];
  topology.groups = std::move(groups);
  topology.templates = std::move(templates);
}

}  // namespace

void remove_device(HostTemplate& host, int device) {
  host.shape.reset();
  const auto touches = [&](const Link& link) { return link.src == device || link.dst == device; };
  std::erase_if(host.links, touches);
  std::erase_if(host.nics, [&](const Nic& nic) { return nic.device == device; });
  std::erase(host.gpus, device);
  host.devices.erase(host.devices.begin() + device);
  const auto close_gap = [&](int& index) { index -= index > device ? 1 : 0; };
  for (Link& link : host.links) close_gap(link.src), close_gap(link.dst);
  for (Nic& nic : host.nics) close_gap(nic.device);
  for (int& gpu : host.gpus) close_gap(gpu);
}

HostTemplate removed_host(const HostTemplate& host) {
  HostTemplate place;
  place.name = host.name;
  place.gpu = host.gpu;
  place.nvlink = Presence::absent;
  // A scale-up domain asks each of its hosts for the plane they share.
  for (const HostDevice& device : host.devices)
    if (device.kind == DeviceKind::nvswitch) place.devices.push_back(device);
  if (place.devices.empty()) place.devices.push_back({DeviceKind::numa, "numa0", "", -1});
  for (HostDevice& device : place.devices) device.numa = -1;
  return place;
}

void scale_host(HostTemplate& host, double factor) {
  host.shape.reset();
  for (Link& link : host.links) scale(link.GBps_per_direction, link.source_note, factor);
  for (Nic& nic : host.nics) scale(nic.port.GBps_per_direction, nic.port.source_note, factor);
}

void scale_device(HostTemplate& host, int device, double factor) {
  host.shape.reset();
  const bool is_nic = host.devices[static_cast<std::size_t>(device)].kind == DeviceKind::nic;
  for (Nic& nic : host.nics)
    if (nic.device == device) scale(nic.port.GBps_per_direction, nic.port.source_note, factor);
  for (Link& link : host.links)  // a slow NIC is a slow port; its PCIe slot is as it was
    if (!is_nic && (link.src == device || link.dst == device)) scale(link.GBps_per_direction, link.source_note, factor);
}

bool scale_link(HostTemplate& host, int a, int b, double factor) {
  bool found = false;
  for (Link& link : host.links) {
    if (!joins(link, a, b)) continue;
    host.shape.reset();
    scale(link.GBps_per_direction, link.source_note, factor);
    found = true;
  }
  return found;
}

void remove_link(HostTemplate& host, int a, int b) {
  host.shape.reset();
  std::erase_if(host.links, [&](const Link& link) { return joins(link, a, b); });
}

void change_hosts(Topology& topology, int first, int end, const std::string& what, const HostChange& change) {
  std::set<int> used_before;
  for (const HostGroup& group : topology.groups) used_before.insert(group.template_index);
  std::vector<HostGroup> groups;
  int group_first = 0;
  for (const HostGroup& group : topology.groups) {
    const int group_end = group_first + group.count;
    const int from = std::clamp(first, group_first, group_end), to = std::clamp(end, group_first, group_end);
    groups.push_back({group.template_index, from - group_first});
    if (from < to) {
      HostTemplate host = topology.templates[static_cast<std::size_t>(group.template_index)];
      change(host);
      groups.push_back({find_or_add(topology, std::move(host), what), to - from});
    }
    groups.push_back({group.template_index, group_end - std::max(to, from)});
    group_first = group_end;
  }
  topology.groups = std::move(groups);
  fold(topology, used_before);
}

}  // namespace topomoe
