// Hosts and a fabric -> ASTRA-sim's dimensions: what joins the GPUs of a node, then what joins the nodes.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <optional>

#include "topology/names.hpp"
#include "topology/read/astra_network.hpp"
#include "topomoe/error.hpp"
#include "topomoe/export.hpp"

namespace topomoe {
namespace {

using Kind = AstraDimension::Kind;

[[noreturn]] void fail(const std::string& field, const std::string& value, const std::string& hint) {
  throw InvalidInput("ASTRA-sim: " + field, value, hint);
}

bool equal(double a, double b) { return std::abs(a - b) <= 1e-9 * std::max(std::abs(a), std::abs(b)); }

// NVLinks (or XGMI) of one host's GPUs, by GPU number.
struct GpuLinks {
  explicit GpuLinks(const HostTemplate& host) : count(host.gpus.size()) {
    std::vector<int> number(host.devices.size(), -1);
    for (std::size_t i = 0; i < count; ++i) number[static_cast<std::size_t>(host.gpus[i])] = static_cast<int>(i);
    to_plane.assign(count, 0);
    to_gpu.assign(count * count, 0);
    const auto add = [&](int src, int dst, const Link& link) {
      const int a = number[static_cast<std::size_t>(src)], b = number[static_cast<std::size_t>(dst)];
      if (a < 0) return;
      latency_us = std::max(latency_us, link.latency_us);
      if (b >= 0)
        to_gpu[static_cast<std::size_t>(a) * count + static_cast<std::size_t>(b)] += link.GBps_per_direction;
      else if (host.devices[static_cast<std::size_t>(dst)].kind == DeviceKind::nvswitch)
        to_plane[static_cast<std::size_t>(a)] += link.GBps_per_direction;
    };
    for (const Link& link : host.links) {
      if (link.kind != LinkKind::nvlink && link.kind != LinkKind::xgmi) continue;
      add(link.src, link.dst, link);
      if (link.both_ways) add(link.dst, link.src, link);
    }
  }

  // What each wanted pair has, where all have as much and no other pair has anything; 0 otherwise.
  template <class Wanted>
  double only(Wanted wanted) const {
    double each = 0;
    for (std::size_t a = 0; a < count; ++a) {
      if (to_plane[a] > 0) return 0;
      for (std::size_t b = 0; b < count; ++b) {
        const double own = to_gpu[a * count + b];
        if (!wanted(a, b)) {
          if (own > 0) return 0;
          continue;
        }
        if (each == 0) each = own;
        if (own == 0 || !equal(own, each)) return 0;
      }
    }
    return each;
  }

  double plane() const {
    for (std::size_t a = 0; a < count; ++a)
      if (!equal(to_plane[a], to_plane[0])) return 0;
    for (const double own : to_gpu)
      if (own > 0) return 0;
    return to_plane[0];
  }

  std::size_t count;
  std::vector<double> to_plane, to_gpu;
  double latency_us = 0;
};

class AstraWriter {
 public:
  explicit AstraWriter(const Topology& topology) : topology_(topology) {}

  std::string run() {
    check_hosts();
    add_inner();
    if (topology_.node_count() > 1) add_outer();
    if (dimensions_.empty()) fail("GPUs", "1", "a dimension has at least two NPUs");
    return text();
  }

 private:
  void check_hosts() const {
    const HostTemplate& first = topology_.host_template(0);
    for (const HostGroup& group : topology_.groups) {
      HostTemplate own = topology_.templates[static_cast<std::size_t>(group.template_index)];
      own.name = first.name;
      if (own != first)
        fail("hosts", fmt::format("\"{}\" and others that differ", first.name),
             "all hosts alike: a dimension has one count and one bandwidth; take fewer hosts");
    }
    if (first.gpus.empty()) fail("hosts", "without GPUs", "NPUs are GPUs: give the hosts what is in them");
    if (!topology_.uniform()) fail("hosts_per_domain", "a domain that is not full", "all domains of one size");
    if (topology_.fabric && !topology_.fabric->exceptions.empty())
      fail("fabric.exceptions", fmt::format("\"{}\"", topology_.fabric->exceptions[0].name),
           "all links of a dimension have one bandwidth; leave it out");
  }

  void add_inner() {
    const HostTemplate& host = topology_.host_template(0);
    const int gpus = topology_.gpus_per_node();
    if (gpus == 1) return;
    const GpuLinks links(host);
    const std::size_t n = links.count;
    const auto add = [&](Kind kind, double GBps) {
      dimensions_.push_back({kind, gpus, GBps, links.latency_us * 1000});
      return GBps > 0;
    };
    if (const double GBps = links.plane(); GBps > 0) {
      add(Kind::switched, GBps);
    } else if (const double pair = links.only([](std::size_t a, std::size_t b) { return a != b; }); pair > 0) {
      add(Kind::fully_connected, pair);
    } else if (const double next =
                   links.only([&](std::size_t a, std::size_t b) { return (a + 1) % n == b || (b + 1) % n == a; });
               next > 0) {
      add(Kind::ring, next);
    } else {
      fail(host.name,
           fmt::format("NVLink {}, not one link of one rate from each GPU to a switch, to each other or to "
                       "the next",
                       name(host.nvlink)),
           "a dimension is a Switch, a FullyConnected or a Ring; paths over PCIe are none of them");
    }
  }

