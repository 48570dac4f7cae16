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

// A host that only the network knows, or that was removed. (A host whose GPUs are all lost still has its links.)
bool unknown_inside(const HostTemplate& host) { return host.gpus.empty() && host.links.empty(); }

// Hosts with nothing known inside are no siblings of those with GPUs; in a network alone, ports are all there is.
std::vector<Sibling> kinds_of(std::span<const Topology> topologies, std::vector<Finding>& findings) {
  std::vector<Sibling> out;
  HostsByKind kinds;
  int all = 0;
  bool any_gpu = false;
  for (const Topology& topology : topologies) {
    all += topology.host_count();
    any_gpu = any_gpu || topology.gpu_count() > 0;
  }
  for (const Topology& topology : topologies) {
    int host = 0, unknown = 0;
    std::string first_unknown;
    for (const HostGroup& group : topology.groups) {
      const HostTemplate& own = topology.templates[static_cast<std::size_t>(group.template_index)];
      if (group.count == 0) continue;
      std::string where = topologies.size() > 1 ? topology.name : "";
      if (topology.host_count() > 1) where += (where.empty() ? "" : ".") + topology.host_name(host);
      if (any_gpu && unknown_inside(own)) {
        if (unknown == 0) first_unknown = where;
        unknown += group.count, host += group.count;
        continue;
      }
      const auto next = static_cast<int>(out.size());
      const int known = kinds.first_like(
          own, next, [&](int kind) -> const HostTemplate& { return *out[static_cast<std::size_t>(kind)].host; });
      if (known == next)
        out.push_back({&own, all > 1 ? where + "." : "", group.count});
      else
        out[static_cast<std::size_t>(known)].count += group.count;
      host += group.count;
    }
    if (unknown > 0)
      findings.push_back({Severity::note,
                          unknown == 1 ? first_unknown : fmt::format("{} and {} more", first_unknown, unknown - 1),
                          unknown == 1 ? "nothing is known of what is in it: not compared"
                                       : "nothing is known of what is in them: not compared",
                          "a description of each host that has GPUs", "",
                          "meant so (storage, login, removed)? Else describe them (topo compose)"});
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

std::string words_of(const HostTemplate& host) {
  return fmt::format("{} x {}, {} NICs", host.gpus.size(), host.gpu.name.empty() ? "GPU" : host.gpu.name,
                     host.nics.size());
}

// Not a host of these that lost something: other GPUs, CPUs of another model, or another number of them among devices
// that these do not have.
bool another_kind(const HostTemplate& usual, const HostTemplate& own, const std::vector<Difference>& found) {
  if (usual.gpu.name != own.gpu.name && !own.gpus.empty()) return true;
  if (std::any_of(found.begin(), found.end(), [](const Difference& one) { return one.element.ends_with(" modelid"); }))
    return true;
  return usual.gpus.size() != own.gpus.size() && std::any_of(found.begin(), found.end(), [](const Difference& one) {
           return one.before == "missing" && !one.kinds.empty();
         });
}

// Whether a severe finding tells it already: of the element itself, of an attribute of it ("gpu3 (...) link_width"), or
// of its links ("pcie gpu3 (...) <-> ...").
bool told_already(const Difference& difference, const std::set<std::string>& severe) {
  return std::any_of(severe.begin(), severe.end(), [&](const std::string& element) {
    const std::string& text = difference.element;
    const std::size_t at = text.find(element);
    if (at == std::string::npos || (at > 0 && text[at - 1] != ' ')) return false;
    const std::size_t end = at + element.size();
    if (end < text.size() && text[end] != ' ') return false;
    // A slot is that of the lower end; NVLinks are of both.
    return at == 0 || text.starts_with("net ") || text.starts_with("nvlink ") || text.starts_with("xgmi ") ||
           text.find(' ') + 1 == at;
  });
}

// Attributes out of which a rate was read that differs too.
bool restates(const Difference& difference, const std::vector<Difference>& all) {
  const std::string& text = difference.element;
  for (const char* attribute : {" link_width", " link_speed", " speed"}) {
    if (!text.ends_with(attribute)) continue;
    const std::string element = text.substr(0, text.size() - std::string_view(attribute).size());
    return std::any_of(all.begin(), all.end(), [&](const Difference& other) {
      return (other.element == element || other.element.starts_with("pcie " + element + " ")) &&
             other.after.find("GB/s") != std::string::npos;
    });
  }
  return false;
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
    const std::vector<Difference> all = differences(*usual->host, *own.host);
    if (another_kind(*usual->host, *own.host, all)) {
      findings.push_back({Severity::warning, own.where.substr(0, own.where.size() - 1),
                          "another kind of host: " + words_of(*own.host),
                          fmt::format("{}, as {}", words_of(*usual->host), as), "",
                          "topo diff shows it; hosts of one kind are compared with each other in files of their own"});
      continue;
    }
    const std::string cost = cost_of_kind(topologies, own, *usual);
    std::set<std::string> severe;
    for (const Finding& finding : findings)
      if (finding.severity == Severity::severe && finding.element.starts_with(own.where))
        severe.insert(finding.element.substr(own.where.size()));
    bool nic_lost = false, ports_told = false;
    for (const Difference& difference : all) {
      const auto holds = [&](DeviceKind kind) {
        return std::find(difference.kinds.begin(), difference.kinds.end(), kind) != difference.kinds.end();
      };
      const bool missing = difference.after == "missing";
      const bool lost = missing && (holds(DeviceKind::gpu) || holds(DeviceKind::nic));
      if (!lost && (told_already(difference, severe) || restates(difference, all))) {
        ports_told = ports_told || difference.element.starts_with("net ");
        continue;
      }
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
    if (!nic_lost && !(ports_told && own.host->nics.size() == usual->host->nics.size()))
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
  const std::vector<Sibling> kinds = kinds_of(topologies, out);
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
