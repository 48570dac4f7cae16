// NvmlReport -> edits of a host. Pure: all that is decided about what NVML said is decided here.
//
// Links that are down are normal on boards whose links need a bridge, so a GPU is named for them only where some of its
// links are up, or where GPUs beside it have more.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "topology/host_tree.hpp"
#include "topology/known_rates.hpp"
#include "topology/names.hpp"
#include "topology/nvml.hpp"

namespace topomoe {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

std::size_t active_links(const NvmlGpu& gpu) {
  return static_cast<std::size_t>(
      std::count_if(gpu.links.begin(), gpu.links.end(), [](const NvmlLink& link) { return link.active; }));
}

std::string down_links(const NvmlGpu& gpu) {
  std::string numbers;
  for (const NvmlLink& link : gpu.links)
    if (!link.active) numbers += (numbers.empty() ? "" : ", ") + std::to_string(link.number);
  return numbers;
}

// GT/s of PCIe generations 1 to 6, as sysfs and NCCL write them.
const char* speed_text(int generation) {
  constexpr std::array kSpeeds{"2.5 GT/s PCIe",  "5.0 GT/s PCIe",  "8.0 GT/s PCIe",
                               "16.0 GT/s PCIe", "32.0 GT/s PCIe", "64.0 GT/s PCIe"};
  return generation < 1 || generation > 6 ? nullptr : kSpeeds[at(generation - 1)];
}

class Adder {
 public:
  Adder(HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings)
      : host_(host), report_(report), warnings_(warnings), knows_links_(host.nvlink != Presence::unknown) {}

  void run() {
    match();
    if (known_.empty()) return;
    for (const auto& [device, gpu] : known_) describe(device, *gpu);
    describe_spec();
    down();
    fabric();
    if (knows_links_)
      compare_links();
    else
      add_links();
  }

 private:
  HostDevice& device(int index) { return host_.devices[at(index)]; }
  void warn(const std::string& line) { warnings_.push_back(host_.name + ": " + line); }
  int gpu_at(const std::string& bus_id) const {
    for (const int gpu : host_.gpus)
      if (host_.devices[at(gpu)].bus_id == bus_id) return gpu;
    return -1;
  }
  void set_default(int index, const char* name, const std::string& value) {
    std::vector<Attribute>& own = device(index).attributes;
    if (attribute(own, name).empty() && !value.empty()) own.push_back({name, value});
  }

  void match() {
    std::vector<std::string> unknown;
    for (const NvmlGpu& gpu : report_.gpus) {
      const int index = gpu_at(gpu.bus_id);
      if (index >= 0)
        known_.emplace(index, &gpu);
      else
        unknown.push_back(gpu.bus_id);
    }
    if (!unknown.empty())
      warn(fmt::format("NVML lists {} GPUs that are not here (first: {}): hidden from CUDA or from this container?",
                       unknown.size(), unknown.front()));
    std::vector<std::string> silent;
    for (const int gpu : host_.gpus)
      if (known_.count(gpu) == 0 && is_nvidia(gpu)) silent.push_back(device(gpu).bus_id);
    if (!silent.empty() && !report_.gpus.empty())
      warn(
          fmt::format("{} GPUs are on the PCI bus, but NVML does not list them (first: {}): fallen off the bus, or not "
                      "of this container? (Xid 79 in the kernel log)",
                      silent.size(), silent.front()));
  }
  bool is_nvidia(int gpu) {
    const std::string_view vendor = attribute(device(gpu).attributes, "vendor");
    return vendor.empty() || vendor == "0x10de";
  }

  bool is_nvlink_board(int gpu) {
    XmlPci board;
    board.vendor = attribute(device(gpu).attributes, "vendor");
    board.device = attribute(device(gpu).attributes, "device");
    return has_nvlink_by_design(board);
  }

