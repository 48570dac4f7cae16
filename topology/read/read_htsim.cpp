// htsim's fat tree (.topo): hosts, two or three tiers of switches, by radix, speed and oversubscription.
//
// Model: as htsim builds it, uplinks carry what comes from below over Oversubscribed, and the number of switches
// follows from Radix_Down; Radix_Up and Podsize must agree. A switch's latency is halved onto the links at its sides.
// Bundles (parallel cables) and queues play no part. Hosts: nothing is known but their one port.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>

#include "topology/fabric.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/simulated_host.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxBytes = 1U << 20;
constexpr const char* kNote = "htsim topology file";
constexpr int kMost = 1'000'000;

class HtsimReader {
 public:
  explicit HtsimReader(const std::string& where) : where_(where) {}

  Topology run(std::string_view text) {
    if (text.size() > kMaxBytes) throw InvalidInput(where_, fmt::format("{} bytes", text.size()), "at most 1 MiB");
    for (int line = 1; !text.empty(); ++line) {
      const std::size_t end = text.find('\n');
      read_line(text.substr(0, end), line);
      text.remove_prefix(end == text.npos ? text.size() : end + 1);
    }
    return build();
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& found, const std::string& hint) const {
    throw InvalidInput(where_ + ": " + field, found, hint);
  }

