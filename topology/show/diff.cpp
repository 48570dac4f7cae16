#include "topology/show/diff.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "topology/counted.hpp"
#include "topology/host_tree.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

std::string key_of(const HostDevice& device) {
  return std::string(name(device.kind)) + " " + (device.bus_id.empty() ? device.name : device.bus_id);
}

// Devices by key, and what each hangs on by PCIe. Two alike (RCCL's models repeat bridges) are told apart by number.
struct Side {
  explicit Side(const HostTemplate& own) : host(own), above(HostTree(own).parent) {
    std::map<std::string, int> seen;
    for (const HostDevice& device : own.devices) {
      std::string key = key_of(device);
      if (const int again = seen[key]++; again > 0) key += fmt::format(" #{}", again);
      index[key] = static_cast<int>(keys.size());
      keys.push_back(std::move(key));
    }
  }
  const HostDevice& device(int i) const { return host.devices[at(i)]; }

  const HostTemplate& host;
  std::vector<int> above;
  std::vector<std::string> keys;
  std::map<std::string, int> index;
};

// What only `one` has: the uppermost of each, with what hangs on it.
void add_missing(const Side& one, const Side& other, bool removed, std::vector<Difference>& out) {
  const auto gone = [&](int i) { return other.index.count(one.keys[at(i)]) == 0; };
  std::map<int, std::map<DeviceKind, int>> below;
  for (int i = 0; i < static_cast<int>(one.keys.size()); ++i) {
    if (!gone(i)) continue;
    int top = i;
    while (one.above[at(top)] >= 0 && gone(one.above[at(top)])) top = one.above[at(top)];
    auto& counts = below[top];
    if (top != i) ++counts[one.device(i).kind];
  }
  for (const auto& [top, counts] : below) {
    Difference own{shown(one.device(top)), removed ? "there" : "missing", removed ? "missing" : "there", {}};
    own.kinds.push_back(one.device(top).kind);
    std::vector<std::string> parts;
    for (const auto& [kind, count] : counts) {
      parts.push_back(fmt::format("{} {}", count, name(kind)));
      own.kinds.push_back(kind);
    }
    if (!parts.empty()) own.element += fmt::format(" and what hangs on it: {}", fmt::join(parts, ", "));
    out.push_back(std::move(own));
  }
}

void add_attributes(const std::string& element, const std::vector<Attribute>& before,
                    const std::vector<Attribute>& after, std::vector<Difference>& out) {
  std::set<std::string> all;
  for (const auto& side : {before, after})
    for (const Attribute& own : side) all.insert(own.name);
  const auto value = [](const std::vector<Attribute>& of, const std::string& key) {
    const bool there = std::any_of(of.begin(), of.end(), [&](const Attribute& own) { return own.name == key; });
    return there ? fmt::format("\"{}\"", attribute(of, key)) : std::string("missing");
  };
  for (const std::string& key : all)
    if (value(before, key) != value(after, key))
      out.push_back({element + " " + key, value(before, key), value(after, key), {}});
}

struct Way {  // all links of a kind from one device to another
  double GBps = 0, latency_us = 0;
  std::int64_t count = 0;
};
using LinksByEnds = std::map<std::string, Way>;

LinksByEnds links_of(const Side& side, const Side& other) {
  LinksByEnds out;
  for (const Link& link : side.host.links) {
    const std::string &src = side.keys[at(link.src)], &dst = side.keys[at(link.dst)];
    if (other.index.count(src) == 0 || other.index.count(dst) == 0) continue;  // said of the device
    const auto add = [&](int from, int to, const char* arrow) {
      auto& own =
          out[fmt::format("{} {} {} {}", name(link.kind), shown(side.device(from)), arrow, shown(side.device(to)))];
      own.GBps += link.GBps_per_direction, own.count += link.count;
      own.latency_us = std::max(own.latency_us, link.latency_us);
    };
    // NVLinks by direction, since descriptions may count those apart.
    const bool together = link.both_ways && !joins_gpus(link);
    add(link.src, link.dst, together ? "<->" : "->");
    if (link.both_ways && !together) add(link.dst, link.src, "->");
  }
  return out;
}

