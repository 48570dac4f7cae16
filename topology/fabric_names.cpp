// Names of what a fabric is made of, from link ids and back.
#include <fmt/format.h>

#include <charconv>

#include "topology/fabric_map.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::string of_plane(const FabricMap& map, int plane, const std::string& device) {
  return map.planes > 1 ? fmt::format("plane{}.{}", plane, device) : device;
}

// What a leaf's uplinks end in: "spine", "pod2", "group2".
std::string upper_name(const FabricMap& map, int pod, int plane) {
  using Top = FabricMap::Top;
  return of_plane(map, plane,
                  map.top == Top::spine  ? "spine"
                  : map.top == Top::mesh ? fmt::format("group{}", pod)
                                         : fmt::format("pod{}", pod));
}

// One of the spines: "spine5", "pod2.spine5"; only the number is missing.
std::string spine_stem(const FabricMap& map, int pod, int plane) {
  const std::string upper = upper_name(map, pod, plane);
  return map.top == FabricMap::Top::spine ? upper : upper + ".spine";
}

// The number behind `stem`; -1 where the text is something else.
int number_after(const std::string& text, const std::string& stem) {
  if (text.size() <= stem.size() || text.compare(0, stem.size(), stem) != 0) return -1;
  int value = -1;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data() + stem.size(), last, value);
  return error == std::errc{} && end == last && text[stem.size()] != '-' ? value : -1;
}

class Finder {
 public:
  Finder(const FabricMap& map, const Fabric& fabric, const std::string& name, const std::string& field)
      : map_(map), fabric_(fabric), name_(name), field_(field) {}

  std::vector<NamedShare> run() {
    const std::size_t arrow = name_.find("->");
    if (map_.top == FabricMap::Top::none) fail("the leaves of this fabric have no uplinks");
    if (arrow == std::string::npos) {
      find_switch();
    } else {
      const std::string src = name_.substr(0, arrow), dst = name_.substr(arrow + 2);
      // A cable may be named from either end; a link's name leaves out what its ends share: "plane0.pod1->core".
      const std::string whole = src.substr(0, src.find('.') + 1) + dst;
      if (!find_cable(src, dst) && !find_cable(dst, src) && !find_cable(src, whole)) find_cable(whole, src);
    }
    if (found_.empty()) fail(what_there_is());
    return std::move(found_);
  }

 private:
  [[noreturn]] void fail(const std::string& hint) const { throw InvalidInput(field_, '"' + name_ + '"', hint); }
  void add(int link, double share) { found_.push_back({link, share}); }
  void add_leaf(int leaf, double share) {
    add(map_.leaf_up(leaf), share);
    add(map_.leaf_down(leaf), share);
  }
  void add_pod(int pod, int plane, double share) {
    add(map_.pod_up(pod, plane), share);
    add(map_.pod_down(pod, plane), share);
  }
  int leaves() const { return map_.units * map_.ranks; }

  bool find_cable(const std::string& src, const std::string& dst) {
    if (map_.top == FabricMap::Top::torus) return find_ring(src, dst);
    if (const int leaf = number_after(src, "leaf"); leaf >= 0 && leaf < leaves()) {
      const int pod = map_.pod_of_unit(leaf / map_.ranks), plane = leaf % map_.ranks % map_.planes;
      if (dst == upper_name(map_, pod, plane)) {
        add_leaf(leaf, 1);
      } else if (const int spine = number_after(dst, spine_stem(map_, pod, plane));
                 spine >= 0 && spine < fabric_.spine_count) {
        add_leaf(leaf, 1.0 / fabric_.spine_count);
      }
      return !found_.empty();
    }
    for (int plane = 0; plane < map_.planes; ++plane) {
      if (map_.top == FabricMap::Top::core) {
        const int pod = number_after(src, of_plane(map_, plane, "pod"));
        if (pod < 0 || pod >= map_.pods) continue;
        const std::string core = of_plane(map_, plane, "core");
        const int one = number_after(dst, core);
        if (dst == core) add_pod(pod, plane, 1);
        if (one >= 0 && one < fabric_.core_count) add_pod(pod, plane, 1.0 / fabric_.core_count);
      } else if (map_.top == FabricMap::Top::mesh) {
        const std::string stem = of_plane(map_, plane, "group");
        const int a = number_after(src, stem), b = number_after(dst, stem);
        if (a < 0 || b < 0 || a >= map_.pods || b >= map_.pods || a == b) continue;
        add(map_.between(a, b, plane), 1);
        add(map_.between(b, a, plane), 1);
      }
    }
    return !found_.empty();
  }

  bool find_ring(const std::string& src, const std::string& dst) {
    const auto host_of = [&](const std::string& text) {
      const std::size_t dot = text.find(".ring");
      const int host =
          dot == std::string::npos || dot + 5 != text.size() ? -1 : number_after(text.substr(0, dot), "host");
      return host < map_.hosts ? host : -1;
    };
    const int a = host_of(src), b = host_of(dst);
    if (a < 0 || b < 0) return false;
    for (int dim = 0; dim < static_cast<int>(map_.dims.size()); ++dim) {
      // In a ring of two both ways lead to the other: all four ids are the one cable.
      for (int direction = 0; direction < 2; ++direction) {
        if (map_.neighbour(a, dim, direction) != b) continue;
        add(map_.ring(a, dim, direction), 1);
        add(map_.ring(b, dim, 1 - direction), 1);
      }
    }
    return !found_.empty();
  }

