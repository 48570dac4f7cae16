#include "topology/read/simgrid_xml.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <pugixml.hpp>
#include <unordered_map>

#include "topology/read/simgrid_units.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxBytes = 64U << 20;
constexpr int kMaxDepth = 64;
constexpr int kMaxElements = 2'000'000;
constexpr std::size_t kMaxHosts = 1'000'000;

using Policy = SimgridXml::Policy;

bool is_one_of(const pugi::xml_node& node, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* name) { return std::strcmp(node.name(), name) == 0; });
}

class Parser {
 public:
  explicit Parser(const std::string& where) : where_(where) {}

  SimgridXml run(std::string_view text) {
    if (text.size() > kMaxBytes) throw InvalidInput(where_, fmt::format("{} bytes", text.size()), "at most 64 MiB");
    pugi::xml_document document;
    const pugi::xml_parse_result parsed = document.load_buffer(text.data(), text.size());
    if (!parsed)
      throw InvalidInput(where_, fmt::format("not XML at byte {}", parsed.offset),
                         fmt::format("{}; cut off or damaged?", parsed.description()));
    const pugi::xml_node root = document.document_element();
    if (!is_one_of(root, {"platform"}))
      throw InvalidInput(where_ + ": root", fmt::format("<{:.40}>", root.name()),
                         "SimGrid's XML begins with <platform>");
    const std::string_view version = root.attribute("version").value();
    if (!version.starts_with("3") && !version.starts_with("4"))
      fail(root, "version", "3, 4 and 4.1 are read; bring it up to date with simgrid_update_xml");
    // Links first: routes and host_links name them, wherever they stand.
    collect_links(root, 0);
    read_children(root, nullptr);
    say_what_is_left_out();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const pugi::xml_node& node, const char* attribute, const std::string& hint) const {
    const pugi::xml_attribute found = node.attribute(attribute);
    throw InvalidInput(fmt::format("{}: {}", where_, place(node, attribute)),
                       found ? fmt::format("\"{:.80}\"", found.value()) : "missing", hint);
  }
  static std::string place(const pugi::xml_node& node, const char* attribute = "") {
    return fmt::format("<{:.40}>{}{}, byte {}", node.name(), *attribute != 0 ? " " : "", attribute,
                       node.offset_debug());
  }
  std::string line(const pugi::xml_node& node) const { return fmt::format("{}: {}", where_, place(node)); }

  std::string text(const pugi::xml_node& node, const char* attribute) const {
    const char* value = node.attribute(attribute).value();
    if (*value == 0) fail(node, attribute, "a name");
    return value;
  }
  double rate(const pugi::xml_node& node, const char* attribute) const {
    const std::optional<double> GBps = simgrid_GBps(node.attribute(attribute).value());
    if (!GBps || *GBps <= 0) fail(node, attribute, "a rate above 0 such as 125MBps or 10Gbps");
    return *GBps;
  }
  double latency(const pugi::xml_node& node, const char* attribute) const {
    if (node.attribute(attribute).empty()) return 0;
    const std::optional<double> us = simgrid_latency_us(node.attribute(attribute).value());
    if (!us) fail(node, attribute, "a time such as 50us or 0.1ms");
    return *us;
  }
  Policy policy(const pugi::xml_node& node, const char* attribute, Policy otherwise) const {
    const std::string_view value = node.attribute(attribute).value();
    if (value.empty()) return otherwise;
    if (value == "SPLITDUPLEX" || value == "FULLDUPLEX") return Policy::split;
    if (value == "SHARED") return Policy::shared;
    if (value == "FATPIPE") return Policy::fatpipe;
    fail(node, attribute,
         value == "WIFI" ? "a wireless network has no links that a topology could name"
                         : "SHARED, SPLITDUPLEX, FULLDUPLEX or FATPIPE");
  }

  void collect_links(const pugi::xml_node& parent, int depth) {
    if (depth > kMaxDepth)
      throw InvalidInput(where_, fmt::format("nested deeper than {}", kMaxDepth), "no platform has that many zones");
    for (const pugi::xml_node& node : parent.children()) {
      if (++elements_ > kMaxElements)
        throw InvalidInput(where_, fmt::format("more than {} elements", kMaxElements), "is this one platform?");
      if (is_one_of(node, {"link"})) {
        SimgridXml::Link link{text(node, "id"), 0, latency(node, "latency"),
                              policy(node, "sharing_policy", Policy::shared)};
        link.GBps = rate(node, "bandwidth");
        if (!link_number_.emplace(link.name, static_cast<int>(out_.links.size())).second)
          fail(node, "id", "another link has this name");
        timed_ += node.attribute("bandwidth_file") || node.attribute("latency_file") || node.attribute("state_file");
        out_.links.push_back(std::move(link));
      }
      collect_links(node, depth + 1);
    }
  }

