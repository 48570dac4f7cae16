#include "topology/show/draw_fabric.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>

#include "topology/counted.hpp"
#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topology/router_state.hpp"
#include "topology/show/host_matrix.hpp"

namespace topomoe {
namespace {

using Top = FabricMap::Top;
constexpr double kBox = 92, kBoxHeight = 34, kGap = 14, kRow = 78;

// From leaves to hosts; cables of several kinds of hosts cross there.
double cable_room(const Topology& topology) { return topology.templates.size() > 1 ? 96 : 52; }
constexpr std::size_t kMostKinds = 24;  // of leaves: two thousand points wide

bool has_pods(const Topology& topology) { return topology.fabric->hosts_per_pod > 0; }

class FabricDrawing {
 public:
  FabricDrawing(Canvas& canvas, const Router& router, const DrawnLoad& load, double top, double host_top,
                const std::vector<DrawnHost>& hosts)
      : canvas_(canvas),
        topology_(router.topology()),
        fabric_(*topology_.fabric),
        map_(router.state().fabric),
        load_(load),
        top_(top),
        host_top_(host_top),
        hosts_(hosts) {}

  void draw_torus() {
    const double y = host_top_ - cable_room(topology_) - kBoxHeight;
    double lo = std::numeric_limits<double>::infinity(), hi = 0;
    for (const DrawnHost& host : hosts_) {
      const double x = (host.left + host.right) / 2;
      LeafKind router;
      router.x = x;
      draw_cables(host, router, y, -1);
      canvas_.labelled_box(Canvas::Layer::box, x - kBox / 2, y, kBox, kBoxHeight, "net", "router", "of each host");
      const double share = load_.ring[static_cast<std::size_t>(host.template_index)];
      const auto ways = 2 * fabric_.dims.size();
      line_up(x, y, top_ + kBoxHeight, fabric_.ring, share, fmt::format("{} x ", ways),
              "to the next and the previous host of each ring");
      lo = std::min(lo, x), hi = std::max(hi, x);
    }
    if (hosts_.empty()) return;
    wide_box(lo, hi, top_, fabric_words(topology_));
  }

  void draw_tree(FoldedFabric folded) {
    std::vector<LeafKind>& kinds = folded.leaves;
    const std::size_t all = kinds.size();
    if (all > kMostKinds) {
      // What is not as its kind says is what one wants to see, then what there is most of.
      std::stable_sort(kinds.begin(), kinds.end(), [](const LeafKind& a, const LeafKind& b) {
        return std::pair(a.factor == 1, -a.leaves) < std::pair(b.factor == 1, -b.leaves);
      });
      kinds.resize(kMostKinds);
    }
    set_places(kinds, folded.usual_pods);
    const double leaf_y = host_top_ - cable_room(topology_) - kBoxHeight;
    double lo = std::numeric_limits<double>::infinity(), hi = 0;
    for (const LeafKind& kind : kinds) {
      for (const DrawnHost& host : hosts_)
        for (const auto& [own, count] : kind.hosts)
          if (own == host.template_index) draw_cables(host, kind, leaf_y, kind.rank);
      canvas_.labelled_box(Canvas::Layer::box, kind.x - kBox / 2, leaf_y, kBox, kBoxHeight, "net", leaf_words(kind),
                           leaf_count(kind));
      lo = std::min(lo, kind.x), hi = std::max(hi, kind.x);
    }
    if (all > kinds.size())
      canvas_.text(hi + kBox / 2 + 10, leaf_y + 20, fmt::format("and {} kinds of leaves more", all - kinds.size()), 11,
                   "start", "soft");
    if (map_.top == Top::none || kinds.empty()) return;
    const bool pods = has_pods(topology_);
    const double next_y = leaf_y - kRow, bottom = next_y + kBoxHeight;
    for (const LeafKind& kind : kinds) {
      Rate rate = fabric_.uplink;
      rate.GBps_per_direction *= kind.factor;
      line_up(kind.x, leaf_y, bottom, rate, kind.share, "", "all uplinks of a leaf");
    }
    if (!pods) {
      wide_box(lo, hi, next_y, (map_.planes > 1 ? "" : "spine: ") + fabric_words(topology_));
      return;
    }
    for (std::size_t i = 0; i < folded.pods.size(); ++i) draw_pod(folded.pods[i], static_cast<int>(i), kinds, next_y);
    if (map_.top == Top::core) wide_box(lo, hi, top_, "core: " + fabric_words(topology_));
    if (map_.top == Top::mesh) wide_box(lo, hi, top_, "every other group, directly: " + fabric_words(topology_));
    if (map_.top == Top::pods)
      canvas_.text(std::max(lo - kBox / 2, 20.0), next_y - 10, fabric_words(topology_), 11, "start", "soft");
  }

