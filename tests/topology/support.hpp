// What the topology tests share: our files, others' files, and what an error must say.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "topomoe/error.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::test {

inline std::string source_path(const std::string& path) { return std::string(TOPOMOE_SOURCE_DIR) + "/" + path; }
inline std::string fixture(const std::string& name) { return source_path("tests/data/topology/" + name); }
inline Topology cluster(const std::string& name) {
  return read_topology_file(source_path("configs/clusters/" + name + ".json"));
}

// Files written by others, beside the checkout; tests over them skip where they are not.
inline std::string data_path(const std::string& path) {
  const char* given = std::getenv("TOPOMOE_DATA_DIR");
  return (given != nullptr ? std::string(given) : source_path("../shared")) + "/" + path;
}

inline std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The message of the InvalidInput that the call must throw, "" with a failure where it throws none.
template <class Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const InvalidInput& error) {
    EXPECT_FALSE(error.field.empty());
    EXPECT_FALSE(error.hint.empty());
    return error.what();
  }
  ADD_FAILURE() << "not refused";
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline bool warns(const Topology& topology, const std::string& part) {
  for (const std::string& line : topology.warnings)
    if (contains(line, part)) return true;
  return false;
}

inline std::vector<std::string> link_names(const Router& router, const Route& route) {
  std::vector<std::string> names;
  for (const int id : route.links) names.push_back(router.link(id).name);
  return names;
}

// Hosts of each leaf, given or not; none where there are no leaves.
inline std::vector<int> unit_of_hosts(const Topology& topology) {
  std::vector<int> sizes;
  if (topology.leaf_count() == 0) return sizes;
  for (int host = 0; host < topology.host_count(); host = topology.hosts_beside(host).end)
    sizes.push_back(topology.hosts_beside(host).end - topology.hosts_beside(host).first);
  return sizes;
}

// What a reader made is drawn, and written as JSON and back.
inline void draws_and_round_trips(const Topology& topology) {
  const std::string written = write_cluster_json(topology);
  const Topology again = read_cluster_json(written, "again");
  EXPECT_EQ(write_cluster_json(again), written);
  EXPECT_EQ(fingerprint(again), fingerprint(topology));
  EXPECT_FALSE(show_text(topology).empty());
  EXPECT_TRUE(contains(write_svg(topology), "</svg>"));
  EXPECT_TRUE(contains(write_dot(topology), "digraph"));
}
inline void reads_draws_and_round_trips(const std::string& path) {
  SCOPED_TRACE(path);
  draws_and_round_trips(read_topology_file(path));
}

// The same network with a GPU in each host, that nothing in the host holds up: routes have GPUs at their ends.
inline Topology with_gpus(Topology topology) {
  const double none_GBps = 100'000;
  for (HostTemplate& host : topology.templates) {
    if (host.nics.empty()) {  // of a torus
      host.devices.push_back({DeviceKind::nic, "nic0", "", -1, {}});
      host.nics.push_back({1, 0, "nic0", {none_GBps, 0, Source::assumed, "test"}, {}});
    }
    host.devices.push_back({DeviceKind::gpu, "gpu0", "", -1, {}});
    const int gpu = static_cast<int>(host.devices.size()) - 1;
    host.gpus = {gpu};
    for (const Nic& nic : host.nics)
      host.links.push_back({gpu, nic.device, LinkKind::pcie, none_GBps, 0, Source::assumed, "test", true, 0});
  }
  return topology;
}

// All files of a folder of others: those named are read, others may be refused.
template <class Known>
void read_or_refused(const std::string& folder, const std::map<std::string, Known>& known) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path());
    try {
      reads_draws_and_round_trips(entry.path());
    } catch (const InvalidInput& error) {
      EXPECT_EQ(known.count(entry.path().filename()), 0U) << error.what();
    }
  }
}

// Four GPUs on one NVLink plane of 100 GB/s, two switches of two GPUs and two NICs each, PCIe 32, NICs 25 GB/s.
inline HostShape small_shape() {
  HostShape shape;
  shape.kind = "nvswitch";
  shape.gpus = 4;
  shape.numa_nodes = 2;
  shape.gpus_per_pci_switch = 2;
  shape.nics = 4;
  shape.nvlink = {100, 0.5, Source::assumed, "test"};
  shape.pcie = {32, 1, Source::assumed, "test"};
  shape.cpu_interconnect = {40, 2, Source::assumed, "test"};
  shape.nic = {25, 3, Source::assumed, "test"};
  return shape;
}

// `hosts` such hosts, two to a pod, one leaf a rail; leaves have 50 GB/s up and hosts 2 x 25 down: 1:1.
inline Topology small_cluster(int hosts, const HostShape& shape = small_shape()) {
  Topology topology;
  topology.name = "small";
  topology.templates.push_back(build_host(shape, {}, "small-host"));
  topology.groups.push_back({0, hosts});
  Fabric fabric;
  fabric.rails = shape.nics;
  fabric.rail_optimised = true;
  fabric.hosts_per_leaf = 2;
  fabric.spine_count = 2;
  fabric.uplink = {50, 4, Source::assumed, "test"};
  topology.fabric = fabric;
  return topology;
}

}  // namespace topomoe::test
