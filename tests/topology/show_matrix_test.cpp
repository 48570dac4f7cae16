// Matrices of path class and rate, and the tree of a host.
#include <map>
#include <nlohmann/json.hpp>

#include "random_cluster.hpp"
#include "support.hpp"
#include "topology/show/host_matrix.hpp"

namespace topomoe::test {
namespace {

HostMatrix matrix_of(const Topology& topology) { return host_matrix(Router(topology), 0); }

// Widest of the shortest paths: where each link goes both ways at one rate, the way back is as long and as wide.
TEST(ShowMatrix, LinksBothWays_GiveASymmetricMatrix) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    const Topology topology = random_fabric_cluster(seed);
    for (std::size_t own = 0; own < 2; ++own) {
      const HostMatrix matrix = host_matrix(Router(topology), own);
      for (std::size_t a = 0; a < matrix.gpus.size(); ++a) {
        EXPECT_EQ(matrix.gpu_gpu(a, a).path_class, PathClass::LOC);
        for (std::size_t b = 0; b < a; ++b) EXPECT_EQ(matrix.gpu_gpu(a, b), matrix.gpu_gpu(b, a)) << seed;
      }
    }
  }
}

TEST(ShowMatrix, Cells_AreTheRoutes) {
  const Topology topology = cluster("l40s-8x-pcie");
  const Router router(topology);
  const HostMatrix matrix = matrix_of(topology);
  ASSERT_EQ(matrix.nics.size(), 2U);
  for (int a = 0; a < 8; ++a) {
    for (int b = 0; b < 8; ++b)
      EXPECT_EQ(matrix.gpu_gpu(static_cast<std::size_t>(a), static_cast<std::size_t>(b)).path_class,
                router.route(a, b).path_class);
    EXPECT_EQ(matrix.own_nic[static_cast<std::size_t>(a)], a / 4);
  }
}

TEST(ShowMatrix, OneWayLink_IsSeenOneWay) {
  Topology topology = small_cluster(1);
  topology.templates[0].shape.reset();
  for (Link& link : topology.templates[0].links)
    if (link.kind == LinkKind::nvlink && link.src == topology.templates[0].gpus[0]) link.both_ways = false;
  const HostMatrix matrix = matrix_of(topology);
  EXPECT_EQ(matrix.gpu_gpu(0, 1).path_class, PathClass::NVL);
  EXPECT_EQ(matrix.gpu_gpu(1, 0).path_class, PathClass::PIX);
}

TEST(ShowMatrix, BetweenHosts_OneLineForEachWayTheyCanStand) {
  // 2,048 hosts: 32 share their leaves, 512 a pod. Rail-optimised: another rail is reached over NVLink first.
  const Topology topology = cluster("h100-2048x8-3tier");
  const auto pairs = host_pairs(Router(topology));
  ASSERT_EQ(pairs.size(), 3U);
  EXPECT_EQ(pairs[0].relation, "same leaves");
  EXPECT_EQ(pairs[1].other, 32);
  EXPECT_EQ(pairs[2].other, 512);
  for (const HostPair& pair : pairs) {
    EXPECT_EQ(pair.same_rail, (PathCell{PathClass::NET, 50}));
    EXPECT_EQ(pair.other_rail, (PathCell{PathClass::PXN, 50}));
  }
  EXPECT_TRUE(contains(show_text(topology), "  host0 to host512, other pod: same rail NET 50, other rail PXN 50\n"));
}

TEST(ShowMatrix, BetweenHostsWithoutFabric_HaveNoPath) {
  Topology topology = small_cluster(2);
  topology.fabric.reset();
  EXPECT_TRUE(contains(show_text(topology), "  host0 to host1, no fabric known: same rail DIS, other rail DIS\n"));
  EXPECT_TRUE(host_pairs(Router(small_cluster(1))).empty());
}

TEST(ShowMatrix, Json_NamesRowsAndColumns) {
  const auto json = nlohmann::json::parse(show_json(cluster("gb200-nvl72")));
  const auto& host = json.at("host_routes").at(0);
  EXPECT_EQ(host.at("gpus"), (std::vector<std::string>{"gpu0", "gpu1", "gpu2", "gpu3"}));
  EXPECT_EQ(host.at("own_nic"), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(host.at("gpu_to_gpu").at(0).at(1).at("GBps_per_direction"), 900);
  EXPECT_EQ(host.at("gpu_to_nic").at(0).at(0).at("path_class"), "P2C");
  EXPECT_EQ(json.at("between_hosts").at(0).at("relation"), "same NVLink domain");
  EXPECT_EQ(json.at("between_hosts").at(0).at("same_rail").at("path_class"), "NVL");
}

// 40 NICs on 8 GPUs: those that all GPUs see alike share a column.
TEST(ShowTree, ManyDevices_AreFoldedToAScreenful) {
  HostShape shape = small_shape();
  shape.gpus = 8, shape.gpus_per_pci_switch = 1, shape.nics = 40;
  const Topology topology = small_cluster(64, shape);
  const std::string text = show_text(topology);
  EXPECT_TRUE(contains(text, "pci_switch0 to pci_switch3: 4 alike")) << text;
  EXPECT_TRUE(contains(text, "nic0 to nic4: 5 alike")) << text;
  EXPECT_TRUE(contains(text, "nic35..nic39")) << text;
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 50);
}

TEST(ShowTree, DirectLinks_AreListedWithTheirNeighbours) {
  HostTemplate host;
  host.name = "mesh";
  host.devices = {{DeviceKind::numa, "numa0", "", 0}, {DeviceKind::gpu, "a", "", 0}, {DeviceKind::gpu, "b", "", 0}};
  host.links = {{1, 0, LinkKind::pcie, 16}, {2, 0, LinkKind::pcie, 16}, {1, 2, LinkKind::xgmi, 50}};
  EXPECT_EQ(tree_text(host), "  numa0\n    a    pcie 16; xgmi 50 to b\n    b    pcie 16; xgmi 50 to a\n");
}

}  // namespace
}  // namespace topomoe::test
