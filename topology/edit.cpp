// Edits to a cluster: what is removed or degraded by name, and figures that are set for all.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "topology/edit_host.hpp"
#include "topology/edit_names.hpp"
#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/names.hpp"
#include "topology/set_figure.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// "host17" with stem "host": 17.
std::optional<int> number_behind(const std::string& text, const std::string& stem) {
  if (text.size() <= stem.size() || text.compare(0, stem.size(), stem) != 0) return std::nullopt;
  int value = 0;
  const char* first = text.data() + stem.size();
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, value);
  if (error != std::errc{} || end != last || *first < '0' || *first > '9') return std::nullopt;
  return value;
}

class Editor {
 public:
  Editor(Topology& topology, const Edit& edit)
      : topology_(topology),
        edit_(edit),
        removes_(edit.kind == Edit::Kind::remove),
        target_(with_numbers(topology, edit.target, removes_ ? "remove" : "degrade")) {}

  void run() {
    const std::string target = from_host();
    const std::size_t dot = target.find('.'), arrow = target.find("->");
    const std::string head = target.substr(0, std::min(dot, arrow));
    if (const auto host = number_behind(head, "host"); host && !is_ring()) {
      if (*host >= topology_.host_count()) fail(fmt::format("host0 to host{}", topology_.host_count() - 1));
      if (arrow != std::string::npos)
        change_link(*host, target.substr(head.size() + 1, arrow - head.size() - 1), target.substr(arrow + 2));
      else if (dot != std::string::npos)
        change_device(*host, target.substr(dot + 1));
      else
        change_host(*host);
      return;
    }
    if (!topology_.fabric)
      fail("\"host3\", \"host3.gpu1\", \"host3.nic0\" or \"host3.gpu1->nvswitch\"; this cluster has no fabric");
    if (const auto leaf = number_behind(target, "leaf")) {
      if (topology_.fabric->kind == FabricKind::torus) fail("a torus has no leaves; \"host0.ring->host1.ring\"");
      if (*leaf >= topology_.leaf_count()) fail(fmt::format("leaf0 to leaf{}", topology_.leaf_count() - 1));
      change_leaf(*leaf);
    } else if (const auto rail = number_behind(target, "rail")) {
      const Fabric& fabric = *topology_.fabric;
      if (!fabric.rail_optimised) fail("only a rail-optimised fabric has rails");
      if (*rail >= fabric.rails) fail(fmt::format("rail0 to rail{}", fabric.rails - 1));
      for (int at = *rail, leaves = topology_.leaf_count(); at < leaves; at += fabric.rails) change_leaf(at);
    } else {
      add_exception(target);
    }
  }

 private:
  [[noreturn]] void fail(const std::string& hint) const {
    throw InvalidInput(removes_ ? "remove" : "degrade", '"' + edit_.target + '"', hint);
  }
  // A link of a host may be named from its other end: "leaf3->host0.nic3" is "host0.nic3->leaf3".
  std::string from_host() const {
    const std::size_t arrow = target_.find("->");
    if (arrow == std::string::npos || target_.compare(0, 4, "host") == 0) return target_;
    const std::string far = target_.substr(arrow + 2);
    return far.compare(0, 4, "host") == 0 ? far + "->" + target_.substr(0, arrow) : target_;
  }
  bool is_ring() const { return target_.find(".ring->host") != std::string::npos; }
  std::string label(const std::string& thing) const {
    return removes_ ? "without " + thing : fmt::format("{} x{}", thing, short_number(edit_.value, 4));
  }

  int device_named(const HostTemplate& host, int number, const std::string& name) const {
    std::vector<std::string> known;
    for (std::size_t i = 0; i < host.devices.size(); ++i) {
      if (host.devices[i].name == name) return static_cast<int>(i);
      known.push_back(host.devices[i].name);
    }
    // Those of the same sort first: who types gpu9 wants to see the GPUs.
    const auto alike = [&](const std::string& own) { return !name.empty() && own.front() == name.front(); };
    std::stable_partition(known.begin(), known.end(), alike);
    const bool more = known.size() > 12;
    if (more) known.resize(12);
    fail(fmt::format("host{} has {}{}", number, fmt::join(known, ", "), more ? ", ..." : ""));
  }

  void change_host(int host) {
    change_hosts(topology_, host, host + 1, removes_ ? "removed" : fmt::format("x{}", short_number(edit_.value, 4)),
                 [&](HostTemplate& own) {
                   if (removes_)
                     own = removed_host(own);
                   else
                     scale_host(own, edit_.value);
                 });
    if (topology_.gpu_count() == 0) fail("no GPU would be left");
  }

  void change_device(int host, const std::string& name) {
    const HostTemplate& before = topology_.host_template(host);
    const int device = device_named(before, host, name);
    const DeviceKind kind = before.devices[static_cast<std::size_t>(device)].kind;
    if (removes_ && kind != DeviceKind::gpu && kind != DeviceKind::nic)
      fail(fmt::format("a {} holds others up: remove GPUs or NICs, or degrade it", topomoe::name(kind)));
    change_hosts(topology_, host, host + 1, label(name), [&](HostTemplate& own) {
      if (removes_)
        remove_device(own, device);
      else
        scale_device(own, device, edit_.value);
    });
    if (topology_.gpu_count() == 0) fail("no GPU would be left");
  }

