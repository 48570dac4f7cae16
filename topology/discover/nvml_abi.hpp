// The part of NVML's binary interface that is used, so that no header of the driver is needed.
//
// Source: NVML API Reference Guide (docs.nvidia.com/deploy/nvml-api), its structures nvmlPciInfo_t, nvmlMemory_t and
// nvmlGpuFabricInfo_v2_t; versions of structures are sizeof | version << 24 as its header forms them. All enums are
// passed as int. Buffers that NVML fills have room behind them, should a driver know a longer form.
#pragma once

#include <array>
#include <cstddef>

namespace topomoe::nvml {

constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3, kDriverNotLoaded = 9;

using Device = struct OpaqueDevice*;

struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfo) == 68);

struct Memory {
  unsigned long long total, free, used;  // bytes
};

// Drivers since 525.
struct FabricInfo {
  unsigned char cluster_uuid[16];
  int status;
  unsigned clique_id;
  unsigned char state;
};
static_assert(sizeof(FabricInfo) == 28);

// Drivers since 545: nvmlDeviceGetGpuFabricInfoV.
struct FabricInfoV2 {
  unsigned version;
  unsigned char cluster_uuid[16];
  int status;
  unsigned clique_id;
  unsigned char state;
  unsigned health_mask;
};
static_assert(sizeof(FabricInfoV2) == 36 && offsetof(FabricInfoV2, health_mask) == 32);
constexpr unsigned kFabricInfoV2 = sizeof(FabricInfoV2) | 2U << 24;

// The two lowest bits of the health mask: 1, bandwidth is degraded; 2, it is not.
constexpr unsigned kDegradedBits = 3, kDegraded = 1;
constexpr unsigned char kFabricComplete = 3;

// nvmlIntNvLinkDeviceType_t
constexpr int kRemoteGpu = 0, kRemoteCpu = 1, kRemoteSwitch = 2;

// Links are asked for by number until NVML knows none. Blackwell has 18; twice that for what follows (assumed).
constexpr unsigned kMostLinks = 36;

template <class Structure>
struct Roomy {
  Structure value{};
  std::array<char, 256> room{};
};

}  // namespace topomoe::nvml
