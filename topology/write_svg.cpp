// A drawing of the cluster: one host of each template in full, folded with its count, the leaves above it, the spine on
// top.
//
// Columns are devices under one PCIe switch (or under the CPU itself); a NUMA node is the frame around its columns.
// Rates are GB/s in one direction. Direct GPU-to-GPU links are arcs below the GPUs, coloured by rate.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "topology/fabric.hpp"
#include "topology/fabric_map.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

constexpr double kCell = 92, kGap = 14, kFrame = 16;
constexpr double kSpineY = 78, kLeafY = 150, kHostY = 236, kNicY = 300, kSwitchY = 372, kGpuY = 444, kPlaneY = 540;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20)
      out += c;
  }
  return out;
}

class Canvas {
 public:
  // Everything after this is drawn higher up by so much.
  void raise(double by) { raised_ = by; }
  void box(double x, double y, double w, double h, const char* fill, const char* stroke, double radius = 4) {
    body_ += fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="{}" fill="{}" stroke="{}"/>)"
                         "\n",
                         x, y - raised_, w, h, radius, fill, stroke);
    width_ = std::max(width_, x + w);
    height_ = std::max(height_, y - raised_ + h);
  }
  void text(double x, double y, const std::string& words, double size = 11, const char* anchor = "middle",
            const char* fill = "#212121") {
    body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" font-size="{}" text-anchor="{}" fill="{}">{}</text>)"
                         "\n",
                         x, y - raised_, size, anchor, fill, escaped(words));
    const double length = 0.56 * size * static_cast<double>(words.size());
    width_ = std::max(width_, std::string_view(anchor) == "start" ? x + length
                              : std::string_view(anchor) == "end" ? x
                                                                  : x + length / 2);
    height_ = std::max(height_, y - raised_ + 4);
  }
  void labelled_box(double x, double y, double w, double h, const char* fill, const char* stroke,
                    const std::string& words, const std::string& below = "") {
    box(x, y, w, h, fill, stroke);
    text(x + w / 2, below.empty() ? y + h / 2 + 4 : y + h / 2 - 2, words);
    if (!below.empty()) text(x + w / 2, y + h / 2 + 11, below, 9, "middle", "#616161");
  }
  void line(double x1, double y1, double x2, double y2, const char* stroke, double GBps, bool with_label = true) {
    body_ += fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="{:.1f}"/>)"
                         "\n",
                         x1, y1 - raised_, x2, y2 - raised_, stroke, stroke_width(GBps));
    if (with_label) text((x1 + x2) / 2 + 4, (y1 + y2) / 2 + 4, short_number(GBps, 1), 10, "start", stroke);
  }
  void arc(double x1, double x2, double y, const char* stroke, double GBps) {
    const double depth = std::min(14 + 0.13 * std::abs(x2 - x1), 88.0);
    body_ += fmt::format(
        R"(<path d="M {:.1f} {:.1f} Q {:.1f} {:.1f} {:.1f} {:.1f}" fill="none" stroke="{}" stroke-width="{:.1f}"/>)"
        "\n",
        x1, y - raised_, (x1 + x2) / 2, y - raised_ + 2 * depth, x2, y - raised_, stroke, stroke_width(GBps));
    height_ = std::max(height_, y - raised_ + depth + 6);
  }
  std::string finish() const {
    return fmt::format(
        R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" font-family="Helvetica, Arial, sans-serif">)"
        "\n"
        R"(<rect width="100%" height="100%" fill="#fcfcfc"/>)"
        "\n{2}</svg>\n",
        width_ + 24, height_ + 24, body_);
  }

 private:
  static double stroke_width(double GBps) { return std::clamp(0.8 + 0.45 * std::log2(1 + GBps / 10), 0.8, 4.5); }
  std::string body_;
  double width_ = 320, height_ = 60, raised_ = 0;
};

