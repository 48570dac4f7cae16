#include "topomoe/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "topology/diff.hpp"
#include "topology/doctor_host.hpp"
#include "topology/host_tree.hpp"

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

// Against the kind that most hosts are of; without one, against the first of those with most devices.
void compare(const std::vector<Sibling>& kinds, std::vector<Finding>& findings) {
  if (kinds.size() < 2) return;
  const auto usual = std::max_element(kinds.begin(), kinds.end(), [](const Sibling& a, const Sibling& b) {
    return std::pair(a.count, a.host->devices.size()) < std::pair(b.count, b.host->devices.size());
  });
  for (const Sibling& own : kinds) {
    if (&own == &*usual) continue;
    for (const Difference& difference : differences(*usual->host, *own.host)) {
      const bool lost = difference.after == "missing" &&
                        std::any_of(difference.kinds.begin(), difference.kinds.end(),
                                    [](DeviceKind kind) { return kind == DeviceKind::gpu || kind == DeviceKind::nic; });
      findings.push_back(
          {lost ? Severity::severe : Severity::warning, own.where + difference.element, difference.after,
           fmt::format("{}, as {}", difference.before,
                       usual->where.empty() ? usual->host->name : usual->where.substr(0, usual->where.size() - 1)),
           lost ? "the slowest host sets the pace of all" : "",
           "the hosts side by side: topo diff, and what was changed on one of them"});
    }
  }
}

}  // namespace

const char* name(Severity severity) {
  return severity == Severity::severe ? "severe" : severity == Severity::warning ? "warning" : "note";
}

std::vector<Finding> diagnose(std::span<const Topology> topologies) {
  std::vector<Finding> out;
  const std::vector<Sibling> kinds = kinds_of(topologies);
  for (const Sibling& own : kinds) diagnose_host(*own.host, own.where, out);
  compare(kinds, out);
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
