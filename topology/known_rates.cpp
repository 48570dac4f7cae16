#include "topology/known_rates.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <string_view>

#include "topology/names.hpp"

namespace topomoe {
namespace {

constexpr double kPcieLatency_us = 0.5;
constexpr double kNvlinkLatency_us = 0.3;
constexpr double kCpuLatency_us = 0.3;
constexpr double kNetLatency_us = 1.0;

struct KnownGpu {
  std::string_view device;
  const char* name;
  double memory_GiB, hbm_GBps, bf16_TFLOPps, fp8_TFLOPps, fp32_TFLOPps;
  int sms;
  bool nvlink;  // never sold without
};

// PCI device ids of vendor 0x10de, from memory; figures of the datasheets.
constexpr std::array kGpus{
    KnownGpu{"0x1db1", "V100 SXM2 16GB", 16, 900, 0, 0, 15.7, 80, true},
    KnownGpu{"0x1db5", "V100 SXM2 32GB", 32, 900, 0, 0, 15.7, 80, true},
    KnownGpu{"0x20b0", "A100 SXM 40GB", 40, 1555, 312, 0, 19.5, 108, true},
    KnownGpu{"0x20b2", "A100 SXM 80GB", 80, 2039, 312, 0, 19.5, 108, true},
    KnownGpu{"0x20b5", "A100 PCIe 80GB", 80, 1935, 312, 0, 19.5, 108, false},
    KnownGpu{"0x2204", "RTX 3090", 24, 936, 71, 0, 35.6, 82, false},
    KnownGpu{"0x2230", "RTX A6000", 48, 768, 155, 0, 38.7, 84, false},
    KnownGpu{"0x2330", "H100 SXM 80GB", 80, 3350, 989, 1978, 67, 132, true},
    KnownGpu{"0x2335", "H200 SXM 141GB", 140.4, 4800, 989, 1978, 67, 132, true},
    KnownGpu{"0x2684", "RTX 4090", 24, 1008, 165, 330, 82.6, 128, false},
    KnownGpu{"0x26b9", "L40S", 44.99, 864, 362, 733, 91.6, 142, false},
    KnownGpu{"0x2901", "B200 SXM", 180, 7700, 2250, 4500, 75, 148, true},
    KnownGpu{"0x2941", "GB200", 185, 8000, 2500, 5000, 80, 148, true},
};

const KnownGpu* find_gpu(const XmlPci& pci) {
  if (pci.vendor != "0x10de") return nullptr;
  for (const KnownGpu& known : kGpus)
    if (known.device == pci.device) return &known;
  return nullptr;
}

}  // namespace

Rate pcie_rate(const std::string& link_speed, int link_width) {
  double GTps = 0;
  const auto [end, error] = std::from_chars(link_speed.data(), link_speed.data() + link_speed.size(), GTps);
  const bool known =
      error == std::errc{} && GTps >= 1 && GTps <= 1000 &&
      std::string_view(end, static_cast<std::size_t>(link_speed.data() + link_speed.size() - end)).starts_with(" GT/s");
  if (!known) GTps = 8;
  const int lanes = link_width > 0 ? link_width : 16;
  const double coding = GTps < 8 ? 0.8 : 1.0;  // 8b/10b before Gen3
  Rate rate{GTps * lanes / 8 * coding, kPcieLatency_us, Source::datasheet, ""};
  rate.source_note = fmt::format("PCIe {} GT/s x {} lanes", short_number(GTps), lanes);
  if (!known || link_width <= 0) {
    rate.source = Source::assumed;
    rate.source_note += fmt::format("; the file gives no link {}, NCCL's fallback taken",
                                    known ? "width" : (link_width > 0 ? "speed" : "speed and width"));
  }
  return rate;
}

Rate nvlink_rate(int sm) {
  Rate rate{0, kNvlinkLatency_us, Source::datasheet, ""};
  if (sm >= 60 && sm < 70)
    rate.GBps_per_direction = 20;
  else if (sm >= 70 && sm < 86)
    rate.GBps_per_direction = 25;
  else if (sm >= 86 && sm < 90)
    rate.GBps_per_direction = 14.0625;  // 4 lanes x 28.125 Gb/s
  else if (sm >= 90 && sm < 100)
    rate.GBps_per_direction = 25;
  else if (sm >= 100 && sm < 130)
    rate.GBps_per_direction = 50;
  rate.source_note = fmt::format("NVLink of sm {}", sm);
  return rate;
}

Rate xgmi_rate(const std::string& gcn) {
  const bool mi300 = gcn.find("94") != std::string::npos || gcn.find("95") != std::string::npos;
  const bool mi200 = gcn == "910" || gcn.find("90a") != std::string::npos;
  const double GBps = mi300 ? 64 : mi200 ? 50 : 46;
  return {GBps, kNvlinkLatency_us, Source::assumed,
          fmt::format("XGMI of {}, raw rate from memory", gcn.empty() ? "an unnamed architecture" : gcn)};
}

double nccl_nvlink_GBps(int sm) {
  return sm >= 130 || sm < 60 ? 0 : sm >= 100 ? 40.1 : sm >= 90 ? 20.6 : sm >= 86 ? 12 : sm >= 70 ? 20 : 18;
}

Rate cpu_interconnect_rate(const XmlCpu& cpu) {
  double GBps = 40;
  const char* what = "CPU not known";
  if (cpu.vendor == "GenuineIntel") {
    // UPI: 10.4 GT/s x 2 bytes a link (Skylake), 11.2 (Ice Lake), 16 (Sapphire Rapids), 24 (Granite Rapids).
    if (cpu.model >= 0xad) {
      GBps = 192;
      what = "4 UPI links at 24 GT/s";
    } else if (cpu.model >= 0x8f) {
      GBps = 128;
      what = "4 UPI links at 16 GT/s";
    } else if (cpu.model >= 0x6a) {
      GBps = 67.2;
      what = "3 UPI links at 11.2 GT/s";
    } else if (cpu.model >= 0x55) {
      GBps = 62.4;
      what = "3 UPI links at 10.4 GT/s";
    } else {
      GBps = 38.4;
      what = "2 QPI links at 9.6 GT/s";
    }
  } else if (cpu.vendor == "AuthenticAMD") {
    GBps = 128;
    what = "4 xGMI links at 16 GT/s";
  } else if (cpu.vendor == "CentaurHauls" || cpu.vendor == "  Shanghai  ") {
    GBps = 18;
    what = "ZPI";
  } else if (cpu.arch == "ppc64") {
    GBps = 64;
    what = "POWER9 X-bus";
  } else if (cpu.arch == "arm64") {
    GBps = 112;
    what = "Arm, as Grace to Grace";
  }
  return {GBps, kCpuLatency_us, Source::assumed, fmt::format("{}, from memory", what)};
}

Rate net_rate(const XmlNet& net) {
  const double latency_us = net.latency_us > 0 ? net.latency_us : kNetLatency_us;
  if (net.speed_Mbps > 0)
    return {net.speed_Mbps / 8000, latency_us, Source::datasheet, fmt::format("port speed {} Mb/s", net.speed_Mbps)};
  return {1.25, latency_us, Source::assumed, "the file gives no port speed, NCCL's fallback of 10,000 Mb/s taken"};
}

GpuSpec known_gpu(const XmlPci& pci) {
  GpuSpec gpu;
  if (const KnownGpu* known = find_gpu(pci)) {
    gpu = {known->name,
           known->memory_GiB,
           known->hbm_GBps,
           known->bf16_TFLOPps,
           known->fp8_TFLOPps,
           known->fp32_TFLOPps,
           known->sms,
           Source::assumed,
           fmt::format("datasheet figures, board recognised by PCI device id {}", pci.device)};
    return gpu;
  }
  gpu.name = !pci.gcn.empty()     ? fmt::format("AMD {}", pci.gcn)
             : pci.sm > 0         ? fmt::format("GPU of sm {}", pci.sm)
             : pci.device.empty() ? "GPU, type not in the file"
                                  : fmt::format("GPU, PCI {} {}", pci.vendor, pci.device);
  gpu.source_note = "not in the file; give \"gpu\" in a cluster JSON that reads this file";
  return gpu;
}

bool has_nvlink_by_design(const XmlPci& pci) {
  const KnownGpu* known = find_gpu(pci);
  return known != nullptr && known->nvlink;
}

}  // namespace topomoe