 private:
  // Above the NICs they serve; pods side by side.
  void set_places(std::vector<LeafKind>& kinds, int usual_pods) const {
    const auto order = [&](const LeafKind& kind) {
      return std::tuple(kind.pod_kind != usual_pods, kind.pod_kind, kind.x);
    };
    for (LeafKind& kind : kinds) {
      double sum = 0, count = 0;
      for (const DrawnHost& host : hosts_)
        for (const auto& [own, hosts] : kind.hosts) {
          if (own != host.template_index) continue;
          const std::vector<double> xs = cable_places(host, kind.rank);
          for (const double x : xs) sum += x, ++count;
          if (xs.empty() && map_.ranks == 1) sum += (host.left + host.right) / 2, ++count;
        }
      kind.x = count > 0 ? sum / count : hosts_.empty() ? 80 : hosts_.back().right;
    }
    std::stable_sort(kinds.begin(), kinds.end(),
                     [&](const LeafKind& a, const LeafKind& b) { return order(a) < order(b); });
    double next = 20 + kBox / 2;
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      if (i > 0 && kinds[i].pod_kind != kinds[i - 1].pod_kind) next += 2 * kGap;
      kinds[i].x = std::max(kinds[i].x, next);
      next = kinds[i].x + kBox + kGap;
    }
    // Several over one place: around it, not all to its right.
    if (hosts_.size() != 1 || kinds.size() < 2 || map_.ranks > 1) return;
    const double middle = (kinds.front().x + kinds.back().x) / 2;
    const double wanted = (hosts_.front().left + hosts_.back().right) / 2;
    const double shift = std::max(wanted - middle, 20 + kBox / 2 - kinds.front().x);
    for (LeafKind& kind : kinds) kind.x += shift;
  }

  // Of this leaf's cables at a host; on_rank < 0: of all.
  std::vector<HostDrawing::Port> ports_of(const DrawnHost& host, int on_rank) const {
    std::vector<HostDrawing::Port> out;
    for (const auto& [rail, ports] : host.ports)
      if (on_rank < 0 || map_.rank_of(rail) == on_rank)
        for (const HostDrawing::Port& port : ports) {
          const auto same = std::find_if(out.begin(), out.end(), [&](const auto& own) { return own.x == port.x; });
          if (same == out.end()) {
            out.push_back(port);
          } else {
            same->nics += port.nics;
            same->share = std::max(same->share, port.share);
          }
        }
    return out;
  }
  std::vector<double> cable_places(const DrawnHost& host, int rank) const {
    std::vector<double> out;
    for (const HostDrawing::Port& port : ports_of(host, rank)) out.push_back(port.x);
    return out;
  }

  // One NIC or two: a cable each. More: they meet above the host, and go on as one line.
  void draw_cables(const DrawnHost& host, const LeafKind& kind, double leaf_y, int rank) {
    const double leaf = leaf_y + kBoxHeight;
    if (host.ports.empty()) {
      canvas_.line((host.left + host.right) / 2, host_top_, kind.x, leaf, {0, -1, "NICs not described", true});
      return;
    }
    if (kind.rank < 0) {  // every rail: drawn for the usual pods, here only where it goes
      canvas_.line(host.right - 12, host_top_, kind.x, leaf, {0, -1, "the NICs of every rail", true});
      return;
    }
    const std::vector<HostDrawing::Port> ports = ports_of(host, rank);
    const bool first_time = cabled_.insert({host.template_index, rank}).second;
    constexpr std::size_t kMostCables = 2;
    const double meet = host_top_ - 8;
    double sum = 0, share = -1, lo = std::numeric_limits<double>::infinity(), hi = 0;
    int nics = 0;
    for (const HostDrawing::Port& port : ports) {
      const Canvas::Stroke stroke{port.rate.GBps_per_direction, port.share, tip_of(port), false};
      if (first_time) {
        canvas_.line(port.x, host.nic_y, port.x, meet, stroke);
        canvas_.text(port.x + 5, host_top_ + 11,
                     (port.nics > 1 ? fmt::format("{} x ", port.nics) : "") + rate_text(port.rate.GBps_per_direction),
                     10, "start", "rate");
      }
      if (ports.size() <= kMostCables) canvas_.line(port.x, meet, kind.x, leaf, stroke);
      sum += port.nics * port.rate.GBps_per_direction, nics += port.nics;
      share = std::max(share, port.share), lo = std::min(lo, port.x), hi = std::max(hi, port.x);
    }
    if (ports.size() <= kMostCables) return;
    if (first_time) canvas_.box(Canvas::Layer::box, lo - 8, meet - 3, hi - lo + 16, 6, "net", 3);
    const double x = (lo + hi) / 2;
    std::string tip = fmt::format("{} NIC ports of one host, {} GB/s together", nics, rate_text(sum));
    tip += share_words(share);
    canvas_.line(x, meet, kind.x, leaf, {sum, share, tip, false});
    if (first_time) canvas_.text(hi + 8, meet - 8, fmt::format("{} NICs, {}", nics, rate_text(sum)), 10, "end", "rate");
  }