  void add_outer() {
    if (!topology_.fabric) fail("fabric", "none", "nothing joins the hosts");
    const Fabric& fabric = *topology_.fabric;
    const HostTemplate& host = topology_.host_template(0);
    const int gpus = static_cast<int>(host.gpus.size());
    if (fabric.kind == FabricKind::torus) {
      if (topology_.hosts_per_domain > 1) fail("fabric", "a torus of scale-up domains", "a torus of hosts");
      for (const int dim : fabric.dims)
        dimensions_.push_back({Kind::ring, dim, fabric.ring.GBps_per_direction / gpus, fabric.ring.latency_us * 1000});
      return;
    }
    double GBps = 0;
    for (const Nic& nic : host.nics) GBps += nic.port.GBps_per_direction;
    if (!(GBps > 0)) fail(host.name, "no NIC", "a dimension between hosts is the bandwidth of their NICs");
    const Router router(topology_);
    const int there = topology_.first_gpu_of_host((topology_.node_count() - 1) * topology_.hosts_per_domain);
    const Route route = router.route(0, there);
    if (route.path_class == PathClass::DIS) fail("fabric", "not all hosts are joined", "one network above all hosts");
    double us = 0;
    for (const int id : route.links)
      if (const LinkInfo link = router.link(id); link.kind >= LinkKind::nic) us += link.latency_us;
    dimensions_.push_back({Kind::switched, topology_.node_count(), GBps / gpus, us * 1000 / 2});
    say_what_is_lost(fabric);
  }

  void say_what_is_lost(const Fabric& fabric) {
    const int nics = static_cast<int>(topology_.host_template(0).nics.size());
    const int gpus = static_cast<int>(topology_.host_template(0).gpus.size());
    if (nics % gpus != 0) lost("{} NICs of a host for {} GPUs: each NPU has an equal share", nics, gpus);
    // Exactly a Switch: a leaf for each GPU of a host, and all hosts on it.
    if (fabric.rail_optimised && nics == gpus && fabric.spine_count == 0) return;
    if (fabric.rail_optimised)
      lost("rail-optimised: which of {} leaves a NIC is on", topology_.leaf_count());
    else if (topology_.leaf_count() > 1)
      lost("which of {} leaves a host is on", topology_.leaf_count());
    if (fabric.planes > 1) lost("{} planes that nothing joins", fabric.planes);
    if (fabric.spine_count > 0 && topology_.leaf_count() > 1 && fabric.oversubscription > 1)
      lost("oversubscription of the leaves, {}:1", short_number(fabric.oversubscription));
    if (fabric.hosts_per_pod > 0)
      lost("{} of {} hosts, {}:1 between them", fabric.kind == FabricKind::dragonfly_plus ? "groups" : "pods",
           fabric.hosts_per_pod, short_number(fabric.pod_oversubscription));
  }
  template <class... Args>
  void lost(fmt::format_string<Args...> form, Args&&... args) {
    lost_.push_back(fmt::format(form, std::forward<Args>(args)...));
  }

  std::string text() const {
    std::string title = topology_.name;
    for (char& c : title)
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    std::string out = fmt::format("# {}: {} NPUs, dimensions innermost first.\n", title, topology_.gpu_count());
    out +=
        "# bandwidth: of one link and direction, 10^9 bytes/s (ASTRA-sim multiplies by 2^30); latency: of one link.\n";
    for (const std::string& line : lost_) out += "# Not said: " + line + ".\n";
    std::vector<std::string> kinds, npus, GBps, ns;
    for (const AstraDimension& own : dimensions_) {
      kinds.push_back(name(own.kind));
      npus.push_back(std::to_string(own.npus));
      GBps.push_back(fmt::format("{:.10g}", own.GBps));
      ns.push_back(fmt::format("{:.10g}", own.latency_ns));
    }
    return out + fmt::format("topology: [ {} ]\nnpus_count: [ {} ]\nbandwidth: [ {} ]  # GB/s\nlatency: [ {} ]  # ns\n",
                             fmt::join(kinds, ", "), fmt::join(npus, ", "), fmt::join(GBps, ", "), fmt::join(ns, ", "));
  }

  const Topology& topology_;
  std::vector<AstraDimension> dimensions_;
  std::vector<std::string> lost_;
};

}  // namespace

std::string write_astra(const Topology& topology) { return AstraWriter(topology).run(); }

}  // namespace topomoe
