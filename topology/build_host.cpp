// A regular host from a few numbers: GPUs in equal shares under NUMA nodes and PCIe switches, one NVLink plane or none.
#include <fmt/format.h>

#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class HostBuilder {
 public:
  HostBuilder(const HostShape& shape, const GpuSpec& gpu, const std::string& name) : shape_(shape) {
    host_.name = name;
    host_.gpu = gpu;
    host_.shape = shape;
  }

  HostTemplate run() {
    check();
    for (int i = 0; i < shape_.numa_nodes; ++i) add(DeviceKind::numa, fmt::format("numa{}", i), i);
    const int numa0 = 0;
    // Traffic goes up to the root, through it to the CPU, and down from there: nothing passes but over the root's link.
    if (shape_.cpu_root.GBps_per_direction > 0)
      for (int i = 0; i < shape_.numa_nodes; ++i)
        roots_.push_back(add(DeviceKind::pci_switch, fmt::format("cpu_root{}", i), i));
    for (std::size_t i = 0; i < roots_.size(); ++i)
      join(roots_[i], static_cast<int>(i), LinkKind::cpu_root, shape_.cpu_root, false);
    const int switches = shape_.gpus_per_pci_switch > 0 ? shape_.gpus / shape_.gpus_per_pci_switch : 0;
    const int switch0 = static_cast<int>(host_.devices.size());
    for (int i = 0; i < switches; ++i) {
      const int numa = i * shape_.numa_nodes / switches;
      hang(add(DeviceKind::pci_switch, fmt::format("pci_switch{}", i), numa), numa0 + numa);
    }
    const bool c2c = shape_.c2c.GBps_per_direction > 0;
    for (int i = 0; i < shape_.gpus; ++i) {
      const int numa = i * shape_.numa_nodes / shape_.gpus;
      const int gpu = add(DeviceKind::gpu, fmt::format("gpu{}", i), numa);
      host_.gpus.push_back(gpu);
      if (switches > 0)
        join(gpu, switch0 + i / shape_.gpus_per_pci_switch, LinkKind::pcie, shape_.pcie);
      else if (!c2c)
        hang(gpu, numa0 + numa);
      if (c2c) join(gpu, numa0 + numa, LinkKind::c2c, shape_.c2c);
    }
    for (int i = 0; i < shape_.nics; ++i) {
      const int parents = switches > 0 ? switches : shape_.numa_nodes;
      const int parent = i * parents / shape_.nics;
      const int numa = switches > 0 ? parent * shape_.numa_nodes / switches : parent;
      const int nic = add(DeviceKind::nic, fmt::format("nic{}", i), numa);
      if (switches > 0)
        join(nic, switch0 + parent, LinkKind::pcie, shape_.pcie);
      else
        hang(nic, numa0 + parent);
      host_.nics.push_back({nic, i, fmt::format("nic{}", i), shape_.nic});
    }
    host_.nvlink = Presence::absent;
    if (shape_.kind == "nvswitch") {
      host_.nvlink = Presence::present;
      const int plane = add(DeviceKind::nvswitch, "nvswitch", -1);
      for (const int gpu : host_.gpus) join(gpu, plane, LinkKind::nvlink, shape_.nvlink);
    }
    for (int a = 0; a < shape_.numa_nodes; ++a)
      for (int b = a + 1; b < shape_.numa_nodes; ++b) {
        if (roots_.empty()) {
          join(numa0 + a, numa0 + b, LinkKind::cpu_interconnect, shape_.cpu_interconnect);
          continue;
        }
        join(numa0 + a, roots_[static_cast<std::size_t>(b)], LinkKind::cpu_interconnect, shape_.cpu_interconnect,
             false);
        join(numa0 + b, roots_[static_cast<std::size_t>(a)], LinkKind::cpu_interconnect, shape_.cpu_interconnect,
             false);
      }
    return std::move(host_);
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& value, const std::string& hint) const {
    throw InvalidInput(host_.name + ".shape." + field, value, hint);
  }
  void count(const std::string& field, int value, int low, int high) const {
    if (value < low || value > high) fail(field, std::to_string(value), fmt::format("allowed: {} to {}", low, high));
  }
  void rate(const std::string& field, const Rate& rate, bool needed) const {
    if (needed && !(rate.GBps_per_direction > 0))
      fail(field, fmt::format("{} GB/s", rate.GBps_per_direction), "give a rate above 0, in GBps_per_direction");
  }

  void check() const {
    const HostShape& s = shape_;
    if (s.kind != "nvswitch" && s.kind != "pcie")
      fail("kind", '"' + s.kind + '"', "allowed: nvswitch, pcie; anything else as \"devices\" and \"links\"");
    count("gpus", s.gpus, 1, 512);
    count("numa_nodes", s.numa_nodes, 1, 64);
    count("gpus_per_pci_switch", s.gpus_per_pci_switch, 0, s.gpus);
    count("nics", s.nics, 0, 512);
    if (s.gpus_per_pci_switch > 0 && s.gpus % s.gpus_per_pci_switch != 0)
      fail("gpus_per_pci_switch", std::to_string(s.gpus_per_pci_switch), fmt::format("must divide gpus ({})", s.gpus));
    const int parts = s.gpus_per_pci_switch > 0 ? s.gpus / s.gpus_per_pci_switch : s.gpus;
    if (parts % s.numa_nodes != 0)
      fail("numa_nodes", std::to_string(s.numa_nodes),
           fmt::format("must divide the number of {} ({})", s.gpus_per_pci_switch > 0 ? "PCIe switches" : "GPUs",
                       parts));
    rate("nvlink", s.nvlink, s.kind == "nvswitch");
    rate("pcie", s.pcie, s.gpus_per_pci_switch > 0 || s.nics > 0 || !(s.c2c.GBps_per_direction > 0));
    rate("cpu_interconnect", s.cpu_interconnect, s.numa_nodes > 1);
    rate("nic", s.nic, s.nics > 0);
  }

  int add(DeviceKind kind, std::string name, int numa) {
    host_.devices.push_back({kind, std::move(name), "", numa});
    return static_cast<int>(host_.devices.size()) - 1;
  }
  // By PCIe under a CPU (its device is its number).
  void hang(int device, int numa) {
    if (roots_.empty()) {
      join(device, numa, LinkKind::pcie, shape_.pcie);
      return;
    }
    join(device, roots_[static_cast<std::size_t>(numa)], LinkKind::pcie, shape_.pcie, false);
    join(numa, device, LinkKind::pcie, shape_.pcie, false);
  }
  void join(int src, int dst, LinkKind kind, const Rate& rate, bool both_ways = true) {
    host_.links.push_back(
        {src, dst, kind, rate.GBps_per_direction, rate.latency_us, rate.source, rate.source_note, both_ways});
  }

  const HostShape& shape_;
  HostTemplate host_;
  std::vector<int> roots_;
};

}  // namespace

HostTemplate build_host(const HostShape& shape, const GpuSpec& gpu, const std::string& template_name) {
  return HostBuilder(shape, gpu, template_name).run();
}

}  // namespace topomoe