  static std::string tip_of(const HostDrawing::Port& port) {
    std::string tip = fmt::format("NIC port, {} GB/s: {}", rate_text(port.rate.GBps_per_direction),
                                  source_text(port.rate.source, port.rate.source_note));
    tip += share_words(port.share);
    return tip;
  }

  void line_up(double x, double y, double to, const Rate& rate, double share, const std::string& count,
               const std::string& what) {
    const bool known = rate.GBps_per_direction > 0;
    std::string tip = fmt::format("{}: {} GB/s, {}", what, known ? rate_text(rate.GBps_per_direction) : "unknown",
                                  source_text(rate.source, rate.source_note));
    tip += share_words(share);
    canvas_.line(x, y, x, to, {rate.GBps_per_direction, share, tip, !known});
    canvas_.text(x + 7, (y + to) / 2 + 4,
                 known                            ? count + rate_text(rate.GBps_per_direction)
                 : rate.source == Source::unknown ? "rate unknown"
                                                  : "dead",
                 10, "start", "rate");
  }

  void wide_box(double x0, double x1, double y, const std::string& words) {
    const double lo = std::max(x0 - kBox / 2, 20.0);
    const double width = std::max(x1 + kBox / 2 - lo, 0.56 * 11 * static_cast<double>(words.size()) + 24);
    // Centred above what it joins, where there is room.
    const double x = std::max(20.0, std::min(lo, (x0 + x1) / 2 - width / 2));
    canvas_.labelled_box(Canvas::Layer::box, x, y, std::max(width, x1 + kBox / 2 - x), kBoxHeight, "net", words);
  }

  std::string leaf_words(const LeafKind& kind) const {
    std::string words = fmt::format("leaf{}", kind.first);
    if (kind.leaves == 1 && !fabric_.leaf_names.empty())
      if (const std::string& own = fabric_.leaf_names[static_cast<std::size_t>(kind.first)]; !own.empty()) words = own;
    return kind.factor != 1 && kind.factor > 0 ? fmt::format("{} at {}", words, short_number(kind.factor)) : words;
  }
  std::string leaf_count(const LeafKind& kind) const {
    int hosts = 0;
    for (const auto& [own, count] : kind.hosts) hosts += count;
    return (kind.leaves == 1 ? "" : fmt::format("x {}, ", kind.leaves)) + counted(hosts, "host");
  }

  void draw_pod(const PodKind& pod, int index, const std::vector<LeafKind>& kinds, double y) {
    double lo = std::numeric_limits<double>::infinity(), hi = 0;
    for (const LeafKind& kind : kinds)
      if (kind.pod_kind == index) lo = std::min(lo, kind.x), hi = std::max(hi, kind.x);
    if (hi == 0) return;  // its leaves are not drawn
    const bool group = map_.top == Top::mesh;
    std::string words = fmt::format("{}{} x {}", group ? "group" : "pod", pod.first, pod.pods);
    if (pod.pods == 1 && !fabric_.pod_names.empty())
      if (const std::string& own = fabric_.pod_names[static_cast<std::size_t>(pod.first)]; !own.empty()) words = own;
    canvas_.labelled_box(Canvas::Layer::box, lo - kBox / 2, y, hi - lo + kBox, kBoxHeight, "net", words,
                         counted(fabric_.spine_count, "spine"));
    if (pod.factors.empty()) return;
    const bool alike = pod.factors.front() == pod.factors.back();
    Rate rate = fabric_.pod_uplink;
    if (alike) rate.GBps_per_direction *= pod.factors.front();
    const int to = group ? (map_.pods - 1) * map_.planes : map_.planes;
    line_up((lo + hi) / 2, y, top_ + kBoxHeight, rate, pod.share, to > 1 ? fmt::format("{} x ", to) : "",
            std::string(group ? "to each other group" : "all uplinks of a pod and plane") +
                (alike ? "" : ", some dead or degraded"));
  }

  Canvas& canvas_;
  const Topology& topology_;
  const Fabric& fabric_;
  const FabricMap& map_;
  const DrawnLoad& load_;
  const double top_, host_top_;
  const std::vector<DrawnHost>& hosts_;
  std::set<std::pair<int, int>> cabled_;  // template, rank
};

}  // namespace

double fabric_height(const Topology& topology) {
  if (!topology.fabric) return 0;
  const double leaves = cable_room(topology) + kBoxHeight;
  if (topology.fabric->kind == FabricKind::torus) return leaves + kRow;
  if (topology.fabric->spine_count == 0) return leaves;
  return leaves + (has_pods(topology) ? 2 : 1) * kRow;
}

void draw_fabric(Canvas& canvas, const Router& router, const DrawnLoad& load, double top, double host_top,
                 const std::vector<DrawnHost>& hosts) {
  if (!router.topology().fabric) return;
  FabricDrawing drawing(canvas, router, load, top, host_top, hosts);
  if (router.topology().fabric->kind == FabricKind::torus)
    drawing.draw_torus();
  else
    drawing.draw_tree(fold_fabric(router, load));
}

}  // namespace topomoe
