// hwloc's XML (lstopo FILE.xml, of hwloc 1, 2 and 3) as plain lists, checked for form only.
//
// What routes do not need (caches, cores, memory attributes) is left out. The text is not handed to libhwloc: that
// loads only what its own version writes, reports on stderr, and trusts what it reads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct HwlocNuma {
  int os_index = 0;
  bool has_cpus = true;  // no: memory of a device, or CXL
};

// A bridge or a device on the PCI bus.
struct HwlocPci {
  bool bridge = false;
  bool host_bridge = false;  // the CPU's own end of the bus: no place on it
  std::string bus_id;        // "0000:1b:00.0"; empty for a host bridge
  int klass = 0;             // 0x0302
  int vendor = 0, device = 0;
  double GBps = 0;            // of its link upwards, as hwloc works it out; 0: not known
  int parent = -1;            // in HwlocXml::pci
  int node = -1;              // OS index of the first NUMA node near it; -1: not said
  bool near_several = false;  // that node is the first of several: where it hangs is not known
  bool nvswitch = false;
  std::string id;                                  // "PCIDev:449"; empty: it has no number
  std::string gpu_model;                           // "Tesla V100-SXM2-16GB"
  std::vector<std::string> rdma_names, net_names;  // "mlx5_0"; "ib0"
  std::vector<std::string> os_ids;                 // "OSDev:332"
};

struct HwlocPackage {
  std::string id;  // "Package:3"
  int node = -1;
};

// MB/s from objects[i] to objects[j] at [i * objects.size() + j]; the diagonal means nothing.
struct HwlocNvlink {
  std::vector<std::string> objects;  // "OSDev:332"
  std::vector<double> MBps;
};

struct HwlocXml {
  std::string version;  // "3.0"; empty: before 2.0
  std::string cpu_vendor, architecture;
  int cpu_model = -1;
  std::vector<HwlocNuma> numas;
  std::vector<HwlocPackage> packages;
  std::vector<HwlocPci> pci;  // parents before children
  std::vector<HwlocNvlink> nvlink;
};

// InvalidInput where the text is not hwloc's XML, with the byte; limits: 64 MiB, 200,000 elements, 64 levels.
HwlocXml parse_hwloc_xml(std::string_view text, const std::string& where);

}  // namespace topomoe