  void change_link(int host, const std::string& src, const std::string& dst) {
    const HostTemplate& before = topology_.host_template(host);
    // "nvswitch", "host3.nvswitch" and, of a plane that several hosts share, "domain0.nvswitch".
    std::string far = dst;
    for (const std::string& prefix :
         {fmt::format("host{}.", host), fmt::format("domain{}.", host / topology_.hosts_per_domain)})
      if (dst.compare(0, prefix.size(), prefix) == 0) far = dst.substr(prefix.size());
    if (src == "ring") return change_link(host, far, src);
    const int a = device_named(before, host, src);
    const bool is_nic = before.devices[static_cast<std::size_t>(a)].kind == DeviceKind::nic;
    if (is_nic && (far == "ring" || number_behind(far, "leaf"))) return change_device(host, src);  // its port
    const int b = device_named(before, host, far);
    HostTemplate trial = before;
    if (!scale_link(trial, a, b, 1)) {
      std::vector<std::string> known;
      for (const Link& link : before.links)
        if (link.src == a || link.dst == a)
          known.push_back(before.devices[static_cast<std::size_t>(link.src == a ? link.dst : link.src)].name);
      fail(fmt::format("host{}.{} is joined to {}", host, src, fmt::join(known, ", ")));
    }
    change_hosts(topology_, host, host + 1, label(src + "->" + far), [&](HostTemplate& own) {
      if (removes_)
        remove_link(own, a, b);
      else
        scale_link(own, a, b, edit_.value);
    });
  }

  // The leaf's ports are those of its hosts; its uplinks are the fabric's.
  void change_leaf(int leaf) {
    const FabricMap map(topology_, 0);
    const int unit = leaf / map.ranks, rank = leaf % map.ranks;
    const int first = map.first_host(unit), end = std::min(map.first_host(unit + 1), map.hosts);
    const std::string thing = map.rail_optimised ? fmt::format("rail{}", rank)
                              : map.planes > 1   ? fmt::format("plane{}", rank)
                                                 : "leaf";
    change_hosts(topology_, first, end, label(thing), [&](HostTemplate& own) {
      const auto on_leaf = [&](const Nic& nic) { return map.rank_of(nic.rail) == rank; };
      if (std::none_of(own.nics.begin(), own.nics.end(), on_leaf)) return;
      own.shape.reset();
      if (removes_) {
        std::erase_if(own.nics, on_leaf);
        return;
      }
      for (Nic& nic : own.nics) {
        if (!on_leaf(nic)) continue;
        nic.port.GBps_per_direction *= edit_.value;
        nic.port.source_note += fmt::format("; times {}", short_number(edit_.value, 4));
      }
    });
    if (map.top == FabricMap::Top::none) return;
    LinkInfo uplink;
    map.describe(*topology_.fabric, map.leaf_up(leaf), uplink);
    add_exception(uplink.src + "->" + uplink.dst);
  }

  void add_exception(const std::string& name) {
    Fabric& fabric = *topology_.fabric;
    const double factor = removes_ ? 0 : edit_.value;
    fabric_links_named(FabricMap(topology_, 0), fabric, name, removes_ ? "remove" : "degrade");
    const auto known = std::find_if(fabric.exceptions.begin(), fabric.exceptions.end(),
                                    [&](const FabricException& own) { return own.name == name; });
    if (known != fabric.exceptions.end())
      known->factor *= factor;
    else
      fabric.exceptions.push_back({name, factor});
  }

  Topology& topology_;
  const Edit& edit_;
  const bool removes_;
  const std::string target_;  // by number
};

double number(const std::string& field, const std::string& whole, const std::string& text) {
  double value = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  if (text.empty() || error != std::errc{} || end != last || !std::isfinite(value))
    throw InvalidInput(field, '"' + whole + '"',
                       "a name, =, and a number: " + std::string(field == "set" ? "nic.GBps=25" : "leaf3=0.5"));
  return value;
}

Edit parse_pair(const std::string& field, Edit::Kind kind, const std::string& text) {
  const std::size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) number(field, text, "");
  return {kind, text.substr(0, equals), number(field, text, text.substr(equals + 1))};
}

void check_factor(const Edit& edit) {
  if (!(edit.value > 0) || edit.value > 1)
    throw InvalidInput("degrade", fmt::format("{}={}", edit.target, edit.value),
                       "a factor above 0 and at most 1; what is dead is removed");
}

}  // namespace

Edit parse_remove(const std::string& text) {
  if (!text.empty() && text.back() == '-')
    throw InvalidInput("remove", '"' + text + '"', "put the name in quotes: the shell took its \">\" for itself");
  if (text.empty() || text.find('=') != std::string::npos)
    throw InvalidInput("remove", '"' + text + '"', "a name alone: host17.gpu3, host17, leaf3, leaf3->spine");
  return {Edit::Kind::remove, text, 0};
}

Edit parse_degrade(const std::string& text) {
  const Edit edit = parse_pair("degrade", Edit::Kind::degrade, text);
  check_factor(edit);
  return edit;
}

Edit parse_set(const std::string& text) { return parse_pair("set", Edit::Kind::set, text); }

Topology edit(const Topology& given, const std::vector<Edit>& edits) {
  Topology topology = given;
  for (const Edit& one : edits) {
    if (one.kind == Edit::Kind::set) {
      set_figure(topology, one.target, one.value);
    } else {
      if (one.kind == Edit::Kind::degrade) check_factor(one);
      Editor(topology, one).run();
    }
    const char* done = one.kind == Edit::Kind::set ? "set" : one.kind == Edit::Kind::remove ? "removed" : "degraded";
    add_warning(topology, one.kind == Edit::Kind::remove
                              ? fmt::format("edited: {} {}", one.target, done)
                              : fmt::format("edited: {} {} to {}", one.target, done, short_number(one.value, 4)));
    update_oversubscription(topology);
  }
  require_valid(topology, topology.name);
  return topology;
}

}  // namespace topomoe
