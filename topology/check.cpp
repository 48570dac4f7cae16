// What a topology must satisfy before anything is computed from it. Each refusal names the field, its value, a way out.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string_view>
#include <unordered_set>

#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kMaxGBps = 100'000;    // 50 times what any link of 2026 carries
constexpr double kMaxSumGBps = 1e9;     // of many links together: uplinks of a leaf or a pod
constexpr double kMaxLatency_us = 1e6;  // a second
constexpr std::int64_t kMaxGpus = 10'000'000;
constexpr std::size_t kMaxGpusPerHost = 512;
constexpr std::size_t kMaxDevicesPerHost = 8192;
constexpr std::size_t kMaxLinksPerHost = 65536;

class Checker {
 public:
  Checker(const Topology& topology, std::string where) : topology_(topology), where_(std::move(where)) {}

  void run() const {
    if (topology_.templates.empty()) fail("templates", "none", "describe at least one host");
    if (topology_.groups.empty()) fail("hosts", "none", "at least one group of hosts");
    for (std::size_t i = 0; i < topology_.templates.size(); ++i) check_template(topology_.templates[i], i);
    check_groups();
    check_names("host_names", topology_.host_names, topology_.host_count());
    check_domains();
    if (topology_.fabric) check_fabric(*topology_.fabric);
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& value, const std::string& hint) const {
    throw InvalidInput(where_ + ": " + field, value, hint);
  }
  void range(const std::string& field, std::int64_t value, std::int64_t low, std::int64_t high) const {
    if (value < low || value > high) fail(field, std::to_string(value), fmt::format("allowed: {} to {}", low, high));
  }
  void rate(const std::string& field, double GBps, double latency_us, double most = kMaxGBps) const {
    if (!(GBps > 0) || GBps > most)
      fail(field + ".GBps_per_direction", fmt::format("{}", GBps),
           fmt::format("more than 0 and at most {} (GB/s = 1e9 bytes/s, one direction)", most));
    if (!(latency_us >= 0) || latency_us > kMaxLatency_us)
      fail(field + ".latency_us", fmt::format("{}", latency_us), fmt::format("0 to {} microseconds", kMaxLatency_us));
  }
  void figure(const std::string& field, double value, double most) const {
    if (!(value >= 0) || value > most) fail(field, fmt::format("{}", value), fmt::format("0 (unknown) to {}", most));
  }

