// NVML of this machine -> NvmlReport. A function that the driver lacks or that fails costs its own answer and one
// line, never the rest.
#include <fmt/format.h>

#include <algorithm>

#include "topology/discover/nvml.hpp"
#include "topology/discover/nvml_abi.hpp"
#include "topology/discover/shared_library.hpp"

namespace topomoe {
namespace {

using namespace nvml;

std::string bus_id_of(const PciInfo& pci) {
  return fmt::format("{:04x}:{:02x}:{:02x}.0", pci.domain, pci.bus, pci.device);
}

// Empty where it is zero.
std::string uuid_text(const unsigned char* bytes) {
  if (std::all_of(bytes, bytes + 16, [](unsigned char byte) { return byte == 0; })) return {};
  std::string text;
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

class Reader {
 public:
  Reader(const char* library, const std::function<std::string(const std::string&)>& pci_class)
      : library_{library}, pci_class_(pci_class) {}

  NvmlReport run() {
    out_.has_library = static_cast<bool>(library_);
    if (!out_.has_library) return std::move(out_);
    if (const int error = call<>("nvmlInit_v2"); error != kSuccess) {
      warn(error == kDriverNotLoaded ? std::string("the NVIDIA driver is not loaded (lsmod | grep nvidia)")
                                     : "does not start: nvmlInit_v2: " + text_of(error));
      return std::move(out_);
    }
    char driver[128] = {};
    if (ask<char*, unsigned>("", "nvmlSystemGetDriverVersion", driver, 96U)) out_.driver = driver;
    unsigned count = 0;
    if (!ask<unsigned*>("", "nvmlDeviceGetCount_v2", &count))
      count = 0;
    else if (count == 0)
      warn("the driver is there, but no GPU");
    for (unsigned i = 0; i < count; ++i) read_gpu(i);
    call<>("nvmlShutdown");
    return std::move(out_);
  }

 private:
  void warn(const std::string& line) {
    if (const std::string full = "NVML: " + line;
        std::find(out_.warnings.begin(), out_.warnings.end(), full) == out_.warnings.end())
      out_.warnings.push_back(full);
  }
  std::string text_of(int error) const {
    auto* text = library_.find<const char*(int)>("nvmlErrorString");
    const char* said = text == nullptr ? nullptr : text(error);
    return fmt::format("{} (nvmlReturn_t {})", said == nullptr ? "error" : said, error);
  }

  static constexpr int kMissing = -1;
  template <class... Args>
  int call(const char* name, Args... args) const {
    auto* function = library_.find<int(Args...)>(name);
    return function == nullptr ? kMissing : function(args...);
  }
  // True where it answered. What a GPU does not support is no fault.
  template <class... Args>
  bool ask(const std::string& of, const char* name, Args... args) {
    return answered(of, name, call<Args...>(name, args...));
  }
  bool answered(const std::string& of, const char* name, int result) {
    if (result == kMissing)
      warn(fmt::format("driver {} has no {}", out_.driver.empty() ? "of unknown version" : out_.driver, name));
    else if (result != kSuccess && result != kNotSupported)
      warn(fmt::format("{}{}: {}", of.empty() ? "" : of + ": ", name, text_of(result)));
    return result == kSuccess;
  }

  void read_gpu(unsigned number) {
    const std::string place = fmt::format("GPU {}", number);
    Device device = nullptr;
    Roomy<PciInfo> pci;
    if (!ask<unsigned, Device*>(place, "nvmlDeviceGetHandleByIndex_v2", number, &device)) return;
    if (!ask<Device, PciInfo*>(place, "nvmlDeviceGetPciInfo_v3", device, &pci.value)) return;
    NvmlGpu gpu;
    gpu.bus_id = bus_id_of(pci.value);
    const std::string of = "GPU " + gpu.bus_id;
    char name[128] = {};
    if (ask<Device, char*, unsigned>(of, "nvmlDeviceGetName", device, name, 96U)) gpu.name = name;
    int major = 0, minor = 0;
    if (ask<Device, int*, int*>(of, "nvmlDeviceGetCudaComputeCapability", device, &major, &minor))
      gpu.sm = 10 * major + minor;
    Roomy<Memory> memory;
    if (ask<Device, Memory*>(of, "nvmlDeviceGetMemoryInfo", device, &memory.value))
      gpu.memory_GiB = static_cast<double>(memory.value.total) / (1U << 30);
    gpu.pcie_max_generation = number_of(of, device, "nvmlDeviceGetMaxPcieLinkGeneration");
    gpu.pcie_width = number_of(of, device, "nvmlDeviceGetCurrPcieLinkWidth");
    gpu.pcie_max_width = number_of(of, device, "nvmlDeviceGetMaxPcieLinkWidth");
    read_links(of, device, gpu);
    read_fabric(of, device, gpu.fabric);
    out_.gpus.push_back(std::move(gpu));
  }

  int number_of(const std::string& of, Device device, const char* name) {
    unsigned value = 0;
    return ask<Device, unsigned*>(of, name, device, &value) && value < 1024 ? static_cast<int>(value) : 0;
  }

  void read_links(const std::string& of, Device device, NvmlGpu& gpu) {
    gpu.links_known = true;
    for (unsigned i = 0; i < kMostLinks; ++i) {
      int is_active = 0;
      const int result = call<Device, unsigned, int*>("nvmlDeviceGetNvLinkState", device, i, &is_active);
      if (result == kInvalidArgument || result == kNotSupported) continue;  // it has no such link
      if (!answered(of, "nvmlDeviceGetNvLinkState", result)) {
        gpu.links_known = false;
        gpu.links.clear();
        return;
      }
      NvmlLink link;
      link.number = static_cast<int>(i);
      link.active = is_active == 1;
      if (link.active) read_remote(of, device, i, link);
      gpu.links.push_back(std::move(link));
    }
  }

  void read_remote(const std::string& of, Device device, unsigned number, NvmlLink& link) {
    Roomy<PciInfo> pci;
    if (ask<Device, unsigned, PciInfo*>(of, "nvmlDeviceGetNvLinkRemotePciInfo_v2", device, number, &pci.value))
      link.remote_bus_id = bus_id_of(pci.value);
    int type = -1;
    if (ask<Device, unsigned, int*>(of, "nvmlDeviceGetNvLinkRemoteDeviceType", device, number, &type))
      link.remote = type == kRemoteGpu      ? NvmlLink::Remote::gpu
                    : type == kRemoteCpu    ? NvmlLink::Remote::cpu
                    : type == kRemoteSwitch ? NvmlLink::Remote::nvswitch
                                            : NvmlLink::Remote::unknown;
    if (link.remote != NvmlLink::Remote::unknown || link.remote_bus_id.empty()) return;
    // By the class on the PCI bus, as NCCL does: 0680 a bridge of another kind (NVSwitch), 068001 POWER's CPU.
    const std::string klass =
        link.remote_bus_id.starts_with("fffffff:ff") ? "0x068000" : pci_class_(link.remote_bus_id);
    link.remote = klass.starts_with("0x068001") ? NvmlLink::Remote::cpu
                  : klass.starts_with("0x0680") ? NvmlLink::Remote::nvswitch
                  : klass.starts_with("0x03")   ? NvmlLink::Remote::gpu
                                                : NvmlLink::Remote::unknown;
  }

  void read_fabric(const std::string& of, Device device, NvmlFabric& fabric) {
    Roomy<FabricInfoV2> versioned;
    versioned.value.version = kFabricInfoV2;
    const int result = call<Device, FabricInfoV2*>("nvmlDeviceGetGpuFabricInfoV", device, &versioned.value);
    if (result != kMissing) {
      if (!answered(of, "nvmlDeviceGetGpuFabricInfoV", result)) return;
      take(versioned.value, fabric);
      fabric.is_degraded = (versioned.value.health_mask & kDegradedBits) == kDegraded;
      return;
    }
    Roomy<FabricInfo> plain;
    if (ask<Device, FabricInfo*>(of, "nvmlDeviceGetGpuFabricInfo", device, &plain.value)) take(plain.value, fabric);
  }
  template <class Info>
  static void take(const Info& info, NvmlFabric& fabric) {
    fabric.state = info.state;
    if (info.state != kFabricComplete) return;
    fabric.status = info.status;
    fabric.cluster = uuid_text(info.cluster_uuid);
    fabric.clique = info.clique_id;
  }

  SharedLibrary library_;
  const std::function<std::string(const std::string&)>& pci_class_;
  NvmlReport out_;
};

}  // namespace

NvmlReport read_nvml(const char* library, const std::function<std::string(const std::string&)>& pci_class) {
  return Reader(library, pci_class).run();
}

}  // namespace topomoe