// What hangs on one PCIe switch, or directly on one CPU.
struct Column {
  int parent = -1;
  double up_GBps = 0;  // switch to the next level
  std::vector<int> gpus, nics;
  double x = 0;
  double cells() const { return static_cast<double>(std::max<std::size_t>({gpus.size(), nics.size(), 1})); }
  double width() const { return cells() * kCell + (cells() - 1) * kGap; }
};

class HostDrawing {
 public:
  HostDrawing(Canvas& canvas, const HostTemplate& host, double left, bool folded)
      : canvas_(canvas), host_(host), left_(left), folded_(folded) {
    arrange();
  }

  // Draws the host and returns its right edge.
  double draw(const std::string& title) {
    draw_frames(title);
    for (auto& [numa, columns] : columns_)
      for (Column& column : columns) draw_column(column);
    draw_nvlinks();
    draw_cpu_links();
    return right_;
  }
  const std::map<int, double>& nic_centres() const { return centre_; }

 private:
  const HostDevice& device(int index) const { return host_.devices[static_cast<std::size_t>(index)]; }

  // The PCIe (or else C2C) link that a device hangs on; nullptr: none.
  const Link* parent_link(int index) const {
    const Link* c2c = nullptr;
    for (const Link& link : host_.links) {
      const int other = link.src == index ? link.dst : link.dst == index ? link.src : -1;
      if (other < 0) continue;
      const DeviceKind kind = device(other).kind;
      if (kind != DeviceKind::numa && kind != DeviceKind::pci_switch) continue;
      if (link.kind == LinkKind::pcie) return &link;
      if (link.kind == LinkKind::c2c) c2c = &link;
    }
    return c2c;
  }

  void arrange() {
    std::map<int, std::map<int, Column>> found;  // numa, parent
    for (std::size_t i = 0; i < host_.devices.size(); ++i) {
      const int index = static_cast<int>(i);
      const DeviceKind kind = device(index).kind;
      if (kind != DeviceKind::gpu && kind != DeviceKind::nic) continue;
      const Link* link = parent_link(index);
      const int parent = link == nullptr ? -1 : link->src == index ? link->dst : link->src;
      Column& column = found[device(index).numa][parent];
      column.parent = parent;
      if (parent >= 0 && device(parent).kind == DeviceKind::pci_switch)
        if (const Link* up = parent_link(parent)) column.up_GBps = up->GBps_per_direction;
      (kind == DeviceKind::gpu ? column.gpus : column.nics).push_back(index);
    }
    double x = left_ + kFrame;
    for (auto& [numa, by_parent] : found) {
      x += kFrame;
      for (auto& [parent, column] : by_parent) {
        column.x = x;
        x += column.width() + kGap * 1.6;
        columns_[numa].push_back(column);
      }
      x += kFrame - kGap * 1.6;
      numa_right_[numa] = x;
      x += 34;  // room for the link between CPUs
    }
    right_ = std::max(x - 34 + kFrame, left_ + 200);
  }

  void draw_frames(const std::string& title) {
    const double height = kPlaneY + 58 - kHostY;
    for (int copy = folded_ ? 2 : 0; copy > 0; --copy)  // a stack of hosts
      canvas_.box(left_ + 6 * copy, kHostY + 6 * copy, right_ - left_, height, "#ffffff", "#bdbdbd", 8);
    canvas_.box(left_, kHostY, right_ - left_, height, "#ffffff", "#9e9e9e", 8);
    canvas_.text(left_ + kFrame, kPlaneY + 48, title, 13, "start");
    for (const auto& [numa, columns] : columns_) {
      const double x = columns.front().x - kFrame;
      canvas_.box(x, kHostY + 16, numa_right_[numa] - x, kGpuY + 50 - kHostY - 16, "#f5f5f5", "#bdbdbd", 6);
      canvas_.text(x + 6, kHostY + 30, numa < 0 ? "NUMA not known" : fmt::format("numa{}", numa), 10, "start",
                   "#616161");
    }
  }

