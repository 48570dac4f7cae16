#include "topology/set_figure.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <vector>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Setter = std::function<void(Topology&, double)>;

struct Field {
  double& GBps;
  double& latency_us;
  Source& source;
  std::string& note;
};
Field field(Rate& r) { return {r.GBps_per_direction, r.latency_us, r.source, r.source_note}; }
Field field(Link& l) { return {l.GBps_per_direction, l.latency_us, l.source, l.source_note}; }

void assign(const Field& f, bool latency, double value) {
  const double was = latency ? f.latency_us : f.GBps;
  if (was == value) return;
  (latency ? f.latency_us : f.GBps) = value;
  f.source = Source::assumed;
  f.note = fmt::format("set; was {} {}", short_number(was, 4), latency ? "us" : "GB/s");
}

[[noreturn]] void none_here(const std::string& key, const Topology& topology) {
  throw InvalidInput("set", key, fmt::format("{} has none; see topo show", topology.name));
}

// NVLink is named by what leaves one GPU: its links keep their proportions.
double scale_to(const HostTemplate& host, LinkKind kind, double GBps) {
  std::map<int, double> out;
  for (const Link& link : host.links) {
    if (link.kind != kind) continue;
    out[link.src] += link.GBps_per_direction;
    if (link.both_ways) out[link.dst] += link.GBps_per_direction;
  }
  double most = 0;
  for (const int gpu : host.gpus) most = std::max(most, out[gpu]);
  return most > 0 ? GBps / most : 0;
}

void set_links(Topology& topology, LinkKind kind, Rate HostShape::*in_shape, bool latency, double value,
               const std::string& key) {
  bool found = false;
  for (HostTemplate& host : topology.templates) {
    const bool per_gpu = !latency && (kind == LinkKind::nvlink || kind == LinkKind::xgmi);
    const double factor = per_gpu ? scale_to(host, kind, value) : 0;
    for (Link& link : host.links) {
      if (link.kind != kind) continue;
      found = true;
      const double scaled = link.GBps_per_direction * factor;
      // Exactly the figure where the GPU has one link, so that a short host stays short.
      assign(field(link), latency, !per_gpu || std::abs(scaled - value) < 1e-9 * value ? value : scaled);
    }
    if (host.shape && in_shape != nullptr && ((*host.shape).*in_shape).GBps_per_direction > 0)
      assign(field((*host.shape).*in_shape), latency, value);
  }
  if (!found) none_here(key, topology);
}

void set_nics(Topology& topology, bool latency, double value, const std::string& key) {
  bool found = false;
  for (HostTemplate& host : topology.templates) {
    for (Nic& nic : host.nics) {
      found = true;
      assign(field(nic.port), latency, value);
    }
    if (host.shape && host.shape->nics > 0) assign(field(host.shape->nic), latency, value);
  }
  if (!found) none_here(key, topology);
}

void set_fabric_rate(Topology& topology, Rate Fabric::*rate, bool latency, double value, const std::string& key) {
  if (!topology.fabric) none_here(key, topology);
  const Rate& own = (*topology.fabric).*rate;
  // Of an uplink whose rate nobody knows, this is the figure that is missing.
  if (!(own.GBps_per_direction > 0) && (own.source != Source::unknown || own.source_note.empty()))
    none_here(key, topology);
  assign(field((*topology.fabric).*rate), latency, value);
}

void set_ratio(Topology& topology, bool pods, double value, const std::string& key) {
  if (!topology.fabric || topology.fabric->spine_count == 0 || (pods && topology.fabric->hosts_per_pod == 0))
    none_here(key, topology);
  Fabric& fabric = *topology.fabric;
  const double GBps = pods ? pod_uplink_GBps(topology, fabric, value) : leaf_down_GBps(topology, fabric) / value;
  assign(field(pods ? fabric.pod_uplink : fabric.uplink), false, GBps);
}

int whole(const std::string& key, double value, int low) {
  if (value != std::floor(value) || value < low || value > 10'000'000)
    throw InvalidInput("set", fmt::format("{}={}", key, value), fmt::format("a whole number, {} to 10,000,000", low));
  return static_cast<int>(value);
}

