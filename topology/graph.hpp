// Paths inside one host template, found once and kept: GPU to GPU, GPU to NIC and back.
//
// Model: the widest of the paths with fewest links. Traffic never passes through a NIC, and through another
// GPU only once and over NVLink or XGMI on both sides (NCCL's NVB). Boost.Graph stays in graph.cpp.
// Ignored: whether PCIe peer-to-peer is allowed by the machine's access control.
#pragma once

#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

// One direction of a Link.
struct DirectedLink {
  int link = 0;  // index in HostTemplate::links
  int src = 0, dst = 0;
  double GBps_per_direction = 0;
  double latency_us = 0;
  LinkKind kind = LinkKind::pcie;
};

// A path; its directed links are pool[first .. first + count).
struct HostPath {
  PathClass path_class = PathClass::DIS;
  int first = 0;
  int count = 0;
  double bottleneck_GBps = 0;
  double latency_us = 0;
};

struct HostPaths {
  int gpus = 0, nics = 0;
  std::vector<DirectedLink> directed;  // both_ways links take two consecutive places
  std::vector<int> pool;
  std::vector<HostPath> gpu_gpu;  // [src * gpus + dst]
  std::vector<HostPath> gpu_nic;  // [gpu * nics + nic]
  std::vector<HostPath> nic_gpu;  // [nic * gpus + gpu]
  // The NICs each GPU calls its own: those nearest to it, shared out among the GPUs that are equally near.
  std::vector<std::vector<int>> own_nics;
  // Directed links GPU -> NVLink switch and back, -1 where there is none.
  std::vector<int> to_nvswitch, from_nvswitch;

  const HostPath& between(int src, int dst) const { return gpu_gpu[index(src, gpus, dst)]; }
  const HostPath& to_nic(int gpu, int nic) const { return gpu_nic[index(gpu, nics, nic)]; }
  const HostPath& from_nic(int nic, int gpu) const { return nic_gpu[index(nic, gpus, gpu)]; }

 private:
  static std::size_t index(int row, int width, int column) {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) + static_cast<std::size_t>(column);
  }
};

HostPaths find_host_paths(const HostTemplate&);

}  // namespace topomoe
