// The picture as a whole: title, legend, hosts side by side, the fabric above them.
#include "topomoe/draw.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "topology/counted.hpp"
#include "topology/names.hpp"
#include "topology/show/draw_fabric.hpp"
#include "topology/show/host_matrix.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kLeft = 20;
constexpr std::size_t kMostInFull = 4;  // templates; the others are boxes with their names
constexpr std::size_t kMostSmall = 200;
constexpr std::size_t kMostExceptions = 4;

class Picture {
 public:
  Picture(const Router& router, const DrawnTraffic& traffic)
      : router_(router),
        topology_(router.topology()),
        traffic_(traffic),
        load_(router, traffic.load ? &*traffic.load : nullptr) {}

  std::string draw() {
    draw_head();
    const double fabric_top = y_ + 10, host_top = fabric_top + fabric_height(topology_) + (topology_.fabric ? 0 : 10);
    const std::vector<DrawnHost> hosts = draw_hosts(host_top);
    draw_fabric(canvas_, router_, load_, fabric_top, host_top, hosts);
    return canvas_.finish(title());
  }

 private:
  std::string title() const {
    const int hosts = topology_.host_count(), gpus = topology_.gpu_count();
    return fmt::format("{}: {}, {}", topology_.name, counted(hosts, "host"),
                       gpus == 0 ? "no GPUs described" : counted(gpus, "GPU"));
  }

  void line(const std::string& words, const char* klass = "soft") {
    canvas_.text(kLeft, y_, words, 11, "start", klass);
    y_ += 18;
  }

  void draw_head() {
    canvas_.text(kLeft, 30, title(), 17, "start");
    y_ = 50;
    draw_widths();
    if (traffic_.load)
      draw_colours(*traffic_.load);
    else
      line("lines are not coloured by load: " + traffic_.without);
    if (!topology_.fabric) return;
    const auto& exceptions = topology_.fabric->exceptions;
    for (std::size_t i = 0; i < std::min(exceptions.size(), kMostExceptions); ++i)
      line(exceptions[i].factor == 0
               ? exceptions[i].name + " is dead"
               : fmt::format("{} at {} of its rate", exceptions[i].name, short_number(exceptions[i].factor, 4)),
           "ink");
    if (exceptions.size() > kMostExceptions)
      line(
          fmt::format("and {} cables or switches more that are dead or degraded", exceptions.size() - kMostExceptions));
  }

  void draw_widths() {
    const std::string words = "rates in GB/s, one direction; width by rate:";
    canvas_.text(kLeft, y_, words, 11, "start", "soft");
    double x = kLeft + 0.45 * 11 * static_cast<double>(words.size()) + 10;
    for (const double GBps : {16.0, 64.0, 450.0, 1600.0}) {
      canvas_.line(x, y_ - 4, x + 22, y_ - 4, {GBps, -1, "", false});
      canvas_.text(x + 27, y_, short_number(GBps), 11, "start", "soft");
      x += 66;
    }
    y_ += 18;
  }

  void draw_colours(const PatternLoad& load) {
    line(fmt::format("{}, {} MiB a GPU: at least {} us, {} GB/s bus bandwidth a GPU; slowest: {} ({})", load.pattern,
                     short_number(load.buffer_bytes / (1 << 20)), short_number(load.bottleneck.seconds * 1e6, 1),
                     short_number(load.bus_GBps), load.bottleneck.name, load.bottleneck.klass),
         "ink");
    const std::string words = "time of a link over the slowest's:";
    canvas_.text(kLeft, y_, words, 11, "start", "soft");
    double x = kLeft + 0.45 * 11 * static_cast<double>(words.size()) + 10;
    struct Key {
      double share;
      const char* words;
    };
    constexpr std::array<Key, 6> kKeys{
        {{0, "idle"}, {0.1, "to 25%"}, {0.3, "to 50%"}, {0.6, "to 75%"}, {0.9, "below 100%"}, {1, "slowest"}}};
    for (const Key& key : kKeys) {
      canvas_.box(Canvas::Layer::box, x, y_ - 10, 18, 11, std::string("key ") + load_class(key.share), 2);
      canvas_.text(x + 23, y_, key.words, 11, "start", "soft");
      x += 38 + 6.2 * static_cast<double>(std::string_view(key.words).size());
    }
    y_ += 18;
  }

