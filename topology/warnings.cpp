#include "topology/warnings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "topology/names.hpp"

namespace topomoe {
namespace {

// Lines in order, each once.
class Lines {
 public:
  explicit Lines(std::vector<std::string>& lines) : lines_(lines), said_(lines.begin(), lines.end()) {}
  void add(const std::string& line) {
    if (said_.insert(line).second) lines_.push_back(line);
  }

 private:
  std::vector<std::string>& lines_;
  std::unordered_set<std::string> said_;
};

bool is_weak(Source source) { return source == Source::assumed || source == Source::unknown; }

std::string rate_line(const std::string& owner, const char* what, double GBps, Source source, const std::string& note) {
  if (GBps == 0) return fmt::format("{}: {}: rate {}", owner, what, source_text(source, note));
  return fmt::format("{}: {} {} GB/s: {}", owner, what, short_number(GBps), source_text(source, note));
}

}  // namespace

std::vector<std::string> warnings_from_sources(const Topology& topology) {
  std::vector<std::string> out;
  Lines lines(out);
  for (const HostTemplate& host : topology.templates) {
    if (host.nvlink == Presence::unknown && host.gpus.size() > 1)
      lines.add(host.name +
                ": NVLink unknown (the source lists none, which is not \"no NVLink\"): GPU-to-GPU routes go over "
                "PCIe and bounds are pessimistic; give a dump made on the machine, or add the links");
    if (is_weak(host.gpu.source) && !host.gpus.empty())
      lines.add(fmt::format("{}: GPU figures: {}", host.name, source_text(host.gpu.source, host.gpu.source_note)));
    for (const Link& link : host.links)
      if (is_weak(link.source))
        lines.add(rate_line(host.name, name(link.kind), link.GBps_per_direction, link.source, link.source_note));
    for (const Nic& nic : host.nics)
      if (is_weak(nic.port.source))
        lines.add(rate_line(host.name, "nic", nic.port.GBps_per_direction, nic.port.source, nic.port.source_note));
  }
  if (topology.fabric) {
    const Fabric& fabric = *topology.fabric;
    const auto weak = [&](const char* what, bool is_used, const Rate& rate) {
      if (is_used && is_weak(rate.source))
        lines.add(rate_line("fabric", what, rate.GBps_per_direction, rate.source, rate.source_note));
    };
    weak("uplinks of a leaf", fabric.spine_count > 0, fabric.uplink);
    weak(fabric.kind == FabricKind::dragonfly_plus ? "link from a group to another" : "uplinks of a pod",
         fabric.hosts_per_pod > 0 && (fabric.kind != FabricKind::fat_tree || fabric.core_count > 0), fabric.pod_uplink);
    weak("link of a ring", fabric.kind == FabricKind::torus, fabric.ring);
  }
  return out;
}

void add_warning(Topology& topology, const std::string& line) {
  std::vector<std::string>& lines = topology.warnings;
  if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(line);
}

void add_warnings(Topology& topology, const std::vector<std::string>& lines) {
  Lines all(topology.warnings);
  for (const std::string& line : lines) all.add(line);
}

}  // namespace topomoe