  // A spine takes its share of every uplink to it, and of what its pod or group sends out.
  void find_switch() {
    if (map_.top == FabricMap::Top::torus) return;
    for (int plane = 0; plane < map_.planes; ++plane) {
      if (map_.top == FabricMap::Top::core) {
        const int core = number_after(name_, of_plane(map_, plane, "core"));
        if (core >= 0 && core < fabric_.core_count)
          for (int pod = 0; pod < map_.pods; ++pod) add_pod(pod, plane, 1.0 / fabric_.core_count);
      }
      for (int pod = 0; pod < map_.pods; ++pod) {
        const int spine = number_after(name_, spine_stem(map_, pod, plane));
        if (spine < 0 || spine >= fabric_.spine_count) continue;
        const double share = 1.0 / fabric_.spine_count;
        const int last = std::min(map_.first_unit(pod + 1), map_.units);
        for (int unit = map_.first_unit(pod); unit < last; ++unit)
          for (int rank = plane; rank < map_.ranks; rank += map_.planes) add_leaf(unit * map_.ranks + rank, share);
        if (map_.top == FabricMap::Top::core) add_pod(pod, plane, share);
        if (map_.top == FabricMap::Top::mesh)
          for (int other = 0; other < map_.pods; ++other) {
            if (other == pod) continue;
            add(map_.between(pod, other, plane), share);
            add(map_.between(other, pod, plane), share);
          }
      }
    }
  }

  std::string what_there_is() const {
    if (map_.top == FabricMap::Top::torus)
      return fmt::format("a cable of the torus joins neighbours: \"host0.ring->host{}.ring\"; hosts 0 to {}",
                         map_.neighbour(0, 0, 0), map_.hosts - 1);
    const int leaf = std::min(std::max(number_after(name_.substr(0, name_.find("->")), "leaf"), 0), leaves() - 1);
    const int pod = map_.pod_of_unit(leaf / map_.ranks), plane = leaf % map_.ranks % map_.planes;
    std::string out = fmt::format("leaf0 to leaf{}; \"leaf{}->{}\", or \"leaf{}->{}N\" with N 0 to {}; \"{}N\"",
                                  leaves() - 1, leaf, upper_name(map_, pod, plane), leaf, spine_stem(map_, pod, plane),
                                  fabric_.spine_count - 1, spine_stem(map_, pod, plane));
    if (map_.top == FabricMap::Top::core)
      out += fmt::format("; \"{}->{}\", pods 0 to {}, or \"{}N\" with N 0 to {}", upper_name(map_, pod, plane),
                         of_plane(map_, plane, "core"), map_.pods - 1, of_plane(map_, plane, "core"),
                         fabric_.core_count - 1);
    if (map_.top == FabricMap::Top::mesh && map_.pods > 1)
      out += fmt::format("; \"{}->{}\", groups 0 to {}", upper_name(map_, 0, plane), upper_name(map_, 1, plane),
                         map_.pods - 1);
    return out;
  }

  const FabricMap& map_;
  const Fabric& fabric_;
  const std::string& name_;
  const std::string& field_;
  std::vector<NamedShare> found_;
};

}  // namespace

std::vector<NamedShare> fabric_links_named(const FabricMap& map, const Fabric& fabric, const std::string& name,
                                           const std::string& field) {
  return Finder(map, fabric, name, field).run();
}

std::string FabricMap::leaf_name(int host, int rail) const {
  return top == Top::torus ? fmt::format("host{}.ring", host) : fmt::format("leaf{}", leaf_of(host, rail));
}

const Rate& FabricMap::rate(const Fabric& fabric, int id) const {
  if (top == Top::torus) return fabric.ring;
  return id < first_upper ? fabric.uplink : fabric.pod_uplink;
}

void FabricMap::describe(const Fabric& fabric, int id, LinkInfo& info) const {
  if (top == Top::torus) {
    const int per_host = 2 * static_cast<int>(dims.size()), host = (id - first) / per_host;
    info.kind = LinkKind::ring;
    info.klass = "ring";
    info.src = fmt::format("host{}.ring", host);
    info.dst = fmt::format("host{}.ring", neighbour(host, (id - first) % per_host / 2, id % 2 == first % 2 ? 0 : 1));
  } else if (id < first_upper) {
    const int leaf = (id - first) / 2, pod = pod_of_unit(leaf / ranks);
    const bool up = (id - first) % 2 == 0;
    info.kind = LinkKind::leaf_spine;
    info.klass = up ? "leaf_up" : "leaf_down";
    info.src = fmt::format("leaf{}", leaf);
    info.dst = upper_name(*this, pod, leaf % ranks % planes);
    if (!up) std::swap(info.src, info.dst);
  } else if (top == Top::core) {
    const int which = (id - first_upper) / 2, plane = which % planes;
    const bool up = (id - first_upper) % 2 == 0;
    info.kind = LinkKind::pod_core;
    info.klass = up ? "pod_up" : "pod_down";
    info.src = upper_name(*this, which / planes, plane);
    info.dst = of_plane(*this, plane, "core");
    if (!up) std::swap(info.src, info.dst);
  } else {
    const int which = id - first_upper, plane = which / (pods * (pods - 1));
    const int group = which / (pods - 1) % pods, other = which % (pods - 1);
    info.kind = LinkKind::group_group;
    info.klass = "group_group";
    info.src = upper_name(*this, group, plane);
    info.dst = upper_name(*this, other < group ? other : other + 1, plane);
  }
  const Rate& own = rate(fabric, id);
  const double scale = factor(id);
  info.GBps_per_direction = own.GBps_per_direction * scale;
  info.latency_us = own.latency_us;
  info.source = own.source;
  info.source_note = scale == 1 ? own.source_note : fmt::format("{}; times {}", own.source_note, scale);
}

}  // namespace topomoe