void add_links(const Side& before, const Side& after, std::vector<Difference>& out) {
  const LinksByEnds was = links_of(before, after), is = links_of(after, before);
  std::set<std::string> all;
  for (const LinksByEnds* side : {&was, &is})
    for (const auto& [ends, own] : *side) all.insert(ends);
  const auto text = [](const LinksByEnds& of, const std::string& ends) {
    const auto found = of.find(ends);
    if (found == of.end()) return std::string("missing");
    const Way& own = found->second;
    return (own.count > 0 ? counted(own.count, "link") + ", " : "") +
           fmt::format("{} GB/s, {} us", short_number(own.GBps), short_number(own.latency_us));
  };
  for (const std::string& ends : all)
    if (text(was, ends) != text(is, ends)) out.push_back({ends, text(was, ends), text(is, ends), {}});
}

void add_nics(const HostTemplate& before, const HostTemplate& after, std::vector<Difference>& out) {
  std::multimap<std::string, const Nic*> left;
  const auto key = [](const HostTemplate& host, const Nic& nic) {
    return nic.name.empty() ? key_of(host.devices[at(nic.device)]) : nic.name;
  };
  for (const Nic& nic : before.nics) left.emplace(key(before, nic), &nic);
  for (const Nic& nic : after.nics) {
    const auto found = left.find(key(after, nic));
    const std::string element = "net " + key(after, nic);
    if (found == left.end()) {
      out.push_back({element, "missing", "there", {}});
      continue;
    }
    const Nic& was = *found->second;
    if (was.port.GBps_per_direction != nic.port.GBps_per_direction)
      out.push_back({element,
                     short_number(was.port.GBps_per_direction) + " GB/s",
                     short_number(nic.port.GBps_per_direction) + " GB/s",
                     {}});
    if (was.port.latency_us != nic.port.latency_us)
      out.push_back(
          {element, short_number(was.port.latency_us) + " us", short_number(nic.port.latency_us) + " us", {}});
    if (was.rail != nic.rail)
      out.push_back({element + " rail", std::to_string(was.rail), std::to_string(nic.rail), {}});
    add_attributes(element, was.attributes, nic.attributes, out);
    left.erase(found);
  }
  for (const auto& [own, nic] : left) out.push_back({"net " + own, "there", "missing", {}});
}

}  // namespace

std::vector<Difference> differences(const HostTemplate& before, const HostTemplate& after) {
  std::vector<Difference> out;
  const auto figure = [&](const char* what, double was, double is) {
    if (was != is) out.push_back({what, short_number(was), short_number(is), {}});
  };
  if (before.gpu.name != after.gpu.name) out.push_back({"GPU", before.gpu.name, after.gpu.name, {}});
  figure("GPU memory_GiB", before.gpu.memory_GiB, after.gpu.memory_GiB);
  figure("GPU hbm_GBps", before.gpu.hbm_GBps, after.gpu.hbm_GBps);
  figure("GPU bf16_TFLOPps", before.gpu.bf16_TFLOPps, after.gpu.bf16_TFLOPps);
  figure("GPU fp8_TFLOPps", before.gpu.fp8_TFLOPps, after.gpu.fp8_TFLOPps);
  figure("GPU fp32_TFLOPps", before.gpu.fp32_TFLOPps, after.gpu.fp32_TFLOPps);
  if (before.nvlink != after.nvlink) out.push_back({"NVLink", name(before.nvlink), name(after.nvlink), {}});
  const Side was(before), is(after);
  add_missing(was, is, true, out);
  add_missing(is, was, false, out);
  for (std::size_t i = 0; i < was.keys.size(); ++i) {
    const auto found = is.index.find(was.keys[i]);
    if (found == is.index.end()) continue;
    const HostDevice &a = before.devices[i], &b = is.device(found->second);
    const auto parent = [](const Side& side, int index) {
      const int above = side.above[at(index)];
      return above < 0 ? std::string("nothing") : shown(side.device(above));
    };
    if (a.numa != b.numa) out.push_back({shown(a) + " NUMA node", std::to_string(a.numa), std::to_string(b.numa), {}});
    if (const std::string x = parent(was, static_cast<int>(i)), y = parent(is, found->second); x != y)
      out.push_back({shown(a) + " hangs on", x, y, {}});
    add_attributes(shown(a), a.attributes, b.attributes, out);
  }
  add_links(was, is, out);
  add_nics(before, after, out);
  return out;
}

}  // namespace topomoe
