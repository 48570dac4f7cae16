#include "topology/compose/compose_hosts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "topology/host_tree.hpp"
#include "topology/names.hpp"
#include "topology/show/diff.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// What NVML calls the NVLink domain of a GPU: one word for all hosts that share it, so no property of a kind of host.
constexpr const char* kDomainAttributes[] = {"fabric_cluster", "fabric_clique"};

std::string domain_of(const HostTemplate& host, const std::string& name) {
  std::set<std::string> words;
  for (const int gpu : host.gpus) {
    const std::vector<Attribute>& all = host.devices[static_cast<std::size_t>(gpu)].attributes;
    const std::string cluster(attribute(all, kDomainAttributes[0])), clique(attribute(all, kDomainAttributes[1]));
    words.insert(cluster.empty() && clique.empty() ? "" : cluster + "." + clique);
  }
  if (words.size() > 1)
    throw InvalidInput(name, fmt::format("GPUs of {} fabric cliques", words.size()),
                       "a host is in one NVLink domain: check nvidia-smi -q, section Fabric, and its fabric manager");
  return words.empty() ? "" : *words.begin();
}

void without_domain(HostTemplate& host) {
  for (HostDevice& device : host.devices)
    std::erase_if(device.attributes, [](const Attribute& own) {
      return std::find(std::begin(kDomainAttributes), std::end(kDomainAttributes), own.name) !=
             std::end(kDomainAttributes);
    });
}

std::vector<std::string> own_warnings(const Topology& topology) {
  const std::vector<std::string> told = warnings_from_sources(topology);
  std::vector<std::string> out;
  for (const std::string& line : topology.warnings)
    if (std::find(told.begin(), told.end(), line) == told.end()) out.push_back(line);
  return out;
}

void add_file(const DescribedHosts& file, std::vector<ComposedHost>& out) {
  const Topology& topology = file.topology;
  if (topology.fabric)
    throw InvalidInput(file.label, "has a network of its own", "describe hosts in it, and the network with --fabric");
  require_valid(topology, file.label);
  const std::vector<std::string> warnings = own_warnings(topology);
  int host = 0;
  for (const HostGroup& group : topology.groups)
    for (int i = 0; i < group.count; ++i, ++host) {
      ComposedHost own;
      own.label = file.file.empty() ? file.label : file.file;
      own.own = topology.templates[static_cast<std::size_t>(group.template_index)];
      own.warnings = warnings;
      const auto place = static_cast<std::size_t>(host);
      own.name = place < topology.host_names.size() ? topology.host_names[place] : "";
      if (own.name.empty())
        own.name = topology.host_count() == 1 ? file.label : fmt::format("{}/host{}", file.label, host);
      own.domain = domain_of(own.own, own.name);
      if (own.domain.empty() && topology.hosts_per_domain > 1)
        own.domain = fmt::format("{}, domain {}", file.label, host / topology.hosts_per_domain);
      without_domain(own.own);
      out.push_back(std::move(own));
    }
}

std::string in_short(const HostTemplate& before, const HostTemplate& after) {
  constexpr std::size_t kMost = 4;
  const std::vector<Difference> all = differences(before, after);
  std::string text;
  for (std::size_t i = 0; i < std::min(all.size(), kMost); ++i)
    text += fmt::format("{}{}: {} -> {}", i == 0 ? "" : "; ", all[i].element, all[i].before, all[i].after);
  if (all.size() > kMost) text += fmt::format("; and {} more (topo diff)", all.size() - kMost);
  return text.empty() ? "sources of figures" : text;
}

// "n03", "n03 and n07", "n03, n07 and 5 more"
std::string some(const std::vector<std::string>& names) {
  if (names.size() == 1) return names[0];
  if (names.size() == 2) return names[0] + " and " + names[1];
  return fmt::format("{}, {} and {} more", names[0], names[1], names.size() - 2);
}

// A line of some hosts' files is theirs; one of all hosts' is the cluster's.
void add_warnings(const std::vector<ComposedHost>& hosts, Topology& topology) {
  std::map<std::string, std::vector<std::string>> by_line;
  std::vector<const std::string*> order;
  for (const ComposedHost& host : hosts)
    for (const std::string& line : host.warnings) {
      const auto [found, fresh] = by_line.try_emplace(line);
      if (fresh) order.push_back(&found->first);
      found->second.push_back(host.name);
    }
  for (const std::string* line : order) {
    const std::vector<std::string>& names = by_line.at(*line);
    add_warning(topology, names.size() == hosts.size() ? *line : some(names) + ": " + *line);
  }
}

}  // namespace

std::vector<ComposedHost> hosts_of(std::span<const DescribedHosts> files, std::vector<std::string>& warnings) {
  std::vector<ComposedHost> all;
  for (const DescribedHosts& file : files) add_file(file, all);
  std::stable_sort(all.begin(), all.end(),
                   [](const ComposedHost& a, const ComposedHost& b) { return natural_less(a.name, b.name); });
  std::vector<ComposedHost> hosts;
  for (ComposedHost& own : all) {
    if (hosts.empty() || hosts.back().name != own.name) {
      hosts.push_back(std::move(own));
      continue;
    }
    const ComposedHost& other = hosts.back();
    if (!same_but_name(other.own, own.own) || other.domain != own.domain)
      throw InvalidInput(own.name, fmt::format("described by {} and by {}, differently", other.label, own.label),
                         in_short(other.own, own.own) + "; give the one that is right");
    warnings.push_back(
        fmt::format("{}: described by {} and by {}, alike: counted once", own.name, other.label, own.label));
  }
  return hosts;
}

void fold_hosts(const std::vector<ComposedHost>& in_order, Topology& topology) {
  std::vector<std::vector<std::string>> names;  // of the hosts of each template
  std::vector<bool> is_placeholder;             // of hosts that nobody described
  for (const ComposedHost& host : in_order) {
    std::size_t kind = 0;
    while (kind < topology.templates.size() && !same_but_name(topology.templates[kind], host.own)) ++kind;
    if (kind == topology.templates.size()) {
      topology.templates.push_back(host.own);
      names.emplace_back();
      is_placeholder.push_back(host.label.empty());
    }
    names[kind].push_back(host.name);
    const int index = static_cast<int>(kind);
    if (topology.groups.empty() || topology.groups.back().template_index != index)
      topology.groups.push_back({index, 0});
    ++topology.groups.back().count;
    topology.host_names.push_back(host.name);
  }
  std::set<std::string> called;
  for (std::size_t i = 0; i < topology.templates.size(); ++i) {
    // A name that is that of one host, or of another template, is not one of the kind.
    std::string& name = topology.templates[i].name;
    const bool is_of_host =
        name.empty() || name == "this-host" || std::find(names[i].begin(), names[i].end(), name) != names[i].end();
    if (is_of_host || !called.insert(name).second) {
      name = "like " + names[i][0];
      called.insert(name);
    }
  }
  // What most are that are described.
  std::size_t usual = 0;
  for (std::size_t i = 1; i < names.size(); ++i)
    if (is_placeholder[usual] || (!is_placeholder[i] && names[i].size() > names[usual].size())) usual = i;
  for (std::size_t i = 0; i < topology.templates.size(); ++i)
    if (i != usual && !is_placeholder[i])
      add_warning(topology, fmt::format("{}: not as {} ({} of {} hosts): {}", some(names[i]), names[usual][0],
                                        names[usual].size(), in_order.size(),
                                        in_short(topology.templates[usual], topology.templates[i])));
  add_warnings(in_order, topology);
}

}  // namespace topomoe
