#include "topology/read/simgrid_clusters.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cstdint>
#include <filesystem>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::int64_t kMostHosts = 10'000'000;

class ClusterBuilder {
 public:
  ClusterBuilder(const SimgridXml::Shaped& in, const std::string& where, const std::string& note)
      : in_(in), where_(where), note_(note) {}

  Topology run() {
    topology_.name = std::filesystem::path(where_).stem().string();
    topology_.source = where_;
    topology_.host_names = in_.hosts;
    read_numbers();
    if (in_.topology == "TORUS")
      torus();
    else if (in_.topology == "FAT_TREE")
      fat_tree();
    else
      dragonfly();
    topology_.fabric = fabric_;
    if (fabric_.kind != FabricKind::torus) update_oversubscription(topology_);
    if (in_.link.policy != SimgridXml::Policy::split)
      warn(in_.link.policy == SimgridXml::Policy::shared
               ? "links are half-duplex, both directions share the rate: here each direction has it"
               : "links give each flow the rate, whatever the others do (FATPIPE): here flows share it");
    require_valid(topology_, where_);
    for (const std::string& line : warnings_from_sources(topology_)) warn(line);
    return std::move(topology_);
  }

 private:
  [[noreturn]] void fail(const std::string& hint) const {
    throw InvalidInput(fmt::format("{}, topo_parameters of {}", in_.line, in_.topology),
                       fmt::format("\"{:.80}\"", in_.parameters), hint);
  }
  void warn(const std::string& line) { add_warning(topology_, line); }
  Rate rate(double links) const { return {links * in_.link.GBps, in_.link.latency_us, Source::assumed, note_}; }

  // "2;4,4;1,2;1,2" as lists of whole numbers above 0.
  void read_numbers() {
    std::string_view rest = in_.parameters;
    numbers_.emplace_back();
    while (true) {
      const std::size_t end = rest.find_first_of(",;");
      std::string_view word = rest.substr(0, end);
      while (!word.empty() && (word.front() == ' ' || word.front() == '\t')) word.remove_prefix(1);
      while (!word.empty() && (word.back() == ' ' || word.back() == '\t')) word.remove_suffix(1);
      int value = 0;
      const auto [last, error] = std::from_chars(word.data(), word.data() + word.size(), value);
      if (error != std::errc{} || last != word.data() + word.size() || value < 1 || value > kMostHosts)
        fail("whole numbers above 0, with ',' and ';' between");
      numbers_.back().push_back(value);
      if (end == rest.npos) return;
      if (rest[end] == ';') numbers_.emplace_back();
      rest.remove_prefix(end + 1);
    }
  }

  void check_hosts(const std::vector<int>& factors) const {
    std::int64_t hosts = 1;
    for (const int factor : factors) {
      hosts *= factor;
      if (hosts > kMostHosts) fail("at most 10,000,000 hosts");
    }
    if (hosts != static_cast<std::int64_t>(in_.hosts.size()))
      fail(fmt::format("they make {} hosts, and radical names {}", hosts, in_.hosts.size()));
  }

  void add_hosts(int nics, double links_each) {
    HostTemplate host;
    host.name = nics == 0 ? "host" : fmt::format("host of {} GB/s", short_number(nics * links_each * in_.link.GBps, 6));
    host.devices = {{DeviceKind::numa, "numa0", "", -1, {}}};
    for (int i = 0; i < nics; ++i) {
      host.devices.push_back({DeviceKind::nic, fmt::format("nic{}", i), "", -1, {}});
      host.nics.push_back({i + 1, i, fmt::format("nic{}", i), rate(links_each), {}});
    }
    topology_.templates = {host};
    topology_.groups = {{0, static_cast<int>(in_.hosts.size())}};
  }

  void torus() {
    if (numbers_.size() != 1) fail("the hosts of each dimension: 3,2,2");
    check_hosts(numbers_[0]);
    fabric_.kind = FabricKind::torus;
    bool has_pairs = false;
    for (const int size : numbers_[0]) {
      if (size > 1) fabric_.dims.push_back(size);
      has_pairs = has_pairs || size == 2;
    }
    if (fabric_.dims.empty()) fail("a torus has a dimension of two hosts or more");
    fabric_.ring = rate(1);
    add_hosts(0, 0);
    warn("a host has no NIC of its own: it stands in its rings");
    if (has_pairs) warn("rings of two hosts: SimGrid has two links between them, here they have one");
  }

