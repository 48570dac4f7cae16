// What differs between two clusters: fabrics figure by figure, then each host from its own; and as text.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "topology/names.hpp"
#include "topology/show/diff.hpp"

namespace topomoe {
namespace {

std::string words(const Rate& rate) {
  if (rate.GBps_per_direction == 0) return "unknown";
  return short_number(rate.GBps_per_direction) + " GB/s" +
         (rate.latency_us > 0 ? fmt::format(", {} us", short_number(rate.latency_us)) : "");
}

template <class List>
std::string words(const List& list) {
  return list.empty() ? "not given" : fmt::format("{}", fmt::join(list, ", "));
}

std::vector<Difference> joined(std::vector<Difference> a, std::vector<Difference> b) {
  std::move(b.begin(), b.end(), std::back_inserter(a));
  return a;
}

bool all_named(const Topology& topology) {
  return !topology.host_names.empty() &&
         std::find(topology.host_names.begin(), topology.host_names.end(), "") == topology.host_names.end();
}

// Which host is which: by name where all have one, else by order. Those of one side alone are a difference.
std::vector<std::pair<int, int>> same_hosts(const Topology& before, const Topology& after,
                                            std::vector<Difference>& out) {
  std::vector<std::pair<int, int>> pairs;
  if (!all_named(before) || !all_named(after)) {
    for (int host = 0; host < std::min(before.host_count(), after.host_count()); ++host) pairs.emplace_back(host, host);
    return pairs;
  }
  std::map<std::string_view, int> left;
  for (std::size_t i = 0; i < before.host_names.size(); ++i) left[before.host_names[i]] = static_cast<int>(i);
  for (std::size_t i = 0; i < after.host_names.size(); ++i) {
    const auto found = left.find(after.host_names[i]);
    if (found == left.end()) {
      out.push_back({after.host_names[i], "missing", "there", {}});
      continue;
    }
    pairs.emplace_back(found->second, static_cast<int>(i));
    left.erase(found);
  }
  for (const auto& [host, place] : left) out.push_back({std::string(host), "there", "missing", {}});
  return pairs;
}

}  // namespace

std::vector<Difference> differences(const Fabric& before, const Fabric& after) {
  std::vector<Difference> out;
  const auto text = [&](const char* what, const std::string& a, const std::string& b) {
    if (a != b) out.push_back({fmt::format("fabric {}", what), a, b, {}});
  };
  const auto count = [&](const char* what, int a, int b) { text(what, std::to_string(a), std::to_string(b)); };
  text("kind", name(before.kind), name(after.kind));
  count("rails", before.rails, after.rails);
  text("leaves", before.rail_optimised ? "one for each rail" : "one for all rails",
       after.rail_optimised ? "one for each rail" : "one for all rails");
  count("planes", before.planes, after.planes);
  count("hosts of a leaf", before.hosts_per_leaf, after.hosts_per_leaf);
  count("spines", before.spine_count, after.spine_count);
  text("uplinks of a leaf", words(before.uplink), words(after.uplink));
  text("oversubscription", short_number(before.oversubscription), short_number(after.oversubscription));
  count("hosts of a pod", before.hosts_per_pod, after.hosts_per_pod);
  count("cores", before.core_count, after.core_count);
  text("uplinks of a pod", words(before.pod_uplink), words(after.pod_uplink));
  text("pod_oversubscription", short_number(before.pod_oversubscription), short_number(after.pod_oversubscription));
  text("dims", words(before.dims), words(after.dims));
  text("ring", words(before.ring), words(after.ring));
  text("sizes of leaves", words(before.leaf_hosts), words(after.leaf_hosts));
  text("sizes of pods", words(before.pod_leaves), words(after.pod_leaves));
  text("names of leaves", words(before.leaf_names), words(after.leaf_names));
  text("names of pods", words(before.pod_names), words(after.pod_names));
  std::map<std::string, std::pair<double, double>> exceptions;  // 1: none
  const auto factor = [&](const std::string& own) -> auto& {
    return exceptions.try_emplace(own, 1.0, 1.0).first->second;
  };
  for (const FabricException& own : before.exceptions) factor(own.name).first = own.factor;
  for (const FabricException& own : after.exceptions) factor(own.name).second = own.factor;
  for (const auto& [own, factors] : exceptions)
    if (factors.first != factors.second)
      out.push_back({own,
                     fmt::format("{} of its rate", short_number(factors.first, 4)),
                     fmt::format("{} of its rate", short_number(factors.second, 4)),
                     {}});
  return out;
}

std::vector<Difference> differences(const Topology& before, const Topology& after) {
  std::vector<Difference> out;
  const auto count = [&](const char* what, int a, int b) {
    if (a != b) out.push_back({what, std::to_string(a), std::to_string(b), {}});
  };
  count("hosts", before.host_count(), after.host_count());
  count("GPUs", before.gpu_count(), after.gpu_count());
  count("hosts of a scale-up domain", before.hosts_per_domain, after.hosts_per_domain);
  if (before.fabric.has_value() != after.fabric.has_value())
    out.push_back({"fabric", before.fabric ? "there" : "missing", after.fabric ? "there" : "missing", {}});
  else if (before.fabric)
    out = joined(std::move(out), differences(*before.fabric, *after.fabric));
  // Each pair of templates once.
  std::set<std::pair<const HostTemplate*, const HostTemplate*>> done;
  const std::vector<std::pair<int, int>> pairs = same_hosts(before, after, out);
  for (const auto& [was, is] : pairs) {
    const HostTemplate &a = before.host_template(was), &b = after.host_template(is);
    if (!done.emplace(&a, &b).second) continue;
    for (Difference& own : differences(a, b)) {
      if (pairs.size() > 1) own.element = after.host_name(is) + " " + own.element;
      out.push_back(std::move(own));
    }
  }
  return out;
}

std::string differences_text(const std::vector<Difference>& all) {
  std::string text;
  for (const Difference& own : all) text += fmt::format("{}: {} -> {}\n", own.element, own.before, own.after);
  return all.empty() ? "no difference\n" : text;
}

std::string differences_json(const std::vector<Difference>& all) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Difference& own : all)
    out.push_back({{"element", own.element}, {"before", own.before}, {"after", own.after}});
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