  void describe(int index, const NvmlGpu& gpu) {
    if (gpu.pcie_width > 0 && gpu.pcie_width < gpu.pcie_max_width)
      warn(fmt::format("GPU {} runs PCIe x{}, but it and its slot can do x{}: reseat it, check riser and BIOS",
                       gpu.bus_id, gpu.pcie_width, gpu.pcie_max_width));
    if (knows_links_) return;
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
      host_.gpu.memory_GiB = memory_GiB;
    } else if (memory_GiB > 0 && std::abs(memory_GiB - host_.gpu.memory_GiB) > 0.1 * host_.gpu.memory_GiB) {
      warn(fmt::format("GPUs have {} GiB by NVML; {} are taken for a {}", short_number(memory_GiB),
                       short_number(host_.gpu.memory_GiB), host_.gpu.name));
    }
  }

  void down() {
    std::size_t most = 0, alike = 0, ports = 0;
    for (const auto& [index, gpu] : known_) most = std::max(most, active_links(*gpu));
    for (const auto& [index, gpu] : known_) {
      if (active_links(*gpu) == gpu->links.size()) continue;
      if (active_links(*gpu) == most) {
        ++alike, ports = std::max(ports, gpu->links.size());
        continue;
      }
      warn(fmt::format("GPU {} has {} of {} NVLinks up (down: {}), GPUs beside it {}: nvidia-smi nvlink --status",
                       gpu->bus_id, active_links(*gpu), gpu->links.size(), down_links(*gpu), most));
    }
    if (alike == 1 && most > 0 && known_.size() > 1)
      for (const auto& [index, gpu] : known_)
        if (active_links(*gpu) == most && most < gpu->links.size())
          warn(fmt::format("GPU {} has {} of {} NVLinks up (down: {})", gpu->bus_id, most, gpu->links.size(),
                           down_links(*gpu)));
    if (alike > 1 && most > 0)
      warn(fmt::format("{} GPUs have {} of {} NVLinks up: by design where boards are joined by bridges, else a fault",
                       alike, most, ports));
  }

  void fabric() {
    for (const auto& [index, gpu] : known_) {
      const NvmlFabric& own = gpu->fabric;
      if (own.state == 1 || own.state == 2)
        warn(
            fmt::format("GPU {} is not registered with its NVLink fabric ({}): is nvidia-fabricmanager (or IMEX) "
                        "running?",
                        gpu->bus_id, own.state == 1 ? "not started" : "in progress"));
      if (own.state == 3 && own.status != 0)
        warn(fmt::format("GPU {}: registration with the NVLink fabric failed (nvmlReturn_t {})", gpu->bus_id,
                         own.status));
      if (own.is_degraded) warn(fmt::format("GPU {}: its NVLink fabric reports degraded bandwidth", gpu->bus_id));
      if (own.state != 3 || own.status != 0 || own.cluster.empty()) continue;
      set_default(index, "fabric_cluster", own.cluster);
      set_default(index, "fabric_clique", std::to_string(own.clique));
    }
  }

  // To each end by device index, kPlane or kCpu.
  static constexpr int kPlane = -1, kCpu = -2, kNowhere = -3;
  std::map<int, int> ends_of(const NvmlGpu& gpu) const {
    std::map<int, int> ends;
    for (const NvmlLink& link : gpu.links) {
      if (!link.active) continue;
      const int other = gpu_at(link.remote_bus_id);
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

  void compare_links() {
    for (const auto& [index, gpu] : known_) {
      if (!gpu->links_known) continue;
      int here = 0;
      bool counted = true;
      for (const Link& link : host_.links) {
        if (!joins_gpus(link) || (link.src != index && !(link.both_ways && link.dst == index))) continue;
        here += link.count;
        counted = counted && link.count > 0;
      }
      int left_out = 0;
      const std::string_view text = attribute(device(index).attributes, kLinksLeftOut);
      std::from_chars(text.data(), text.data() + text.size(), left_out);
      here += left_out;
      if (const auto up = static_cast<int>(active_links(*gpu)); counted && up != here)
        warn(
            fmt::format("GPU {} has {} NVLinks up by NVML, but {} are listed: was the list made before a link "
                        "changed, or on another machine?",
                        gpu->bus_id, up, here));
    }
  }

  HostTemplate& host_;
  const NvmlReport& report_;
  std::vector<std::string>& warnings_;
  const bool knows_links_;
  std::map<int, const NvmlGpu*> known_;  // by device
};

}  // namespace

void add_nvml(HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings) {
  Adder(host, report, warnings).run();
}

}  // namespace topomoe