  void fat_tree() {
    const auto levels = static_cast<std::size_t>(numbers_[0][0]);
    if (numbers_.size() != 4 || numbers_[0].size() != 1 || numbers_[1].size() != levels ||
        numbers_[2].size() != levels || numbers_[3].size() != levels)
      fail("levels; down links of each; up links of each; parallel links of each: 2;4,4;1,2;1,2");
    if (levels > 3) fail("at most three levels of switches are modelled");
    const std::vector<int>&down = numbers_[1], &up = numbers_[2], &links = numbers_[3];
    check_hosts(down);
    if (up[0] > 64) fail("hosts below at most 64 leaves each");
    for (const auto* counts : {&up, &links})
      for (const int count : *counts)
        if (count > 10'000) fail("at most 10,000 up links and parallel links");
    fabric_.rails = fabric_.planes = up[0];
    fabric_.hosts_per_leaf = down[0];
    add_hosts(up[0], links[0]);
    if (levels > 1) {
      fabric_.spine_count = up[1];
      fabric_.uplink = rate(double{1} * up[1] * links[1]);
    }
    if (levels > 2) {
      fabric_.hosts_per_pod = down[0] * down[1];
      if (std::int64_t{up[1]} * up[2] > 1'000'000) fail("at most 1,000,000 cores");
      fabric_.core_count = up[1] * up[2];
      fabric_.pod_uplink = rate(double{1} * up[1] * up[2] * links[2]);
    }
    if (up[0] > 1) warn(fmt::format("{} leaves above each host: each is a plane, with a NIC of the host", up[0]));
    for (std::size_t i = 0; i < levels; ++i)
      if (links[i] > 1)
        warn(fmt::format("level {}: {} parallel links count as one of their sum; in SimGrid a flow takes one", i + 1,
                         links[i]));
  }

  void dragonfly() {
    if (numbers_.size() != 4 || numbers_[0].size() != 2 || numbers_[1].size() != 2 || numbers_[2].size() != 2 ||
        numbers_[3].size() != 1)
      fail("groups,links; chassis,links; routers,links; hosts of a router: 3,4;4,3;5,1;2");
    const int groups = numbers_[0][0], chassis = numbers_[1][0], routers = numbers_[2][0], hosts = numbers_[3][0];
    check_hosts({groups, chassis, routers, hosts});
    for (std::size_t i = 0; i < 3; ++i)
      if (numbers_[i][1] > 10'000) fail("at most 10,000 parallel links");
    add_hosts(1, 1);
    fabric_.hosts_per_leaf = hosts;
    const double inside = double{1} * (routers - 1) * numbers_[2][1] + double{1} * (chassis - 1) * numbers_[1][1];
    if (chassis * routers == 1 && groups == 1) return;  // one router
    fabric_.spine_count = 1;
    fabric_.uplink = rate(inside + (groups > 1 ? numbers_[0][1] : 0));
    if (groups > 1) {
      fabric_.kind = FabricKind::dragonfly_plus;
      fabric_.hosts_per_pod = hosts * chassis * routers;
      fabric_.pod_uplink = rate(numbers_[0][1]);
    }
    warn(
        fmt::format("{} routers of a group are joined directly, {} to {} links between two in a chassis and two of one "
                    "number: here they meet in a spine, and a router's links count as one of their sum: no traffic is "
                    "slower here than there",
                    chassis * routers, numbers_[2][1], numbers_[1][1]));
    if (groups > 1)
      warn("two groups are joined at one router of each: here all routers of a group reach that link alike");
  }

  const SimgridXml::Shaped& in_;
  const std::string& where_;
  const std::string& note_;
  std::vector<std::vector<int>> numbers_;
  Topology topology_;
  Fabric fabric_;
};

}  // namespace

Topology topology_of(const SimgridXml::Shaped& cluster, const std::string& where, const std::string& note) {
  return ClusterBuilder(cluster, where, note).run();
}

}  // namespace topomoe