  // "Radix_Down 8", in any case; below "Tier 1" of that tier.
  void read_line(std::string_view line, int number) {
    constexpr std::string_view kSpace = " \t\r\f\v";
    const auto word = [&] {
      const std::size_t begin = std::min(line.find_first_not_of(kSpace), line.size());
      line.remove_prefix(begin);
      const std::size_t end = std::min(line.find_first_of(kSpace), line.size());
      std::string out(line.substr(0, end));
      line.remove_prefix(end);
      std::transform(out.begin(), out.end(), out.begin(),
                     [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
      return out;
    };
    const std::string key = word();
    if (key.empty() || key.front() == '#') return;
    const std::string at = fmt::format("line {}: {:.40}", number, key), text = word();
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value > 100 * kMost)
      fail(at, fmt::format("\"{:.40}\"", text), "a whole number");
    if (key == "tier") {
      if (value > 2) fail(at, text, "tiers are 0 (next to hosts) to 2");
      tier_ = value;
      return;
    }
    constexpr std::string_view kHeader[] = {"nodes", "tiers", "podsize"};
    constexpr std::string_view kOfTier[] = {"downlink_speed_gbps", "radix_down",     "radix_up", "downlink_latency_ns",
                                            "switch_latency_ns",   "oversubscribed", "bundle"};
    const bool of_tier = std::find(std::begin(kOfTier), std::end(kOfTier), key) != std::end(kOfTier);
    if (!of_tier && std::find(std::begin(kHeader), std::end(kHeader), key) == std::end(kHeader)) {
      if (!key.starts_with("queue"))
        add_warning(topology_, fmt::format("key \"{:.40}\" is not known here and was left out", key));
      return;
    }
    if (of_tier && tier_ < 0) fail(at, text, "belongs below a line \"Tier 0\"");
    if (!values_.emplace(of_tier ? fmt::format("tier {} {}", tier_, key) : key, value).second)
      fail(at, text, "given twice");
  }

  int get(const std::string& key, std::optional<int> otherwise = std::nullopt) const {
    const auto found = values_.find(key);
    if (found == values_.end()) {
      if (otherwise) return *otherwise;
      fail(key, "missing", "Nodes, Tiers, Podsize; of each tier Downlink_speed_Gbps, Radix_Down, Radix_Up");
    }
    if (!otherwise && found->second < 1) fail(key, std::to_string(found->second), "at least 1");
    return found->second;
  }
  int of_tier(int tier, const char* key, std::optional<int> otherwise = std::nullopt) const {
    return get(fmt::format("tier {} {}", tier, key), otherwise);
  }
  // What is shared out evenly.
  int over(const char* what, std::int64_t all, std::int64_t each) const {
    if (each < 1 || all % each != 0 || all / each < 1 || all / each > kMost)
      fail(what, fmt::format("{} over {}", all, each),
           "htsim shares these out evenly; the numbers do not fit together");
    return static_cast<int>(all / each);
  }
  Rate rate(double GBps, int tier) const {
    const double switches_ns =
        of_tier(tier, "switch_latency_ns", 0) + (tier > 0 ? of_tier(tier - 1, "switch_latency_ns", 0) : 0);
    return {GBps, (of_tier(tier, "downlink_latency_ns", 0) + switches_ns / 2) / 1000, Source::assumed, kNote};
  }

  Topology build() {
    const int nodes = get("nodes"), tiers = get("tiers"), pod = get("podsize");
    if (tiers != 2 && tiers != 3) fail("tiers", std::to_string(tiers), "2 or 3");
    if (nodes > 10 * kMost) fail("nodes", std::to_string(nodes), "at most 10,000,000");
    if (tiers == 2 && pod != nodes) fail("podsize", std::to_string(pod), "with two tiers all nodes are one pod");
    const std::int64_t pods = over("nodes in pods", nodes, pod);
    const int hosts = of_tier(0, "radix_down");
    over("podsize in leaves", pod, hosts);
    std::int64_t below_Gbps = std::int64_t{nodes} * of_tier(0, "downlink_speed_gbps");  // of all together
    std::int64_t switches = nodes / hosts, parts = pods;
    Fabric fabric;
    fabric.hosts_per_leaf = hosts;
    for (int tier = 1; tier < tiers; ++tier) {
      const int ratio = of_tier(tier - 1, "oversubscribed", 1);
      const int speed = of_tier(tier, "downlink_speed_gbps");
      const int uplinks = over("uplinks", below_Gbps, std::int64_t{speed} * std::max(1, ratio));
      below_Gbps = std::int64_t{uplinks} * speed;
      const int each = over("uplinks of a switch", uplinks, switches);
      if (const int said = of_tier(tier - 1, "radix_up"); said != each)
        fail(fmt::format("tier {} radix_up", tier - 1), std::to_string(said),
             fmt::format("{} by speeds and Oversubscribed", each));
      const int upper = over("switches of a tier", uplinks, of_tier(tier, "radix_down"));
      const double GBps = static_cast<double>(below_Gbps) / 8;
      if (tier == 1) {
        fabric.spine_count = over("spines in pods", upper, parts);
        fabric.uplink = rate(GBps / static_cast<double>(switches), 1);
      } else {
        fabric.hosts_per_pod = pod;
        fabric.core_count = upper;
        fabric.pod_uplink = rate(GBps / static_cast<double>(pods), 2);
      }
      switches = upper;
      parts = 1;
    }
    SimulatedHost host;
    host.name = "host";
    host.ports = {{0, 0, rate(of_tier(0, "downlink_speed_gbps") / 8.0, 0)}};
    topology_.name = stem_of_file(where_);
    topology_.source = where_;
    topology_.templates = {build_simulated_host(host)};
    topology_.groups = {{0, nodes}};
    topology_.fabric = std::move(fabric);
    update_oversubscription(topology_);
    require_valid(topology_, where_);
    add_warning(topology_, "hosts: GPUs are not in such a file (ASTRA-sim takes each host as one NPU)");
    for (const std::string& line : warnings_from_sources(topology_)) add_warning(topology_, line);
    return std::move(topology_);
  }

  const std::string& where_;
  Topology topology_;
  std::map<std::string, int> values_;  // "nodes", "tier 1 radix_down"
  int tier_ = -1;
};

}  // namespace

// The first line that is no comment.
bool is_htsim(std::string_view text) {
  while (text.starts_with('#')) {
    text.remove_prefix(std::min(text.find('\n'), text.size()));
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  }
  const std::string_view first = text.substr(0, 6);
  return first.size() == 6 && (first.substr(1) == "odes " || first.substr(1) == "odes\t") &&
         (first[0] == 'N' || first[0] == 'n') && text.substr(0, 4096).find("ier") != text.npos;
}

Topology read_htsim(std::string_view text, const std::string& where) { return HtsimReader(where).run(text); }

}  // namespace topomoe