  // Depth is that of collect_links. `hub`: of a zone whose hosts stand around one switch.
  void read_children(const pugi::xml_node& parent, SimgridXml::Hub* hub) {
    for (const pugi::xml_node& node : parent.children()) {
      if (is_one_of(node, {"zone", "AS"})) {
        read_zone(node);
      } else if (is_one_of(node, {"cluster"})) {
        read_cluster(node);
      } else if (is_one_of(node, {"host"})) {
        timed_ += node.attribute("state_file") ? 1 : 0;
        add_host_name();
        out_.hosts.push_back(text(node, "id"));
      } else if (is_one_of(node, {"router"})) {
        (hub != nullptr ? hub->routers : out_.routers).push_back(text(node, "id"));
      } else if (is_one_of(node, {"route"})) {
        read_route(node, "src", "dst");
      } else if (is_one_of(node, {"zoneRoute", "ASroute"})) {
        read_route(node, "gw_src", "gw_dst");
      } else if (is_one_of(node, {"bypassRoute", "bypassZoneRoute", "bypassASroute"})) {
        ++bypasses_;
      } else if (is_one_of(node, {"cabinet", "backbone", "host_link", "peer"})) {
        if (hub == nullptr)
          throw InvalidInput(
              line(node), "outside its zone",
              "cabinet, backbone and host_link stand in a zone of routing \"Cluster\", peer in \"Vivaldi\"");
        read_part(node, *hub);
      } else if (is_one_of(node, {"trace", "trace_connect"})) {
        ++timed_;
      } else if (is_one_of(node, {"include"})) {
        fail(node, "file", "SimGrid no longer reads <include>; put all in one file");
      } else if (node.type() == pugi::node_element &&
                 !is_one_of(node, {"link", "prop", "config", "random", "storage", "storage_type", "mount", "disk",
                                   "actor", "process"})) {
        throw InvalidInput(line(node), "unknown element", "an element of SimGrid's platform description");
      }
    }
  }

  void read_zone(const pugi::xml_node& node) {
    const std::string routing = text(node, "routing");
    if (routing == "Cluster" || routing == "Vivaldi") {
      SimgridXml::Hub hub{text(node, "id"), line(node), {}, {}, false, {}};
      const std::size_t first_host = out_.hosts.size();
      const auto inner = std::count_if(node.begin(), node.end(), [](const pugi::xml_node& own) {
        return is_one_of(own, {"zone", "AS", "cluster"});
      });
      if (routing == "Vivaldi" && inner > 1)
        out_.notes.push_back(
            fmt::format("zone \"{:.80}\": its {} zones are joined by coordinates (Vivaldi), not by links: "
                        "not kept",
                        hub.name, inner));
      read_children(node, &hub);
      if (routing == "Cluster" && out_.hosts.size() > first_host) take_hosts(node, hub, first_host);
      if (!hub.members.empty() || !hub.routers.empty()) out_.hubs.push_back(std::move(hub));
      return;
    }
    if (routing != "Full" && routing != "Floyd" && routing != "Dijkstra" && routing != "DijkstraCache" &&
        routing != "None" && routing != "none" && routing != "Empty" && routing != "Wifi" && routing != "WIFI")
      fail(node, "routing", "read are Full, Floyd, Dijkstra, DijkstraCache, Cluster, Vivaldi and None");
    if (routing == "Wifi" || routing == "WIFI")
      fail(node, "routing", "a wireless network has no links that a topology could name");
    read_children(node, nullptr);
  }

  // Hosts of a zone of routing "Cluster", each with its host_link.
  void take_hosts(const pugi::xml_node& zone, SimgridXml::Hub& hub, std::size_t first_host) {
    std::unordered_map<std::string, std::size_t> linked;
    for (std::size_t i = 0; i < hub.members.size(); ++i) linked.emplace(hub.members[i].host, i);
    for (std::size_t i = first_host; i < out_.hosts.size(); ++i)
      if (linked.count(out_.hosts[i]) == 0)
        throw InvalidInput(line(zone), '"' + out_.hosts[i] + '"', "a host of a Cluster zone has a <host_link>");
    out_.hosts.resize(first_host);
  }

  int link_named(const pugi::xml_node& node, const char* attribute) const {
    const std::string name = text(node, attribute);
    if (const auto found = link_number_.find(name); found != link_number_.end()) return found->second;
    // The two directions of a link have names too.
    for (const std::string_view end : {"_UP", "_DOWN"}) {
      if (!name.ends_with(end)) continue;
      const auto found = link_number_.find(name.substr(0, name.size() - end.size()));
      if (found != link_number_.end() && out_.links[static_cast<std::size_t>(found->second)].policy == Policy::split)
        return found->second;
    }
    fail(node, attribute, "there is no link of this name");
  }