  void draw_column(Column& column) {
    const bool is_switch = column.parent >= 0 && device(column.parent).kind == DeviceKind::pci_switch;
    canvas_.labelled_box(column.x, kSwitchY, column.width(), 30, is_switch ? "#fff8e1" : "#f3e5f5",
                         is_switch ? "#ffb300" : "#8e24aa",
                         column.parent < 0 ? "no PCIe parent" : device(column.parent).name,
                         column.up_GBps > 0 ? fmt::format("up to CPU: {}", short_number(column.up_GBps, 1)) : "");
    place_row(column, column.nics, kNicY, 34, "#e3f2fd", "#1e88e5", false);
    place_row(column, column.gpus, kGpuY, 34, "#e8f5e9", "#43a047", true);
  }

  void place_row(const Column& column, const std::vector<int>& devices, double y, double h, const char* fill,
                 const char* stroke, bool below) {
    const double step = column.width() / static_cast<double>(std::max<std::size_t>(devices.size(), 1));
    for (std::size_t i = 0; i < devices.size(); ++i) {
      const double centre = column.x + step * (static_cast<double>(i) + 0.5);
      centre_[devices[i]] = centre;
      const HostDevice& own = device(devices[i]);
      canvas_.labelled_box(centre - kCell / 2, y, kCell, h, fill, stroke, own.name, own.bus_id);
      const Link* link = parent_link(devices[i]);
      if (link == nullptr) continue;
      const char* colour = link->kind == LinkKind::c2c ? "#00838f" : "#757575";
      if (below)
        canvas_.line(centre, kSwitchY + 30, centre, y, colour, link->GBps_per_direction);
      else
        canvas_.line(centre, y + h, centre, kSwitchY, colour, link->GBps_per_direction);
    }
  }

  void draw_nvlinks() {
    bool plane = false;
    std::set<double> rates;  // of the arcs
    for (const Link& link : host_.links) {
      if (link.kind != LinkKind::nvlink && link.kind != LinkKind::xgmi) continue;
      const bool to_plane =
          device(link.dst).kind == DeviceKind::nvswitch || device(link.src).kind == DeviceKind::nvswitch;
      const int gpu = device(link.src).kind == DeviceKind::gpu ? link.src : link.dst;
      if (to_plane && centre_.count(gpu)) {
        canvas_.line(centre_[gpu], kGpuY + 34, centre_[gpu], kPlaneY, "#2e7d32", link.GBps_per_direction);
        plane = true;
      } else if (centre_.count(link.src) && centre_.count(link.dst)) {
        canvas_.arc(centre_[link.src], centre_[link.dst], kGpuY + 34, "#2e7d32", link.GBps_per_direction);
        rates.insert(link.GBps_per_direction);
      }
    }
    if (!rates.empty()) {
      std::string words = "GPU to GPU:";
      for (const double rate : rates) words += " " + short_number(rate, 1);
      canvas_.text(right_ - kFrame, kPlaneY + 48, words + (rates.size() > 1 ? " (thicker is faster)" : ""), 10, "end",
                   "#2e7d32");
    }
    if (plane)
      canvas_.labelled_box(left_ + kFrame, kPlaneY, right_ - left_ - 2 * kFrame, 30, "#c8e6c9", "#2e7d32",
                           "NVLink switches");
    else if (host_.nvlink == Presence::unknown)
      canvas_.text((left_ + right_) / 2, kPlaneY + 20, "NVLink unknown", 12, "middle", "#c62828");
  }

  // Neighbouring CPUs only; the rest of a mesh has the same rate.
  void draw_cpu_links() {
    int previous = -1;
    for (const auto& [numa, columns] : columns_) {
      for (const Link& link : host_.links) {
        if (previous < 0 || link.kind != LinkKind::cpu_interconnect) continue;
        const int a = device(link.src).numa, b = device(link.dst).numa;
        if (std::minmax(a, b) != std::minmax(previous, numa)) continue;
        const double x1 = numa_right_[previous], x2 = columns.front().x - kFrame;
        canvas_.line(x1, kHostY + 52, x2, kHostY + 52, "#6a1b9a", link.GBps_per_direction, false);
        canvas_.text((x1 + x2) / 2, kHostY + 46, short_number(link.GBps_per_direction, 0), 10, "middle", "#6a1b9a");
        break;
      }
      previous = numa;
    }
  }

