// NvmlReport -> edits of a host: what NVML alone knows. What is said of it: check_nvml.cpp. Both pure.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "topology/discover/nvml_gpus.hpp"
#include "topology/known_rates.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

// GT/s of PCIe generations 1 to 6, as sysfs and NCCL write them.
const char* speed_text(int generation) {
  constexpr std::array kSpeeds{"2.5 GT/s PCIe",  "5.0 GT/s PCIe",  "8.0 GT/s PCIe",
                               "16.0 GT/s PCIe", "32.0 GT/s PCIe", "64.0 GT/s PCIe"};
  return generation < 1 || generation > 6 ? nullptr : kSpeeds[at(generation - 1)];
}

class Adder {
 public:
  Adder(HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings)
      : host_(host),
        warnings_(warnings),
        knows_links_(host.nvlink != Presence::unknown),
        known_(gpus_of(host, report)) {}

  void run() {
    if (known_.empty()) return;
    for (const auto& [device, gpu] : known_) {
      add_clique(device, gpu->fabric);
      if (!knows_links_) describe(device, *gpu);
    }
    describe_spec();
    if (!knows_links_) add_links();
  }

 private:
  HostDevice& device(int index) { return host_.devices[at(index)]; }
  void warn(const std::string& line) { warnings_.push_back(host_.name + ": " + line); }
  void set_default(int index, const char* name, const std::string& value) {
    std::vector<Attribute>& own = device(index).attributes;
    if (attribute(own, name).empty() && !value.empty()) own.push_back({name, value});
  }

  bool is_nvlink_board(int gpu) {
    XmlPci board;
    board.vendor = attribute(device(gpu).attributes, "vendor");
    board.device = attribute(device(gpu).attributes, "device");
    return has_nvlink_by_design(board);
  }

  void describe(int index, const NvmlGpu& gpu) {
    set_default(index, "gpu.model", gpu.name);
    if (gpu.sm > 0) set_default(index, "gpu.sm", std::to_string(gpu.sm));
    const char* speed = speed_text(gpu.pcie_max_generation);
    if (speed == nullptr || gpu.pcie_width <= 0) return;
    // The generation that it runs at falls when it idles, so hwloc's present speed says little.
    set_default(index, "link_speed", speed);
    set_default(index, "link_width", std::to_string(gpu.pcie_width));
    const Rate rate = pcie_rate(speed, gpu.pcie_width);
    for (Link& link : host_.links) {
      if (link.kind != LinkKind::pcie || link.src != index) continue;
      link.GBps_per_direction = rate.GBps_per_direction;
      link.source = rate.source;
      link.source_note = rate.source_note + ", by NVML";
    }
  }

  void describe_spec() {
    const NvmlGpu& first = *known_.begin()->second;
    const double memory_GiB = std::round(first.memory_GiB * 100) / 100;
    if (host_.gpu.source == Source::unknown) {
      if (!first.name.empty()) host_.gpu.name = first.name;
      if (memory_GiB > 0) host_.gpu.memory_GiB = memory_GiB;
    }
  }

  void add_clique(int index, const NvmlFabric& fabric) {
    if (fabric.state != kFabricDone || fabric.status != 0 || fabric.cluster.empty()) return;
    set_default(index, "fabric_cluster", fabric.cluster);
    set_default(index, "fabric_clique", std::to_string(fabric.clique));
  }

  // To each end by device index, kPlane or kCpu.
  static constexpr int kPlane = -1, kCpu = -2, kNowhere = -3;
  std::map<int, int> ends_of(const NvmlGpu& gpu) const {
    std::map<int, int> ends;
    for (const NvmlLink& link : gpu.links) {
      if (!link.active) continue;
      const int other = gpu_at(host_, link.remote_bus_id);
      ++ends[other >= 0                                  ? other
             : link.remote == NvmlLink::Remote::nvswitch ? kPlane
             : link.remote == NvmlLink::Remote::cpu      ? kCpu
                                                         : kNowhere];
    }
    return ends;
  }

  void add_links() {
    bool any = false, all_known = true;
    for (const int gpu : host_.gpus) {
      const auto own = known_.find(gpu);
      const bool is_known = own != known_.end() && own->second->links_known;
      all_known = all_known && is_known;
      // Virtual machines and MIG hide what the board has.
      if (!is_known || !own->second->links.empty() || !is_nvlink_board(gpu)) continue;
      all_known = false;
      warn(fmt::format("GPU {} is a board with NVLink, but NVML knows no link of it", own->second->bus_id));
    }
    std::map<std::pair<int, int>, int> pairs;
    for (const auto& [index, gpu] : known_)
      for (const auto& [end, count] : ends_of(*gpu)) {
        any = true;
        if (end >= 0)
          pairs[{index, end}] = count;
        else if (end == kPlane)
          join(index, plane(), *gpu, count, true);
        else if (end == kCpu && device(index).numa >= 0)
          join(index, device(index).numa, *gpu, count, true);
        else
          left_out(index, *gpu, count);
      }
    for (const auto& [ends, count] : pairs) {
      const auto [src, dst] = ends;
      const auto back = pairs.find({dst, src});
      // Of a GPU that NVML did not tell about, the other end speaks.
      const auto other = known_.find(dst);
      const bool is_silent = other == known_.end() || !other->second->links_known;
      const int reverse = back != pairs.end() ? back->second : is_silent ? count : 0;
      if (reverse == count && (src < dst || back == pairs.end())) join(src, dst, *known_.at(src), count, true);
      if (reverse == count) continue;
      join(src, dst, *known_.at(src), count, false);
      warn(fmt::format("GPU {} has {} NVLinks up to {}, but {} back", device(src).bus_id, count, device(dst).bus_id,
                       reverse));
    }
    if (any || all_known) host_.nvlink = any ? Presence::present : Presence::absent;
  }

  int plane() {
    for (std::size_t i = 0; i < host_.devices.size(); ++i)
      if (host_.devices[i].kind == DeviceKind::nvswitch) return static_cast<int>(i);
    host_.devices.push_back({DeviceKind::nvswitch, "nvswitch", "", -1, {}});
    return static_cast<int>(host_.devices.size()) - 1;
  }

  void left_out(int index, const NvmlGpu& gpu, int count) {
    warn(fmt::format("GPU {}: {} NVLinks go to what is neither a GPU here nor a switch; left out", gpu.bus_id, count));
    device(index).attributes.push_back({kLinksLeftOut, std::to_string(count)});
  }

  void join(int src, int dst, const NvmlGpu& gpu, int count, bool both_ways) {
    Rate each = nvlink_rate(gpu.sm);
    if (!(each.GBps_per_direction > 0))
      each = {25, each.latency_us, Source::assumed, fmt::format("NVLink generation of sm {} not known", gpu.sm)};
    host_.links.push_back(
        {src, dst, LinkKind::nvlink, count * each.GBps_per_direction, each.latency_us, each.source,
         fmt::format("{}, {} x {} GB/s, up by NVML", each.source_note, count, short_number(each.GBps_per_direction, 4)),
         both_ways, count});
  }

  HostTemplate& host_;
  std::vector<std::string>& warnings_;
  const bool knows_links_;
  const NvmlGpus known_;
};

}  // namespace

void add_nvml(HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings) {
  check_nvml(host, report, warnings);
  Adder(host, report, warnings).run();
}

}  // namespace topomoe
