// Path class and rate between every two devices of a host, and between GPUs of two hosts: what `nvidia-smi topo -m`
// shows of a host, of any cluster. Values; show_matrix.cpp and draw_page.cpp turn them into text and tables.
//
// A rate is the least on the way, one flow alone, one direction. Between hosts: examples, one pair of hosts for each
// way they can stand to each other (same NVLink domain, same leaf, same pod, further), seen from the first host with
// GPUs. Ignored: what other flows leave of it (topo load), and hosts of other templates than the examples'.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct PathCell {
  PathClass path_class = PathClass::DIS;
  double GBps_per_direction = 0;
  bool operator==(const PathCell&) const = default;
};

struct HostMatrix {
  std::vector<std::string> gpus, nics;           // names, in the order of HostTemplate::gpus and nics
  std::vector<PathCell> gpu_to_gpu, gpu_to_nic;  // row by row, a row a GPU
  std::vector<int> own_nic;                      // of each GPU, -1: none in reach
  const PathCell& gpu_gpu(std::size_t row, std::size_t column) const { return gpu_to_gpu[row * gpus.size() + column]; }
  const PathCell& gpu_nic(std::size_t row, std::size_t column) const { return gpu_to_nic[row * nics.size() + column]; }
};

// Of a host of this template. Without rows where no host is of it.
HostMatrix host_matrix(const Router&, std::size_t template_index);

struct HostPair {
  int host = 0, other = 0;
  std::string relation;                // "same leaf"
  PathCell same_rail;                  // between GPUs whose NICs are on one rail
  std::optional<PathCell> other_rail;  // none: there is one rail
};
std::vector<HostPair> host_pairs(const Router&);

std::string matrix_text(const HostMatrix&);
std::string host_pairs_text(const Topology&, const std::vector<HostPair>&);
// "gpus" "nics" "gpu_to_gpu" "gpu_to_nic" "own_nic" into a host's object; the pairs as an array.
void matrix_json(const HostMatrix&, nlohmann::ordered_json& host);
nlohmann::ordered_json host_pairs_json(const std::vector<HostPair>&);
// "NVL 450", "-", "DIS"
std::string cell_text(const PathCell&);

// First host of this template; -1: no group uses it.
int example_host(const Topology&, std::size_t template_index);
int hosts_of(const Topology&, std::size_t template_index);

// CPUs, and under each what hangs on it, with the rates of its links; NVLink as a list of neighbours. show_tree.cpp
std::string tree_text(const HostTemplate&);

// A rate for people: three digits below 1, else at most two after the point.
std::string rate_text(double GBps);

}  // namespace topomoe