  // One for each or none at all; those that are there differ and are plain words.
  void check_names(const std::string& field, const std::vector<std::string>& names, int count) const {
    if (names.empty()) return;
    if (names.size() != static_cast<std::size_t>(count))
      fail(field, fmt::format("{} names", names.size()), fmt::format("one for each of {}, or leave it out", count));
    std::unordered_set<std::string_view> seen;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i].size() > 256 || std::any_of(names[i].begin(), names[i].end(), [](char c) {
            return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
          }))
        fail(fmt::format("{}[{}]", field, i), "not a name", "at most 256 characters, none of them a control character");
      if (!names[i].empty() && !seen.insert(names[i]).second)
        fail(fmt::format("{}[{}]", field, i), '"' + names[i] + '"', "named twice; names differ");
    }
  }

  // How many of something each part has: parts that are there, of at most `most`, `all` together.
  void check_sizes(const std::string& field, const std::vector<int>& sizes, int most, int all,
                   const std::string& what) const {
    if (sizes.empty()) return;
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      range(fmt::format("{}[{}]", field, i), sizes[i], 1, most);
      sum += sizes[i];
    }
    if (sum != all) fail(field, fmt::format("{} in all", sum), fmt::format("there are {} {}", all, what));
  }

  // What a tier sends up. A rate that nobody knows may stand where nothing can be computed from it.
  void uplink_rate(const std::string& field, const Rate& own) const {
    if (own.GBps_per_direction == 0 && own.source == Source::unknown) {
      if (topology_.gpu_count() > 0)
        fail(field, "unknown", "hosts have GPUs: give its GBps_per_direction, or the oversubscription and NICs");
      rate(field, 1, own.latency_us);
      return;
    }
    rate(field, own.GBps_per_direction, own.latency_us, kMaxSumGBps);
  }

  void check_groups() const {
    std::int64_t hosts = 0, gpus = 0;
    for (std::size_t i = 0; i < topology_.groups.size(); ++i) {
      const HostGroup& group = topology_.groups[i];
      const std::string field = fmt::format("hosts[{}]", i);
      range(field + ".template", group.template_index, 0, static_cast<std::int64_t>(topology_.templates.size()) - 1);
      range(field + ".count", group.count, 1, kMaxGpus);
      hosts += group.count;
      gpus +=
          std::int64_t{group.count} *
          static_cast<std::int64_t>(topology_.templates[static_cast<std::size_t>(group.template_index)].gpus.size());
      range("hosts", hosts, 1, kMaxGpus);
      if (gpus > kMaxGpus) fail("gpus in all", std::to_string(gpus), "at most 10,000,000; lower a count in \"hosts\"");
    }
  }

  void check_template(const HostTemplate& host, std::size_t index) const {
    const std::string field = "templates[" + std::to_string(index) + "]" + (host.name.empty() ? "" : " " + host.name);
    range(field + ".devices: number", static_cast<std::int64_t>(host.devices.size()), 1, kMaxDevicesPerHost);
    range(field + ".links: number", static_cast<std::int64_t>(host.links.size()), 0, kMaxLinksPerHost);
    range(field + ".gpus: number", static_cast<std::int64_t>(host.gpus.size()), 0, kMaxGpusPerHost);
    const GpuSpec& gpu = host.gpu;
    figure(field + ".gpu.memory_GiB", gpu.memory_GiB, 1e5);
    figure(field + ".gpu.hbm_GBps", gpu.hbm_GBps, 1e6);
    figure(field + ".gpu.bf16_TFLOPps", gpu.bf16_TFLOPps, 1e6);
    figure(field + ".gpu.fp8_TFLOPps", gpu.fp8_TFLOPps, 1e6);
    figure(field + ".gpu.fp32_TFLOPps", gpu.fp32_TFLOPps, 1e6);
    figure(field + ".gpu.sms", gpu.sms, 1e5);
    check_devices(host, field);
    for (std::size_t i = 0; i < host.links.size(); ++i) check_link(host, i, field);
    for (std::size_t i = 0; i < host.nics.size(); ++i) {
      const Nic& nic = host.nics[i];
      const std::string own = fmt::format("{}.nics[{}]", field, i);
      require_kind(host, nic.device, DeviceKind::nic, own + ".device");
      rate(own + ".port", nic.port.GBps_per_direction, nic.port.latency_us);
      range(own + ".rail", nic.rail, 0,
            topology_.fabric && topology_.fabric->rail_optimised ? std::max(topology_.fabric->rails, 1) - 1 : 65535);
    }
  }

  void check_devices(const HostTemplate& host, const std::string& field) const {
    std::set<std::string> names;
    std::size_t gpus = 0, numas = 0;
    for (const HostDevice& device : host.devices) {
      gpus += device.kind == DeviceKind::gpu ? 1U : 0U;
      numas += device.kind == DeviceKind::numa ? 1U : 0U;
    }
    for (std::size_t i = 0; i < host.devices.size(); ++i) {
      const HostDevice& device = host.devices[i];
      const std::string own = fmt::format("{}.devices[{}]", field, i);
      if (device.name.empty() || device.name.size() > 256)
        fail(own + ".name", '"' + device.name + '"', "1 to 256 characters");
      if (!names.insert(device.name).second)
        fail(own + ".name", device.name, "already taken in this host; make it unique");
      if (device.kind >= DeviceKind::host)
        fail(own + ".kind", topomoe::name(device.kind), "inside a host: gpu, nic, numa, pci_switch or nvswitch");
      range(own + ".numa", device.numa, -1, static_cast<std::int64_t>(numas) - 1);
    }
    std::set<int> listed;
    for (std::size_t i = 0; i < host.gpus.size(); ++i) {
      const std::string own = fmt::format("{}.gpus[{}]", field, i);
      require_kind(host, host.gpus[i], DeviceKind::gpu, own);
      if (!listed.insert(host.gpus[i]).second)
        fail(own, std::to_string(host.gpus[i]), "listed twice; name each GPU once");
    }
    if (!std::is_sorted(host.gpus.begin(), host.gpus.end()))
      fail(field + ".gpus", "not in the order of devices", "number GPUs as \"devices\" lists them");
    if (listed.size() != gpus)
      fail(field + ".gpus", fmt::format("{} listed", listed.size()),
           fmt::format("list all {} devices of kind gpu", gpus));
  }

  void require_kind(const HostTemplate& host, int device, DeviceKind kind, const std::string& field) const {
    range(field, device, 0, static_cast<std::int64_t>(host.devices.size()) - 1);
    const DeviceKind actual = host.devices[static_cast<std::size_t>(device)].kind;
    if (actual != kind)
      fail(field, fmt::format("a {}", topomoe::name(actual)),
           fmt::format("name a device of kind {}", topomoe::name(kind)));
  }

  void check_link(const HostTemplate& host, std::size_t i, const std::string& field) const {
    const Link& link = host.links[i];
    const std::string own = fmt::format("{}.links[{}]", field, i);
    range(own + ".src", link.src, 0, static_cast<std::int64_t>(host.devices.size()) - 1);
    range(own + ".dst", link.dst, 0, static_cast<std::int64_t>(host.devices.size()) - 1);
    if (link.src == link.dst)
      fail(own, host.devices[static_cast<std::size_t>(link.src)].name, "a link joins two devices");
    if (link.kind >= LinkKind::nic)
      fail(own + ".kind", topomoe::name(link.kind),
           "inside a host: nvlink, xgmi, c2c, pcie, cpu_interconnect or cpu_root");
    range(own + ".count", link.count, 0, 4096);
    rate(own, link.GBps_per_direction, link.latency_us);
  }

  void check_domains() const {
    range("hosts_per_domain", topology_.hosts_per_domain, 1, kMaxGpus);
    if (topology_.hosts_per_domain == 1) return;
    for (const HostTemplate& host : topology_.templates) {
      std::set<int> planes, up, down;
      for (const Link& link : host.links) {
        const auto is_plane = [&](int device) {
          return host.devices[static_cast<std::size_t>(device)].kind == DeviceKind::nvswitch;
        };
        if (is_plane(link.dst)) up.insert(link.src);
        if (is_plane(link.dst) && link.both_ways) down.insert(link.src);
        if (is_plane(link.src)) down.insert(link.dst);
        if (is_plane(link.src) && link.both_ways) up.insert(link.dst);
      }
      for (std::size_t i = 0; i < host.devices.size(); ++i)
        if (host.devices[i].kind == DeviceKind::nvswitch) planes.insert(static_cast<int>(i));
      bool joined = planes.size() == 1;
      for (const int gpu : host.gpus) joined = joined && up.count(gpu) == 1 && down.count(gpu) == 1;
      if (!joined)
        fail("hosts_per_domain", std::to_string(topology_.hosts_per_domain),
             "template \"" + host.name +
                 "\" needs one nvswitch device with a link to each GPU, or set hosts_per_domain to 1");
    }
  }

  void ratio(const std::string& field, double value) const {
    if (!(value >= 0.001) || value > 1000) fail(field, fmt::format("{}", value), "0.001 to 1000; 1 is non-blocking");
  }
  // What another kind uses must be left as it is: a figure that is never read is a mistake.
  void unused(const std::string& field, bool is_set, FabricKind kind) const {
    if (is_set) fail("fabric." + field, "given", fmt::format("leave it out: a {} has none", topomoe::name(kind)));
  }

  void check_torus(const Fabric& fabric) const {
    const Fabric plain;
    unused("rails", fabric.rails != plain.rails || fabric.rail_optimised, fabric.kind);
    unused("hosts_per_leaf", fabric.hosts_per_leaf != plain.hosts_per_leaf, fabric.kind);
    unused("spine_count", fabric.spine_count != 0, fabric.kind);
    unused("uplink", fabric.uplink != plain.uplink || fabric.oversubscription != 1, fabric.kind);
    unused("planes", fabric.planes != 1, fabric.kind);
    unused("leaf_hosts", !fabric.leaf_hosts.empty(), fabric.kind);
    unused("leaf_names", !fabric.leaf_names.empty() || !fabric.pod_names.empty(), fabric.kind);
    check_no_pods(fabric);
    range("fabric.dims: number", static_cast<std::int64_t>(fabric.dims.size()), 1, 8);
    std::int64_t hosts = 1;
    for (std::size_t i = 0; i < fabric.dims.size(); ++i) {
      range(fmt::format("fabric.dims[{}]", i), fabric.dims[i], 2, kMaxGpus);
      hosts *= fabric.dims[i];
      if (hosts > kMaxGpus) fail("fabric.dims", fmt::format("{} hosts and more", hosts), "at most 10,000,000 hosts");
    }
    if (hosts != topology_.host_count())
      fail("fabric.dims", fmt::format("{} places", hosts),
           fmt::format("the product is the number of hosts, {}", topology_.host_count()));
    rate("fabric.ring", fabric.ring.GBps_per_direction, fabric.ring.latency_us);
  }

  void check_no_pods(const Fabric& fabric) const {
    unused("hosts_per_pod", fabric.hosts_per_pod != 0, fabric.kind);
    unused("core_count", fabric.core_count != 0, fabric.kind);
    unused("pod_leaves", !fabric.pod_leaves.empty(), fabric.kind);
    unused("pod_uplink", fabric.pod_uplink != Rate{} || fabric.pod_oversubscription != 1, fabric.kind);
  }

  void check_fabric(const Fabric& fabric) const {
    if (fabric.kind == FabricKind::torus) {
      check_torus(fabric);
      check_exceptions(fabric);
      return;
    }
    unused("dims", !fabric.dims.empty(), fabric.kind);
    unused("ring", fabric.ring != Rate{}, fabric.kind);
    range("fabric.rails", fabric.rails, 1, 65536);
    range("fabric.planes", fabric.planes, 1, 64);
    if (fabric.rail_optimised && fabric.rails % fabric.planes != 0)
      fail("fabric.planes", std::to_string(fabric.planes), fmt::format("a divisor of the {} rails", fabric.rails));
    range("fabric.hosts_per_leaf", fabric.hosts_per_leaf, 1, kMaxGpus);
    range("fabric.spine_count", fabric.spine_count, 0, 1'000'000);
    ratio("fabric.oversubscription", fabric.oversubscription);
    if (fabric.spine_count > 0) uplink_rate("fabric.uplink", fabric.uplink);
    check_sizes("fabric.leaf_hosts", fabric.leaf_hosts, fabric.hosts_per_leaf, topology_.host_count(), "hosts");
    const bool groups = fabric.kind == FabricKind::dragonfly_plus;
    if (groups && fabric.hosts_per_pod == 0)
      fail("fabric.hosts_per_group", "0", "a dragonfly_plus has groups of hosts, a multiple of hosts_per_leaf each");
    if (fabric.hosts_per_pod == 0) {
      check_no_pods(fabric);
    } else {
      const std::string pod = groups ? "group" : "pod";
      range("fabric.hosts_per_" + pod, fabric.hosts_per_pod, 1, kMaxGpus);
      if (fabric.hosts_per_pod % fabric.hosts_per_leaf != 0)
        fail("fabric.hosts_per_" + pod, std::to_string(fabric.hosts_per_pod),
             fmt::format("a multiple of hosts_per_leaf ({})", fabric.hosts_per_leaf));
      if (fabric.spine_count == 0)
        fail("fabric.spine_count", "0", fmt::format("a {} has at least one spine above its leaves", pod));
      ratio("fabric." + pod + "_oversubscription", fabric.pod_oversubscription);
      if (groups)
        unused("core_count", fabric.core_count != 0, fabric.kind);
      else
        range("fabric.core_count", fabric.core_count, 0, 1'000'000);
      if (groups || fabric.core_count > 0)
        uplink_rate("fabric." + pod + "_uplink", fabric.pod_uplink);
      else if (fabric.pod_uplink != Rate{} || fabric.pod_oversubscription != 1)
        fail("fabric.pod_uplink", "given", "core_count 0: pods are not joined; leave it out, or give core_count");
      check_sizes("fabric." + pod + "_leaves", fabric.pod_leaves, fabric.hosts_per_pod / fabric.hosts_per_leaf,
                  unit_count(fabric, topology_.host_count()), "units of leaves");
    }
    check_names("fabric.leaf_names", fabric.leaf_names, topology_.leaf_count());
    check_names("fabric.pod_names", fabric.pod_names, pod_count(fabric, topology_.host_count()));
    check_exceptions(fabric);
  }

  void check_exceptions(const Fabric& fabric) const {
    range("fabric.exceptions: number", static_cast<std::int64_t>(fabric.exceptions.size()), 0, 10'000);
    for (std::size_t i = 0; i < fabric.exceptions.size(); ++i)
      if (!(fabric.exceptions[i].factor >= 0) || fabric.exceptions[i].factor > 1)
        fail(fmt::format("fabric.exceptions[{}].factor", i), fmt::format("{}", fabric.exceptions[i].factor),
             "0 (dead) to 1");
    if (fabric.exceptions.empty()) return;
    Topology named = topology_;  // the names are looked up by the map of the fabric
    named.name = where_;
    FabricMap(named, 0);
  }

  const Topology& topology_;
  std::string where_;
};

}  // namespace

void require_valid(const Topology& topology, const std::string& where) { Checker(topology, where).run(); }

}  // namespace topomoe