  std::string host_title(std::size_t index) const {
    const HostTemplate& host = topology_.templates[index];
    std::string out = fmt::format("{} x {}", host.name, hosts_of(topology_, index));
    if (!host.gpu.name.empty()) out += fmt::format(" ({})", host.gpu.name);
    return out;
  }

  std::vector<DrawnHost> draw_hosts(double top) {
    std::vector<DrawnHost> out;
    std::vector<std::size_t> full, small;
    std::vector<std::size_t> order(topology_.templates.size());
    std::vector<int> hosts(order.size(), 0);
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    for (const HostGroup& group : topology_.groups)
      hosts[static_cast<std::size_t>(group.template_index)] += group.count;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return hosts[a] > hosts[b]; });
    for (const std::size_t own : order) {
      const bool in_full =
          full.size() < kMostInFull && hosts[own] > 0 && HostDrawing(canvas_, topology_, own, load_).is_drawn();
      (in_full ? full : small).push_back(own);
    }
    double x = kLeft, bottom = top;
    for (const std::size_t own : full) {
      HostDrawing drawing(canvas_, topology_, own, load_);
      const double right = drawing.draw(x, top, host_title(own), hosts_of(topology_, own) > 1);
      out.push_back({static_cast<int>(own), x, right, drawing.nic_y(), drawing.ports_by_rail()});
      x = right + 30;
      bottom = std::max(bottom, drawing.bottom());
    }
    // Where nothing is drawn in full, the boxes stand below the fabric themselves.
    double y = full.empty() ? top : bottom + 20;
    x = kLeft;
    const std::size_t left_out = small.size() - std::min(small.size(), kMostSmall);
    small.resize(small.size() - left_out);
    for (const std::size_t own : small) {
      const HostTemplate& host = topology_.templates[own];
      const std::string what = host.gpus.empty() && host.nics.empty()
                                   ? std::string("nothing is known of what is in it")
                                   : counted(host.gpus.size(), "GPU") + ", " + counted(host.nics.size(), "NIC");
      const std::string title = host_title(own);
      const double width = std::max({260.0, 7.3 * static_cast<double>(title.size()) + 24});
      if (x > kLeft && x + width > 1600) x = kLeft, y += 62;
      canvas_.box(Canvas::Layer::back, x, y, width, 48, "frame", 8);
      canvas_.text(x + 14, y + 21, title, 12, "start");
      canvas_.text(x + 14, y + 38, what, 10.5, "start", "soft");
      if (full.empty() && hosts_of(topology_, own) > 0) out.push_back({static_cast<int>(own), x, x + width, top, {}});
      x += width + 20;
    }
    if (left_out > 0)
      canvas_.text(kLeft, y + 68, fmt::format("and {} kinds of hosts more", left_out), 11, "start", "soft");
    return out;
  }

  const Router& router_;
  const Topology& topology_;
  const DrawnTraffic& traffic_;
  const DrawnLoad load_;
  Canvas canvas_;
  double y_ = 0;
};

}  // namespace

DrawnTraffic usual_traffic(const Router& router) {
  DrawnTraffic out;
  try {
    out.load = pattern_load(router, TrafficPattern::alltoall, 64 << 20);  // where bandwidth counts and latency does not
  } catch (const InvalidInput& error) {
    out.without = error.field + ": " + error.value;
  }
  return out;
}

std::string draw_svg(const Router& router, const DrawnTraffic& traffic) { return Picture(router, traffic).draw(); }

std::string write_svg(const Topology& topology) {
  const Router router(topology);
  return draw_svg(router, usual_traffic(router));
}

}  // namespace topomoe