  Canvas& canvas_;
  const HostTemplate& host_;
  double left_, right_ = 0;
  bool folded_;
  std::map<int, std::vector<Column>> columns_;  // by NUMA node
  std::map<int, double> numa_right_;
  std::map<int, double> centre_;  // of GPUs and NICs
};

}  // namespace

std::string write_svg(const Topology& topology) {
  require_valid(topology, topology.name);
  Canvas canvas;
  canvas.text(20, 30, fmt::format("{}: {} hosts, {} GPUs", topology.name, topology.host_count(), topology.gpu_count()),
              17, "start");
  canvas.text(20, 50, "rates in GB/s, one direction", 11, "start", "#616161");
  if (!topology.fabric) canvas.raise(kHostY - kSpineY);
  double left = 20;
  std::map<int, double> leaf_x;  // leaf -> centre
  const FabricMap map = topology.fabric ? FabricMap(topology, 0) : FabricMap();
  int first_host = 0;
  struct Cable {
    double nic_x;
    int leaf;
    double GBps;
  };
  std::vector<Cable> drawn;
  for (const HostGroup& group : topology.groups) {
    const HostTemplate& host = topology.templates[static_cast<std::size_t>(group.template_index)];
    HostDrawing drawing(canvas, host, left, group.count > 1);
    std::string title = fmt::format("{}  x {}", host.name, group.count);
    if (!host.gpu.name.empty()) title += fmt::format("  ({})", host.gpu.name);
    if (topology.hosts_per_domain > 1) title += fmt::format("; NVLink joins {} hosts", topology.hosts_per_domain);
    const double right = drawing.draw(title);
    if (topology.fabric)
      for (const Nic& nic : host.nics) {
        const auto at = drawing.nic_centres().find(nic.device);
        if (at == drawing.nic_centres().end()) continue;
        const int leaf = map.leaf_of(first_host, nic.rail);
        leaf_x.emplace(leaf, map.ranks > 1 ? at->second : (left + right) / 2);
        drawn.push_back({at->second, leaf, nic.port.GBps_per_direction});
      }
    left = right + 30;
    first_host += group.count;
    if (left > 6000) {
      canvas.text(left, kHostY + 40, "more groups of hosts follow", 12, "start");
      break;
    }
  }
  for (const Cable& cable : drawn) {
    const double leaf = leaf_x[cable.leaf];
    canvas.line(cable.nic_x, kNicY, leaf, kLeafY + 30, "#1565c0", cable.GBps, false);
    canvas.text(leaf + (cable.nic_x - leaf) * 0.3 + 4, kLeafY + 58, short_number(cable.GBps, 1), 10, "start",
                "#1565c0");
  }
  if (!leaf_x.empty()) {
    const Fabric& fabric = *topology.fabric;
    for (const auto& [leaf, x] : leaf_x) {
      canvas.labelled_box(x - kCell / 2, kLeafY, kCell, 30, "#e3f2fd", "#1565c0",
                          fabric.kind == FabricKind::torus ? fmt::format("ring{}", leaf) : fmt::format("leaf{}", leaf));
      if (fabric.spine_count > 0) canvas.line(x, kLeafY, x, kSpineY + 30, "#0d47a1", fabric.uplink.GBps_per_direction);
    }
    if (fabric.spine_count > 0 || fabric.kind == FabricKind::torus) {
      const std::string words = fabric_words(topology);
      const double width = std::max(340.0, 6.5 * static_cast<double>(words.size()));
      const double x0 = leaf_x.begin()->second, x1 = leaf_x.rbegin()->second;
      const double lo = std::max(20.0, std::min(x0, x1) - 170), hi = std::max({x0, x1, lo + width - kCell}) + kCell / 2;
      canvas.labelled_box(lo, kSpineY, hi - lo, 30, "#bbdefb", "#0d47a1", words);
    }
  }
  return canvas.finish();
}

}  // namespace topomoe
