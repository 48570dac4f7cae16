#include "topology/show/draw_host.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>

#include "topology/names.hpp"
#include "topology/show/host_matrix.hpp"

namespace topomoe {
namespace {

constexpr double kCell = 92, kCellHeight = 34, kGap = 14, kFrame = 16, kBarHeight = 20, kBarStep = 46;
constexpr double kSide = 20;          // beside the boxes of a column, for the line from its switch up
constexpr double kCpuGap = 60;        // for the link between two CPUs
constexpr std::size_t kMostNics = 2;  // boxes of NICs on one device; more that are alike are one

constexpr std::ptrdiff_t kMostBoxes = 96;  // ten thousand points wide

}  // namespace

HostDrawing::HostDrawing(Canvas& canvas, const Topology& topology, std::size_t template_index, const DrawnLoad& load)
    : canvas_(canvas),
      topology_(topology),
      host_(topology.templates[template_index]),
      tree_(host_),
      link_share_(load.link[template_index]),
      port_share_(load.port[template_index]) {
  arrange();
}

const Link* HostDrawing::link_up(int index) const {
  const int link = tree_.parent_link[at(index)];
  return link < 0 ? nullptr : &host_.links[at(link)];
}

double HostDrawing::share_up(int index) const {
  // A link may be written as two, one for each way; the longer counts.
  double most = -1;
  const int parent = tree_.parent[at(index)];
  for (std::size_t i = 0; i < host_.links.size(); ++i) {
    const Link& link = host_.links[i];
    if ((link.src == index && link.dst == parent) || (link.dst == index && link.src == parent))
      most = std::max(most, link_share_[i]);
  }
  return most;
}

bool HostDrawing::holds_devices(int index) const {
  const DeviceKind kind = device(index).kind;
  if (kind == DeviceKind::gpu || kind == DeviceKind::nic) return true;
  const std::vector<int>& below = tree_.children[at(index)];
  return std::any_of(below.begin(), below.end(), [&](int child) { return holds_devices(child); });
}

std::vector<HostDrawing::Cell> HostDrawing::cells_of(const std::vector<int>& devices, DeviceKind kind) const {
  std::vector<Cell> cells;
  const auto same = [&](int a, int b) {
    const Link *up = link_up(a), *other = link_up(b);
    return (up == nullptr) == (other == nullptr) &&
           (up == nullptr || (up->kind == other->kind && up->GBps_per_direction == other->GBps_per_direction));
  };
  std::size_t all = 0;
  for (const int own : devices) all += device(own).kind == kind;
  for (const int own : devices) {
    if (device(own).kind != kind) continue;
    const bool joins =
        kind == DeviceKind::nic && all > kMostNics && !cells.empty() && same(cells.back().devices.front(), own);
    if (joins)
      cells.back().devices.push_back(own);
    else
      cells.push_back({{own}, 0});
  }
  return cells;
}

void HostDrawing::add_column(int parent, bool stacked, const std::vector<int>& devices) {
  Column column;
  column.parent = parent, column.stacked = stacked;
  column.nics = cells_of(devices, DeviceKind::nic), column.gpus = cells_of(devices, DeviceKind::gpu);
  const std::size_t nics = column.nics.size(), gpus = column.gpus.size();
  const double cells = static_cast<double>(stacked ? std::max(nics, gpus) : nics + gpus);
  const double inner = cells * kCell + (cells - 1) * kGap;
  column.x = x_, column.width = inner + kSide;
  const auto spread = [&](std::vector<Cell>& own, double from, double width) {
    const double step = width / static_cast<double>(std::max<std::size_t>(own.size(), 1));
    for (std::size_t i = 0; i < own.size(); ++i) own[i].x = from + step * (static_cast<double>(i) + 0.5);
  };
  if (stacked) {
    spread(column.nics, x_, inner), spread(column.gpus, x_, inner);
  } else {
    // Side by side, so that no line from a GPU to its CPU passes a NIC.
    const double each = kCell + kGap;
    spread(column.nics, x_ - kGap / 2, each * static_cast<double>(nics));
    spread(column.gpus, x_ - kGap / 2 + each * static_cast<double>(nics), each * static_cast<double>(gpus));
  }
  x_ += column.width + kGap;
  columns_.push_back(std::move(column));
}

void HostDrawing::place(int index, int depth) {
  std::vector<int> devices, inner;
  for (const int child : tree_.children[at(index)]) {
    if (!holds_devices(child)) continue;
    const DeviceKind kind = device(child).kind;
    (kind == DeviceKind::gpu || kind == DeviceKind::nic ? devices : inner).push_back(child);
  }
  if (device(index).kind != DeviceKind::numa && inner.empty()) {
    add_column(index, true, devices);
    return;
  }
  const double x0 = x_;
  depth_ = std::max(depth_, depth);
  const std::size_t bar = bars_.size();
  bars_.push_back({index, depth, x0, x0});
  if (!devices.empty()) add_column(index, false, devices);
  for (const int child : inner) place(child, depth + 1);
  if (x_ == x0) x_ += kCell + kGap;  // a CPU with nothing below
  bars_[bar].x1 = x_ - kGap;
}

void HostDrawing::arrange() {
  x_ = 2 * kFrame;
  std::vector<int> orphans;
  const auto boxes = std::count_if(host_.devices.begin(), host_.devices.end(), [](const HostDevice& own) {
    return own.kind == DeviceKind::gpu || own.kind == DeviceKind::nic;
  });
  if (boxes == 0 || boxes > kMostBoxes) return;
  for (int own = 0; own < static_cast<int>(host_.devices.size()); ++own) {
    if (tree_.parent[at(own)] >= 0) continue;
    const DeviceKind kind = device(own).kind;
    if (kind == DeviceKind::gpu || kind == DeviceKind::nic) {
      orphans.push_back(own);
    } else if (kind == DeviceKind::numa || (kind == DeviceKind::pci_switch && holds_devices(own))) {
      place(own, 0);
      x_ += kCpuGap - kGap;
    }
  }
  if (!orphans.empty()) {
    add_column(-1, false, orphans);
    x_ += kCpuGap - kGap;
  }
  x_ -= kCpuGap;
}

double HostDrawing::bar_y(int depth) const { return cpu_y_ + kBarStep * depth; }

double HostDrawing::bar_bottom(int index) const {
  for (const Bar& bar : bars_)
    if (bar.device == index) return bar_y(bar.depth) + kBarHeight;
  return cpu_y_ + kBarHeight;
}

void HostDrawing::set_rows(double top) {
  bool nics = false, gpus = false, stacked = false;
  for (const Column& column : columns_) {
    nics = nics || !column.nics.empty();
    gpus = gpus || !column.gpus.empty();
    stacked = stacked || column.stacked;
  }
  cpu_y_ = top + kFrame;
  double y = bar_y(depth_) + kBarHeight + 34;
  nic_y_ = y;
  if (nics) y += kCellHeight + 32;
  switch_y_ = y;
  if (stacked) y += 24 + 32;
  // Side by side with the NICs where no switch stands between.
  gpu_y_ = stacked || !nics ? y : nic_y_;
  if (gpus) y = gpu_y_ + kCellHeight;
  plane_y_ = std::max(y, gpu_y_ + kCellHeight) + 40;
}

Canvas::Stroke HostDrawing::stroke(int link) const {
  const Link& own = host_.links[at(link)];
  const double share = link_share_[at(link)];
  std::string tip = fmt::format("{} {}-{}: {} GB/s, {}", name(own.kind), device(own.src).name, device(own.dst).name,
                                rate_text(own.GBps_per_direction), source_text(own.source, own.source_note));
  tip += share_words(share);
  return {own.GBps_per_direction, share, tip, false};
}

void HostDrawing::draw_cell(const Cell& cell, double y, const char* klass) {
  const HostDevice& own = device(cell.devices.front());
  std::string words = own.name, below = own.bus_id;
  for (const Nic& nic : host_.nics)
    if (nic.device == cell.devices.front() && !nic.name.empty() && nic.name != own.name)
      below =
          below.empty() ? nic.name : nic.name + " " + (below.size() > 7 ? below.substr(below.find(':') + 1) : below);
  if (cell.devices.size() > 1) {
    words += ".." + device(cell.devices.back()).name;
    below = fmt::format("x {}", cell.devices.size());
  }
  canvas_.labelled_box(Canvas::Layer::box, cell.x - kCell / 2, y, kCell, kCellHeight, klass, words, below);
}

void HostDrawing::draw_column(const Column& column) {
  const double above = bar_bottom(column.parent);
  const auto up = [&](int index, double x, double y0, double y1, double label_y, std::size_t count) {
    const Link* link = link_up(index);
    if (link == nullptr) return;
    Canvas::Stroke own = stroke(tree_.parent_link[at(index)]);
    own.share = share_up(index);
    canvas_.line(x, y0, x, y1, own);
    canvas_.text(x + 5, label_y, (count > 1 ? fmt::format("{} x ", count) : "") + rate_text(link->GBps_per_direction),
                 10, "start", "rate");
  };
  for (const Cell& cell : column.nics) {
    const int first = cell.devices.front();
    if (column.stacked)
      up(first, cell.x, nic_y_ + kCellHeight, switch_y_, nic_y_ + kCellHeight + 20, cell.devices.size());
    else
      up(first, cell.x + 26, nic_y_, above, above + 20, cell.devices.size());
    draw_cell(cell, nic_y_, "net");
    for (std::size_t i = 0; i < host_.nics.size(); ++i) {
      const Nic& nic = host_.nics[i];
      if (std::find(cell.devices.begin(), cell.devices.end(), nic.device) == cell.devices.end()) continue;
      const double x = column.stacked ? cell.x : cell.x - 14;
      std::vector<Port>& ports = ports_[nic.rail];
      if (!ports.empty() && ports.back().x == x) {
        ++ports.back().nics;
        ports.back().share = std::max(ports.back().share, port_share_[i]);
      } else {
        ports.push_back({x, 1, nic.port, port_share_[i]});
      }
    }
  }
  for (const Cell& cell : column.gpus) {
    const int own = cell.devices.front();
    if (column.stacked)
      up(own, cell.x, gpu_y_, switch_y_ + 24, gpu_y_ - 10, 1);
    else
      up(own, cell.x, gpu_y_, above, above + 20, 1);
    draw_cell(cell, gpu_y_, "gpu");
    gpu_x_[own] = cell.x;
  }
  if (!column.stacked) return;
  canvas_.labelled_box(Canvas::Layer::box, column.x, switch_y_, column.width, 24, "pci", device(column.parent).name);
  const int next = tree_.parent[at(column.parent)];
  if (next >= 0) up(column.parent, column.x + column.width - 8, switch_y_, bar_bottom(next), bar_bottom(next) + 20, 1);
}

void HostDrawing::draw_bars() {
  for (const Bar& bar : bars_) {
    const bool cpu = device(bar.device).kind == DeviceKind::numa;
    const double x = left_ + bar.x0 - (bar.depth == 0 ? 6 : 2), y = bar_y(bar.depth);
    const double width = bar.x1 - bar.x0 + (bar.depth == 0 ? 12 : 4);
    canvas_.box(Canvas::Layer::frame, x, y, width, kBarHeight, cpu ? "cpu" : "pci");
    // At the right end, where no cable passes.
    canvas_.text(x + width - 8, y + 14, device(bar.device).name, 11, "end", "ink");
    const int next = tree_.parent[at(bar.device)];
    if (next < 0) continue;
    Canvas::Stroke own = stroke(tree_.parent_link[at(bar.device)]);
    own.share = share_up(bar.device);
    const double middle = x + width - 14;
    canvas_.line(middle, y, middle, bar_bottom(next), own);
    canvas_.text(middle + 5, y - 8, rate_text(own.GBps), 10, "start", "rate");
  }
}

void HostDrawing::draw_gpu_links() {
  bool plane = false;
  double deepest = 0;
  std::set<double> rates;  // of direct links
  for (int i = 0; i < static_cast<int>(host_.links.size()); ++i) {
    const Link& link = host_.links[at(i)];
    if (!joins_gpus(link)) continue;
    const bool to_plane =
        device(link.dst).kind == DeviceKind::nvswitch || device(link.src).kind == DeviceKind::nvswitch;
    const int gpu = device(link.src).kind == DeviceKind::gpu ? link.src : link.dst;
    if (to_plane && gpu_x_.count(gpu) != 0) {
      canvas_.line(gpu_x_[gpu], gpu_y_ + kCellHeight, gpu_x_[gpu], plane_y_, stroke(i));
      canvas_.text(gpu_x_[gpu] + 6, plane_y_ - 16, rate_text(link.GBps_per_direction), 10, "start", "rate");
      plane = true;
    } else if (gpu_x_.count(link.src) != 0 && gpu_x_.count(link.dst) != 0) {
      const double distance = std::abs(gpu_x_[link.src] - gpu_x_[link.dst]);
      const double depth = std::min(10 + 0.12 * distance, 130.0);
      deepest = std::max(deepest, depth);
      canvas_.arc(gpu_x_[link.src], gpu_x_[link.dst], gpu_y_ + kCellHeight, depth, stroke(i));
      rates.insert(link.GBps_per_direction);
    }
  }
  bottom_ = gpu_y_ + kCellHeight + 18;
  if (plane) {
    std::string words = "NVLink switches";
    if (topology_.hosts_per_domain > 1) words += fmt::format(": one plane for {} hosts", topology_.hosts_per_domain);
    canvas_.labelled_box(Canvas::Layer::box, left_ + kFrame, plane_y_, right_ - left_ - 2 * kFrame, 26, "plane", words);
    bottom_ = plane_y_ + 34;
  }
  if (!rates.empty()) {
    bottom_ = std::max(bottom_, gpu_y_ + kCellHeight + deepest + 14);
    std::string words = "GPU to GPU:";
    for (const double rate : rates) words += " " + rate_text(rate);
    canvas_.text(left_ + kFrame, bottom_ + 8, words + " GB/s", 10.5, "start", "soft");
    bottom_ += 18;
  } else if (!plane && !gpu_x_.empty()) {
    canvas_.text(left_ + kFrame, bottom_ + 8, fmt::format("NVLink: {}", name(host_.nvlink)), 10.5, "start", "soft");
    bottom_ += 18;
  }
}

int HostDrawing::root_of(int index) const {
  const std::vector<int> above = tree_.way_up(index);
  return above.empty() ? index : above.back();
}

void HostDrawing::draw_cpu_links() {
  const Bar* previous = nullptr;
  for (const Bar& bar : bars_) {
    if (bar.depth != 0) continue;
    int drawn = -1;
    double share = -1;
    for (int i = 0; previous != nullptr && i < static_cast<int>(host_.links.size()); ++i) {
      const Link& link = host_.links[at(i)];
      if (link.kind != LinkKind::cpu_interconnect) continue;
      if (std::minmax(root_of(link.src), root_of(link.dst)) != std::minmax(previous->device, bar.device)) continue;
      drawn = i, share = std::max(share, link_share_[at(i)]);
    }
    if (drawn >= 0) {
      Canvas::Stroke own = stroke(drawn);
      own.share = share;
      const double x1 = left_ + previous->x1 + 6, x2 = left_ + bar.x0 - 6, y = cpu_y_ + kBarHeight / 2;
      canvas_.line(x1, y, x2, y, own);
      canvas_.text((x1 + x2) / 2, y - 8, rate_text(own.GBps), 10, "middle", "rate");
    }
    previous = &bar;
  }
}

double HostDrawing::draw(double left, double top, const std::string& title, bool folded) {
  left_ = left;
  right_ = left + std::max(x_ + 2 * kFrame, 260.0);
  for (Column& column : columns_) {
    column.x += left;
    for (std::vector<Cell>* row : {&column.nics, &column.gpus})
      for (Cell& cell : *row) cell.x += left;
  }
  set_rows(top);
  draw_bars();
  for (const Column& column : columns_) draw_column(column);
  draw_cpu_links();
  draw_gpu_links();
  canvas_.text(left_ + kFrame, bottom_ + 18, title, 13, "start");
  bottom_ += 30;
  const double height = bottom_ - top;  // known only now; the layer is behind all of it
  for (int copy = folded ? 2 : 0; copy >= 0; --copy)
    canvas_.box(Canvas::Layer::back, left_ + 6 * copy, top + 6 * copy, right_ - left_, height, "frame", 8);
  bottom_ += folded ? 12 : 0;
  return right_ + (folded ? 12 : 0);
}

}  // namespace topomoe