  void read_part(const pugi::xml_node& node, SimgridXml::Hub& hub) {
    if (is_one_of(node, {"cabinet"})) {
      add_members(hub, names_of(node), rate(node, "bw"), latency(node, "lat"), Policy::split);
    } else if (is_one_of(node, {"backbone"})) {
      hub.has_backbone = true;
      hub.backbone = {text(node, "id"), rate(node, "bandwidth"), latency(node, "latency"), Policy::shared};
    } else if (is_one_of(node, {"peer"})) {
      ++peers_;
      add_host_name();
      hub.members.push_back(
          {text(node, "id"), rate(node, "bw_out"), rate(node, "bw_in"), latency(node, "lat"), Policy::split});
    } else {
      const SimgridXml::Link& up = out_.links[static_cast<std::size_t>(link_named(node, "up"))];
      const SimgridXml::Link& down = out_.links[static_cast<std::size_t>(link_named(node, "down"))];
      hub.members.push_back({text(node, "id"), up.GBps, down.GBps, std::max(up.latency_us, down.latency_us),
                             up.name == down.name ? up.policy : Policy::split});
    }
  }

  void add_host_name(std::size_t count = 1) {
    hosts_ += count;
    if (hosts_ > kMaxHosts)
      throw InvalidInput(where_, fmt::format("more than {} hosts", kMaxHosts), "no cluster has so many");
  }

  std::vector<std::string> names_of(const pugi::xml_node& node) {
    std::vector<std::string> names;
    if (!add_radical(node.attribute("radical").value(), node.attribute("prefix").value(),
                     node.attribute("suffix").value(), kMaxHosts - std::min(hosts_, kMaxHosts), names))
      fail(node, "radical", fmt::format("numbers such as 0-9,12, of at most {} hosts in all", kMaxHosts));
    add_host_name(names.size());
    return names;
  }

  static void add_members(SimgridXml::Hub& hub, std::vector<std::string> names, double GBps, double latency_us,
                          Policy policy) {
    for (std::string& name : names) hub.members.push_back({std::move(name), GBps, GBps, latency_us, policy});
  }

  void read_cluster(const pugi::xml_node& node) {
    const std::string name = text(node, "id"), topology = node.attribute("topology").value();
    std::vector<std::string> names = names_of(node);
    std::string router = node.attribute("router_id").value();
    if (router.empty())
      router = std::string(node.attribute("prefix").value()) + name + "_router" + node.attribute("suffix").value();
    const SimgridXml::Link link{"", rate(node, "bw"), latency(node, "lat"),
                                policy(node, "sharing_policy", Policy::split)};
    limited_ += *node.attribute("limiter_link").value() != 0 ? 1 : 0;
    loops_ += *node.attribute("loopback_bw").value() != 0 ? 1 : 0;
    if (topology == "TORUS" || topology == "FAT_TREE" || topology == "DRAGONFLY") {
      out_.shaped.push_back(
          {name, line(node), topology, node.attribute("topo_parameters").value(), router, std::move(names), link});
      return;
    }
    if (!topology.empty() && topology != "FLAT") fail(node, "topology", "FLAT, TORUS, FAT_TREE or DRAGONFLY");
    SimgridXml::Hub hub{name, line(node), {router}, {}, false, {}};
    add_members(hub, std::move(names), link.GBps, link.latency_us, link.policy);
    if (*node.attribute("bb_bw").value() != 0) {
      hub.has_backbone = true;
      hub.backbone = {name + "_backbone", rate(node, "bb_bw"), latency(node, "bb_lat"),
                      policy(node, "bb_sharing_policy", Policy::shared)};
    }
    out_.hubs.push_back(std::move(hub));
  }

  void read_route(const pugi::xml_node& node, const char* src, const char* dst) {
    SimgridXml::Route route{line(node), text(node, src), text(node, dst), {}, true};
    const std::string_view symmetrical = node.attribute("symmetrical").value();
    if (!symmetrical.empty() && symmetrical != "YES" && symmetrical != "yes" && symmetrical != "NO" &&
        symmetrical != "no")
      fail(node, "symmetrical", "YES or NO");
    route.both_ways = symmetrical != "NO" && symmetrical != "no";
    for (const pugi::xml_node& part : node.children())
      if (is_one_of(part, {"link_ctn", "link:ctn"})) route.links.push_back(link_named(part, "id"));
    if (route.src == route.dst) {
      ++loops_;
      return;
    }
    out_.routes.push_back(std::move(route));
  }

  void say_what_is_left_out() {
    const auto note = [&](int count, const char* what) {
      if (count > 0) out_.notes.push_back(fmt::format("{} {}", count, what));
    };
    note(timed_, "profiles of rates or of what is up (files, traces): the figures of the start are kept for good");
    note(bypasses_, "bypass routes: left out, the way is that of the zones");
    note(limited_, "clusters with limiter_link, what a host sends and receives together: not kept");
    note(loops_, "loopbacks, of hosts to themselves: not kept");
    note(peers_, "peers whose latencies follow from coordinates: only that of their own links is kept");
  }

  const std::string& where_;
  SimgridXml out_;
  std::unordered_map<std::string, int> link_number_;
  int elements_ = 0, timed_ = 0, bypasses_ = 0, limited_ = 0, loops_ = 0, peers_ = 0;
  std::size_t hosts_ = 0;
};

}  // namespace

SimgridXml parse_simgrid_xml(std::string_view text, const std::string& where) { return Parser(where).run(text); }

}  // namespace topomoe