void set_hosts(Topology& topology, int hosts) {
  const int had = topology.host_count();
  if (hosts < had) {
    int left = hosts;
    for (HostGroup& group : topology.groups) {
      group.count = std::min(group.count, left);
      left -= group.count;
    }
    std::erase_if(topology.groups, [](const HostGroup& group) { return group.count == 0; });
    fit_fabric(topology);
  } else if (hosts > had) {
    const auto last = std::find_if(topology.groups.rbegin(), topology.groups.rend(), [&](const HostGroup& group) {
      return !topology.templates[static_cast<std::size_t>(group.template_index)].gpus.empty();
    });
    const std::size_t each = last == topology.groups.rend()
                                 ? 0
                                 : topology.templates[static_cast<std::size_t>(last->template_index)].gpus.size();
    const double gpus = topology.gpu_count() + static_cast<double>(each) * (hosts - had);
    if (each == 0 || gpus > 10'000'000)
      throw InvalidInput("set", fmt::format("hosts={}", hosts), "at most 10,000,000 GPUs");
    topology = resize_hosts(topology, static_cast<int>(gpus), nullptr);
  }
}

std::map<std::string, Setter> setters() {
  std::map<std::string, Setter> table;
  for (const bool latency : {false, true}) {
    const std::string end = latency ? ".latency_us" : ".GBps";
    const auto links = [&](const std::string& stem, LinkKind kind, Rate HostShape::*in_shape) {
      const std::string key = stem + end;
      table[key] = [=](Topology& t, double v) { set_links(t, kind, in_shape, latency, v, key); };
    };
    links("nvlink", LinkKind::nvlink, &HostShape::nvlink);
    links("xgmi", LinkKind::xgmi, nullptr);
    links("pcie", LinkKind::pcie, &HostShape::pcie);
    links("c2c", LinkKind::c2c, &HostShape::c2c);
    links("cpu_root", LinkKind::cpu_root, &HostShape::cpu_root);
    links("cpu_interconnect", LinkKind::cpu_interconnect, &HostShape::cpu_interconnect);
    table["nic" + end] = [=](Topology& t, double v) { set_nics(t, latency, v, "nic" + end); };
    const auto above = [&](const std::string& stem, Rate Fabric::*rate) {
      const std::string key = stem + end;
      table[key] = [=](Topology& t, double v) { set_fabric_rate(t, rate, latency, v, key); };
    };
    above("uplink", &Fabric::uplink);
    above("pod_uplink", &Fabric::pod_uplink);
    above("ring", &Fabric::ring);
  }
  table["oversubscription"] = [](Topology& t, double v) { set_ratio(t, false, v, "oversubscription"); };
  table["pod_oversubscription"] = [](Topology& t, double v) { set_ratio(t, true, v, "pod_oversubscription"); };
  table["hosts"] = [](Topology& t, double v) { set_hosts(t, whole("hosts", v, 1)); };
  table["hosts_per_domain"] = [](Topology& t, double v) { t.hosts_per_domain = whole("hosts_per_domain", v, 1); };
  const auto gpu = [&](const std::string& key, double GpuSpec::*figure) {
    table["gpu." + key] = [=](Topology& t, double v) {
      for (HostTemplate& host : t.templates) {
        host.gpu.source_note =
            fmt::format("{} set, was {}; {}", key, short_number(host.gpu.*figure, 4), host.gpu.source_note);
        host.gpu.*figure = v;
      }
    };
  };
  gpu("memory_GiB", &GpuSpec::memory_GiB);
  gpu("hbm_GBps", &GpuSpec::hbm_GBps);
  gpu("bf16_TFLOPps", &GpuSpec::bf16_TFLOPps);
  gpu("fp8_TFLOPps", &GpuSpec::fp8_TFLOPps);
  return table;
}

}  // namespace

std::vector<std::string> figure_keys() {
  std::vector<std::string> keys;
  for (const auto& [known, setter] : setters()) keys.push_back(known);
  return keys;
}

void set_figure(Topology& topology, const std::string& key, double value) {
  const auto table = setters();
  const auto found = table.find(key);
  if (found == table.end())
    throw InvalidInput("set", '"' + key + '"', fmt::format("known: {}", fmt::join(figure_keys(), ", ")));
  const bool latency = key.size() > 3 && key.compare(key.size() - 3, 3, "_us") == 0;
  if (!(value > 0) && !(latency && value == 0))
    throw InvalidInput("set", fmt::format("{}={}", key, value), "a figure above 0");
  found->second(topology, value);
}

}  // namespace topomoe
