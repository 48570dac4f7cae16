#include "topology/host_tree.hpp"

#include <functional>
#include <string_view>

namespace topomoe {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

bool may_be_above(DeviceKind kind) { return kind == DeviceKind::pci_switch || kind == DeviceKind::numa; }

}  // namespace

HostTree::HostTree(const HostTemplate& host)
    : parent(host.devices.size(), -1), parent_link(host.devices.size(), -1), children(host.devices.size()) {
  const auto kind = [&](int device) { return host.devices[at(device)].kind; };
  const auto is_above = [&](int above, int device) {
    for (int step = above; step >= 0; step = parent[at(step)])
      if (step == device) return true;
    return false;
  };
  const auto hang = [&](int device, int above, int link) {
    if (kind(device) == DeviceKind::numa || parent[at(device)] >= 0 || !may_be_above(kind(above)) ||
        is_above(above, device))
      return false;
    parent[at(device)] = above, parent_link[at(device)] = link;
    children[at(above)].push_back(device);
    return true;
  };
  const auto take = [&](LinkKind wanted, bool other_way) {
    for (int i = 0; i < static_cast<int>(host.links.size()); ++i) {
      const Link& link = host.links[at(i)];
      if (link.kind != wanted) continue;
      // Between two switches the first of the description is the lower one.
      if (!other_way)
        hang(link.src, link.dst, i);
      else if (link.both_ways)
        hang(link.dst, link.src, i);
    }
  };
  for (const LinkKind wanted : {LinkKind::pcie, LinkKind::cpu_root, LinkKind::c2c})
    for (const bool other_way : {false, true}) take(wanted, other_way);
}

std::vector<int> HostTree::way_up(int device) const {
  std::vector<int> out;
  for (int step = parent[at(device)]; step >= 0; step = parent[at(step)]) out.push_back(step);
  return out;
}

bool same_but_name(const HostTemplate& a, const HostTemplate& b) {
  return a.gpu == b.gpu && a.devices == b.devices && a.links == b.links && a.gpus == b.gpus && a.nics == b.nics &&
         a.nvlink == b.nvlink && a.shape == b.shape;
}

std::size_t HostsByKind::hash(const HostTemplate& host) {
  std::size_t out = host.links.size() * 1'000'003 + host.gpus.size();
  const auto add = [&](std::string_view text) { out = out * 1'000'003 + std::hash<std::string_view>()(text); };
  const auto add_all = [&](const std::vector<Attribute>& attributes) {
    for (const Attribute& own : attributes) add(own.value);
  };
  for (const HostDevice& own : host.devices) {
    add(own.bus_id);
    add_all(own.attributes);
  }
  for (const Nic& own : host.nics) {
    add(own.name);
    add_all(own.attributes);
  }
  return out;
}

std::string shown(const HostDevice& device) {
  return device.name + (device.bus_id.empty() ? "" : " (" + device.bus_id + ")");
}

}  // namespace topomoe
