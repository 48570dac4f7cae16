#include <fmt/format.h>

#include <pugixml.hpp>
#include <set>
#include <sstream>

#include "topomoe/error.hpp"
#include "topomoe/export.hpp"

namespace topomoe {
namespace {

constexpr int kMostHosts = 256;             // 65,000 routes, some 25 MB
constexpr double kNeverTheLimit = 100'000;  // GB/s, the most that a Topology may say

// Routes have GPUs at their ends: of a network alone each host gets one that nothing holds up, and whose links are not
// written.
Topology with_ends(Topology topology) {
  topology.hosts_per_domain = 1;
  for (HostTemplate& host : topology.templates) {
    if (host.nics.empty()) {
      if (topology.fabric && topology.fabric->kind != FabricKind::torus)
        throw InvalidInput("export simgrid", fmt::format("\"{}\" without a NIC", host.name),
                           "its rate is not known; SimGrid's links have rates");
      host.devices.push_back({DeviceKind::nic, "end_nic", "", -1, {}});
      host.nics.push_back({static_cast<int>(host.devices.size()) - 1, 0, "end_nic", {kNeverTheLimit, 0, {}, ""}, {}});
    }
    host.devices.push_back({DeviceKind::gpu, "end", "", -1, {}});
    host.gpus = {static_cast<int>(host.devices.size()) - 1};
    for (const Nic& nic : host.nics)
      host.links.push_back({host.gpus[0], nic.device, LinkKind::pcie, kNeverTheLimit, 0, Source::assumed, "", true, 0});
  }
  return topology;
}

class PlatformWriter {
 public:
  explicit PlatformWriter(const Topology& topology)
      : topology_(topology),
        network_alone_(topology.gpu_count() == 0),
        router_(checked(topology, network_alone_), RouteOptions{}) {}

  std::string run() {
    pugi::xml_document document;
    document.append_child(pugi::node_doctype).set_value("platform SYSTEM \"https://simgrid.org/simgrid.dtd\"");
    pugi::xml_node platform = document.append_child("platform");
    platform.append_attribute("version") = "4.1";
    pugi::xml_node zone = platform.append_child("zone");
    zone.append_attribute("id") = topology_.name.empty() ? "cluster" : topology_.name.c_str();
    zone.append_attribute("routing") = "Full";
    const int count = network_alone_ ? topology_.host_count() : topology_.gpu_count();
    for (int i = 0; i < count; ++i) add_host(zone, i);
    find_links(count);
    for (int id = 0; id < router_.link_count(); ++id)
      if (used_[static_cast<std::size_t>(id)]) add_link(zone, id);
    for (int src = 0; src < count; ++src)
      for (int dst = 0; dst < count; ++dst)
        if (src != dst) add_route(zone, src, dst);
    std::ostringstream text;
    document.save(text, " ");
    return text.str();
  }

 private:
  static Topology checked(const Topology& topology, bool network_alone) {
    const int count = network_alone ? topology.host_count() : topology.gpu_count();
    if (count > kMostHosts)
      throw InvalidInput("export simgrid", fmt::format("{} {}", count, network_alone ? "hosts" : "GPUs"),
                         fmt::format("at most {}: a route for each two; fewer hosts tell the same", kMostHosts));
    if (topology.fabric)
      for (const Rate* rate : {&topology.fabric->uplink, &topology.fabric->pod_uplink})
        if (rate->source == Source::unknown && topology.fabric->spine_count > 0 && rate->GBps_per_direction == 0 &&
            (rate == &topology.fabric->uplink || topology.fabric->core_count > 0 ||
             topology.fabric->kind == FabricKind::dragonfly_plus))
          throw InvalidInput("export simgrid",
                             rate == &topology.fabric->uplink ? "uplink unknown" : "pod_uplink unknown",
                             "SimGrid's links have rates; give the description that says them");
    return network_alone ? with_ends(topology) : topology;
  }

  std::string name(int i) const { return network_alone_ ? topology_.host_name(i) : topology_.gpu_name(i); }

  void add_host(pugi::xml_node zone, int i) {
    if (!names_.insert(name(i)).second)
      throw InvalidInput("export simgrid", '"' + name(i) + '"', "two hosts of this name; SimGrid's names are unique");
    pugi::xml_node host = zone.append_child("host");
    host.append_attribute("id") = name(i).c_str();
    const double TFLOPps = network_alone_ ? 0 : topology_.gpu_spec(i).bf16_TFLOPps;
    host.append_attribute("speed") = (TFLOPps > 0 ? fmt::format("{}Tf", TFLOPps) : "1Gf").c_str();
  }

  // Those that a route takes; of a network alone without what with_ends() made up.
  void find_links(int count) {
    used_.resize(static_cast<std::size_t>(router_.link_count()));
    link_names_.resize(used_.size());
    std::set<std::string> known;
    for (int src = 0; src < count; ++src)
      for (int dst = 0; dst < count; ++dst)
        for (const int id : src == dst ? std::vector<int>{} : router_.route(src, dst).links) {
          const auto i = static_cast<std::size_t>(id);
          if (!link_names_[i].empty()) continue;
          const LinkInfo link = router_.link(id);
          const bool made_up =
              network_alone_ && (link.klass == "pcie" || link.name.find("end_nic") != std::string::npos);
          std::string own = link.name;
          for (int n = 2; !known.insert(own).second; ++n) own = fmt::format("{}#{}", link.name, n);
          used_[i] = !made_up;
          link_names_[i] = std::move(own);
        }
  }

  void add_link(pugi::xml_node zone, int id) {
    const LinkInfo info = router_.link(id);
    pugi::xml_node link = zone.append_child("link");
    link.append_attribute("id") = link_names_[static_cast<std::size_t>(id)].c_str();
    link.append_attribute("bandwidth") = fmt::format("{}GBps", info.GBps_per_direction).c_str();
    link.append_attribute("latency") = fmt::format("{}us", info.latency_us).c_str();
    link.append_attribute("sharing_policy") = "SHARED";  // each of them is one direction
  }

  void add_route(pugi::xml_node zone, int src, int dst) {
    const Route way = router_.route(src, dst);
    if (way.path_class == PathClass::DIS) return;  // nothing joins them
    pugi::xml_node route = zone.append_child("route");
    route.append_attribute("src") = name(src).c_str();
    route.append_attribute("dst") = name(dst).c_str();
    route.append_attribute("symmetrical") = "NO";
    for (const int id : way.links)
      if (used_[static_cast<std::size_t>(id)])
        route.append_child("link_ctn").append_attribute("id") = link_names_[static_cast<std::size_t>(id)].c_str();
  }

  const Topology& topology_;
  bool network_alone_;
  Router router_;
  std::set<std::string> names_;
  std::vector<bool> used_;
  std::vector<std::string> link_names_;
};

}  // namespace

std::string write_simgrid(const Topology& topology) { return PlatformWriter(topology).run(); }

}  // namespace topomoe
