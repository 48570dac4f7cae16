// What NVIDIA's management library says of the GPUs of this machine, as values, and what follows from them for a host.
//
// NVML comes with the driver, so it is there where NCCL is not; it also knows what NCCL's dump does not say: links that
// are down, lanes that are lost, the clique of a multi-node NVLink fabric. No serial numbers or UUIDs of GPUs are
// asked.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct NvmlLink {
  enum class Remote { unknown, gpu, nvswitch, cpu };
  int number = 0;
  bool active = false;
  Remote remote = Remote::unknown;  // of an active link
  std::string remote_bus_id;        // "0000:1b:00.0"; in VMs "fffffff:ff:ff.0" for a switch; empty: not said
};

// Of a multi-node NVLink fabric.
struct NvmlFabric {
  // As NVML counts: 0 there is none, 1 registration has not begun, 2 in progress, 3 done; -1 not known.
  int state = -1;
  int status = 0;       // nvmlReturn_t of the registration, once done
  std::string cluster;  // UUID; empty where it is zero: a switch plane of this host alone
  unsigned clique = 0;
  bool is_degraded = false;
};

struct NvmlGpu {
  std::string bus_id;  // "0000:1b:00.0"
  std::string name;    // "NVIDIA H100 80GB HBM3"
  int sm = 0;          // 90; 0: not known, and so below
  double memory_GiB = 0;
  int pcie_max_generation = 0;  // that GPU and slot can do; the present one falls when idle
  int pcie_width = 0, pcie_max_width = 0;
  bool links_known = false;
  std::vector<NvmlLink> links;
  NvmlFabric fabric;
};

struct NvmlReport {
  bool has_library = false;
  std::string driver;  // "550.54.15"
  std::vector<NvmlGpu> gpus;
  std::vector<std::string> warnings;  // what could not be asked, and why
};

// Asks the library of this name. `pci_class` gives the class of a device by bus id ("0x068000", empty: not known), for
// drivers that do not say what is at the other end of a link.
NvmlReport read_nvml(const char* library, const std::function<std::string(const std::string&)>& pci_class);
// The same of this machine's, in a child with a deadline.
NvmlReport discover_with_nvml(const std::function<std::string(const std::string&)>& pci_class);

// Puts into the host what only NVML knows, by bus id. A host whose NVLink is unknown (hwloc) gets its NVLinks and PCIe
// rates; one that knows them (NCCL) keeps its own, and the warnings say where the two differ. Both get
// the attributes "fabric_cluster" and "fabric_clique" of GPUs in a multi-node fabric.
void add_nvml(HostTemplate& host, const NvmlReport& report, std::vector<std::string>& warnings);

}  // namespace topomoe
