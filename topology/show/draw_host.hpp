// One host of a drawing: CPUs as bars, PCIe switches below them, NICs above and GPUs below the switch they hang on, the
// NVLink plane or the direct links at the bottom. Network cables leave at the top, over the CPUs' bars.
//
// A switch that holds other switches is a bar too. NICs that hang on one device, many and alike, are one box.
// Not drawn: links between CPUs that are no neighbours in the picture, and of a device all ways to a CPU but the first
// (host_tree.hpp).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "topology/host_tree.hpp"
#include "topology/show/drawn_load.hpp"
#include "topology/show/svg_canvas.hpp"

namespace topomoe {

class HostDrawing {
 public:
  HostDrawing(Canvas& canvas, const Topology& topology, std::size_t template_index, const DrawnLoad& load);

  // Its upper left corner there; returns its right edge.
  double draw(double left, double top, const std::string& title, bool folded);
  bool is_drawn() const { return !columns_.empty(); }  // false: there is nothing in it, or too much
  double bottom() const { return bottom_; }
  double nic_y() const { return nic_y_; }  // where cables end

  struct Port {
    double x = 0;
    int nics = 0;  // that share the box
    Rate rate;
    double share = -1;
  };
  const std::map<int, std::vector<Port>>& ports_by_rail() const { return ports_; }

 private:
  // Devices in one box.
  struct Cell {
    std::vector<int> devices;
    double x = 0;  // its centre
  };
  // What hangs on one device. stacked: on a switch that holds no other, which is drawn between NICs and GPUs.
  struct Column {
    int parent = -1;
    bool stacked = false;
    std::vector<Cell> nics, gpus;
    double x = 0, width = 0;
  };
  struct Bar {
    int device = -1, depth = 0;
    double x0 = 0, x1 = 0;
  };

  static std::size_t at(int index) { return static_cast<std::size_t>(index); }
  const HostDevice& device(int index) const { return host_.devices[at(index)]; }
  const Link* link_up(int index) const;
  double share_up(int index) const;
  bool holds_devices(int index) const;
  std::vector<Cell> cells_of(const std::vector<int>& devices, DeviceKind kind) const;
  void place(int index, int depth);
  void add_column(int parent, bool stacked, const std::vector<int>& devices);
  void arrange();
  void set_rows(double top);
  double bar_bottom(int device) const;
  double bar_y(int depth) const;
  Canvas::Stroke stroke(int link) const;
  void draw_column(const Column& column);
  void draw_cell(const Cell& cell, double y, const char* klass);
  void draw_bars();
  void draw_gpu_links();
  void draw_cpu_links();
  int root_of(int index) const;

  Canvas& canvas_;
  const Topology& topology_;
  const HostTemplate& host_;
  const HostTree tree_;
  const std::vector<double>&link_share_, &port_share_;
  double left_ = 0, right_ = 0, bottom_ = 0, x_ = 0;
  double cpu_y_ = 0, nic_y_ = 0, switch_y_ = 0, gpu_y_ = 0, plane_y_ = 0;
  int depth_ = 0;
  std::vector<Column> columns_;
  std::vector<Bar> bars_;
  std::map<int, double> gpu_x_;
  std::map<int, std::vector<Port>> ports_;
};

}  // namespace topomoe
