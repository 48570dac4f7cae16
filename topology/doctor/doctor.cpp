#include "topomoe/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "topology/doctor/doctor_fabric.hpp"
#include "topology/doctor/doctor_host.hpp"
#include "topology/host_tree.hpp"
#include "topology/names.hpp"
#include "topology/show/diff.hpp"

namespace topomoe {
namespace {

// A kind of host, wherever it comes from.
struct Sibling {
  const HostTemplate* host;
  std::string where;  // of the first such host
  int count;
};

std::vector<Sibling> kinds_of(std::span<const Topology> topologies) {
  std::vector<Sibling> out;
  HostsByKind kinds;
  int all = 0;
  for (const Topology& topology : topologies) all += topology.host_count();
  for (const Topology& topology : topologies) {
    int host = 0;
    for (const HostGroup& group : topology.groups) {
      const HostTemplate& own = topology.templates[static_cast<std::size_t>(group.template_index)];
      const auto next = static_cast<int>(out.size());
      const int known = kinds.first_like(
          own, next, [&](int kind) -> const HostTemplate& { return *out[static_cast<std::size_t>(kind)].host; });
      std::string where = topologies.size() > 1 ? topology.name : "";
      if (topology.host_count() > 1) where += (where.empty() ? "host" : ".host") + std::to_string(host);
      if (known == next)
        out.push_back({&own, all > 1 ? where + "." : "", group.count});
      else
        out[static_cast<std::size_t>(known)].count += group.count;
      host += group.count;
    }
  }
  return out;
}

double port_GBps(const HostTemplate& host) {
  double out = 0;
  for (const Nic& nic : host.nics) out += nic.port.GBps_per_direction;
  return out;
}

// With hosts of the usual kind in place of these.
std::string cost_of_kind(std::span<const Topology> topologies, const Sibling& own, const Sibling& usual) {
  std::string cost;
  if (topologies.size() == 1 && topologies[0].fabric) {
    Topology repaired = topologies[0];
    for (HostTemplate& host : repaired.templates)
      if (same_but_name(host, *own.host) && host.gpus.size() == usual.host->gpus.size()) host = *usual.host;
    cost = fabric_cost(topologies[0], repaired);
  }
  return cost.empty() ? "the slowest host sets the pace of all" : cost;
}

// Against the kind that most hosts are of; without one, against the first of those with most devices. Ports together,
// the rest device by device.
void compare(const std::vector<Sibling>& kinds, std::span<const Topology> topologies, std::vector<Finding>& findings) {
  if (kinds.size() < 2) return;
  const auto usual = std::max_element(kinds.begin(), kinds.end(), [](const Sibling& a, const Sibling& b) {
    return std::pair(a.count, a.host->devices.size()) < std::pair(b.count, b.host->devices.size());
  });
  const std::string as = usual->where.empty() ? usual->host->name : usual->where.substr(0, usual->where.size() - 1);
  for (const Sibling& own : kinds) {
    if (&own == &*usual) continue;
    const std::string cost = cost_of_kind(topologies, own, *usual);
    bool nic_lost = false;
    for (const Difference& difference : differences(*usual->host, *own.host)) {
      const auto holds = [&](DeviceKind kind) {
        return std::find(difference.kinds.begin(), difference.kinds.end(), kind) != difference.kinds.end();
      };
      const bool missing = difference.after == "missing";
      const bool lost = missing && (holds(DeviceKind::gpu) || holds(DeviceKind::nic));
      nic_lost = nic_lost || (missing && holds(DeviceKind::nic));
      const bool port = difference.element.starts_with("net ") && (missing || difference.after.ends_with("GB/s"));
      if (port && port_GBps(*own.host) < port_GBps(*usual->host)) continue;  // told below
      findings.push_back({lost ? Severity::severe : Severity::warning, own.where + difference.element, difference.after,
                          fmt::format("{}, as {}", difference.before, as), lost ? cost : "",
                          "the hosts side by side: topo diff, and what was changed on one of them"});
    }
    if (!(port_GBps(*own.host) < 0.999 * port_GBps(*usual->host))) continue;
    // What the host by itself made of it: too few NICs for its GPUs.
    std::erase_if(findings, [&](const Finding& finding) {
      return finding.element == own.where + "NICs" && finding.severity != Severity::note;
    });
    if (!nic_lost)
      findings.push_back(
          {Severity::severe, own.where + "NICs",
           fmt::format("{} ports, {} GB/s together", own.host->nics.size(), short_number(port_GBps(*own.host), 1)),
           fmt::format("{} ports, {} GB/s, as {}", usual->host->nics.size(), short_number(port_GBps(*usual->host), 1),
                       as),
           cost, "cables, transceivers and switch ports of this host (ibstat, mlxlink, ethtool)"});
  }
}

}  // namespace

const char* name(Severity severity) {
  return severity == Severity::severe ? "severe" : severity == Severity::warning ? "warning" : "note";
}

std::vector<Finding> diagnose(std::span<const Topology> topologies) {
  std::vector<Finding> out;
  const std::vector<Sibling> kinds = kinds_of(topologies);
  // A note that holds of several kinds is one.
  std::set<std::pair<std::string, std::string>> told;
  for (const Sibling& own : kinds) {
    std::vector<Finding> found;
    diagnose_host(*own.host, own.where, found);
    for (Finding& finding : found)
      if (finding.severity != Severity::note ||
          told.insert({finding.element.substr(own.where.size()), finding.seen}).second)
        out.push_back(std::move(finding));
  }
  compare(kinds, topologies, out);
  for (const Topology& own : topologies) diagnose_fabric(own, topologies.size() > 1 ? own.name + "." : "", out);
  std::stable_sort(out.begin(), out.end(), [](const Finding& a, const Finding& b) { return a.severity < b.severity; });
  return out;
}

std::string findings_text(std::span<const Finding> findings) {
  std::string out;
  for (const Finding& own : findings) {
    out += fmt::format("{}: {}: {}\n  expected: {}\n", name(own.severity), own.element, own.seen, own.expected);
    if (!own.cost.empty()) out += fmt::format("  cost: {}\n", own.cost);
    if (!own.check.empty()) out += fmt::format("  check: {}\n", own.check);
  }
  if (findings.empty()) out = "nothing found\n";
  return out;
}

std::string findings_json(std::span<const Finding> findings) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Finding& own : findings) {
    nlohmann::ordered_json value;
    value["severity"] = name(own.severity);
    value["element"] = own.element;
    value["seen"] = own.seen;
    value["expected"] = own.expected;
    if (!own.cost.empty()) value["cost"] = own.cost;
    if (!own.check.empty()) value["check"] = own.check;
    out.push_back(std::move(value));
  }
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
