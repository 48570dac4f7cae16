// What is wrong by NVML. Links that are down are normal on boards whose links need a bridge, so a GPU is named for them
// only where some of its links are up, or where GPUs beside it have more.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "topology/discover/nvml_gpus.hpp"
#include "topology/host_tree.hpp"
#include "topology/names.hpp"

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

class Checker {
 public:
  Checker(const HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings)
      : host_(host), report_(report), warnings_(warnings), known_(gpus_of(host, report)) {}

  void run() {
    who_is_missing();
    if (known_.empty()) return;
    slots();
    memory();
    down();
    fabric();
    if (host_.nvlink != Presence::unknown) compare_links();
  }

 private:
  void warn(const std::string& line) { warnings_.push_back(host_.name + ": " + line); }

  void who_is_missing() {
    std::vector<std::string> unknown;
    for (const NvmlGpu& gpu : report_.gpus) {
      if (gpu_at(host_, gpu.bus_id) < 0) unknown.push_back(gpu.bus_id);
    }
    if (!unknown.empty())
      warn(fmt::format("NVML lists {} GPUs that are not here (first: {}): hidden from CUDA or from this container?",
                       unknown.size(), unknown.front()));
    std::vector<std::string> silent;
    for (const int gpu : host_.gpus)
      if (known_.count(gpu) == 0 && is_nvidia(gpu)) silent.push_back(host_.devices[at(gpu)].bus_id);
    if (!silent.empty() && !report_.gpus.empty())
      warn(
          fmt::format("{} GPUs are on the PCI bus, but NVML does not list them (first: {}): fallen off the bus, or not "
                      "of this container? (Xid 79 in the kernel log)",
                      silent.size(), silent.front()));
  }
  bool is_nvidia(int gpu) const {
    const std::string_view vendor = attribute(host_.devices[at(gpu)].attributes, "vendor");
    return vendor.empty() || vendor == "0x10de";
  }

  void slots() {
    for (const auto& [index, gpu] : known_)
      if (gpu->pcie_width > 0 && gpu->pcie_width < gpu->pcie_max_width)
        warn(fmt::format("GPU {} runs PCIe x{}, but it and its slot can do x{}: reseat it, check riser and BIOS",
                         gpu->bus_id, gpu->pcie_width, gpu->pcie_max_width));
  }

  // Of the same board, memory differs by what ECC takes; 10% (assumed) is another board.
  void memory() {
    const double said = known_.begin()->second->memory_GiB, taken = host_.gpu.memory_GiB;
    if (host_.gpu.source != Source::unknown && said > 0 && std::abs(said - taken) > 0.1 * taken)
      warn(fmt::format("GPUs have {} GiB by NVML; {} are taken for a {}", short_number(said, 2), short_number(taken),
                       host_.gpu.name));
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
    if (alike == 1 && most > 0)
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
      if (own.state == kFabricDone && own.status != 0)
        warn(fmt::format("GPU {}: registration with the NVLink fabric failed (nvmlReturn_t {})", gpu->bus_id,
                         own.status));
      if (own.is_degraded) warn(fmt::format("GPU {}: its NVLink fabric reports degraded bandwidth", gpu->bus_id));
    }
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
      const std::string_view text = attribute(host_.devices[at(index)].attributes, kLinksLeftOut);
      std::from_chars(text.data(), text.data() + text.size(), left_out);
      here += left_out;
      if (const auto up = static_cast<int>(active_links(*gpu)); counted && up != here)
        warn(
            fmt::format("GPU {} has {} NVLinks up by NVML, but {} are listed: was the list made before a link "
                        "changed, or on another machine?",
                        gpu->bus_id, up, here));
    }
  }

  const HostTemplate& host_;
  const NvmlReport& report_;
  std::vector<std::string>& warnings_;
  const NvmlGpus known_;
};

}  // namespace

NvmlGpus gpus_of(const HostTemplate& host, const NvmlReport& report) {
  NvmlGpus out;
  for (const NvmlGpu& gpu : report.gpus)
    if (const int index = gpu_at(host, gpu.bus_id); index >= 0) out.emplace(index, &gpu);
  return out;
}

int gpu_at(const HostTemplate& host, const std::string& bus_id) {
  for (const int gpu : host.gpus)
    if (host.devices[at(gpu)].bus_id == bus_id) return gpu;
  return -1;
}

void check_nvml(const HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings) {
  Checker(host, report, warnings).run();
}

}  // namespace topomoe
