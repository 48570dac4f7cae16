// Loads of named traffic: equal to flows added one by one, worth what hand arithmetic says.
#include "topomoe/pattern_load.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "random_cluster.hpp"
#include "support.hpp"

namespace topomoe::test {
namespace {

constexpr double kBytes = 1 << 20;

// The definitions of pattern_load.hpp, pair by pair.
TrafficMatrix matrix_of(const Topology& topology, TrafficPattern pattern) {
  TrafficMatrix out;
  out.gpus = topology.gpu_count(), out.source = name(pattern);
  const int n = out.gpus;
  const auto place = [&](int gpu) { return gpu - topology.first_gpu_of_host(topology.host_of(gpu)); };
  for (int src = 0; src < n; ++src) {
    double members = 0;
    for (int dst = 0; dst < n; ++dst) members += place(dst) == place(src);
    for (int dst = 0; dst < n; ++dst)
      out.bytes.push_back(pattern == TrafficPattern::alltoall ? kBytes / n
                          : pattern == TrafficPattern::rail   ? (place(dst) == place(src) ? kBytes / members : 0)
                          : dst == (src + n / 2) % n          ? kBytes
                                                              : 0);
  }
  return out;
}

const LoadedClass& class_of(const PatternLoad& load, const std::string& klass) {
  for (const LoadedClass& own : load.classes)
    if (own.klass == klass) return own;
  throw std::runtime_error("no load of class " + klass);
}

void expect_as_flow_by_flow(const Topology& topology, TrafficPattern pattern, const std::string& what) {
  const Router router(topology);
  const PatternLoad ours = pattern_load(router, pattern, kBytes);
  const TrafficMatrix matrix = matrix_of(topology, pattern);
  const PatternLoad theirs = pattern_load(router, matrix);
  const auto near = [](double a, double b) { return std::abs(a - b) <= 1e-9 * std::max(a, b); };
  LinkLoads loads(router);
  for (int src = 0; src < matrix.gpus; ++src)
    for (int dst = 0; dst < matrix.gpus; ++dst)
      loads.add(src, dst, matrix.bytes[static_cast<std::size_t>(src * matrix.gpus + dst)]);
  double slowest = 0;
  for (int id = 0; id < router.link_count(); ++id) {
    EXPECT_TRUE(near(ours.loads.bytes_on(id), loads.bytes_on(id))) << what << ": " << router.link(id).name;
    EXPECT_TRUE(near(theirs.loads.bytes_on(id), loads.bytes_on(id))) << what << ": " << router.link(id).name;
    if (loads.bytes_on(id) > 0)
      slowest = std::max(slowest, loads.bytes_on(id) / (router.link_GBps_per_direction(id) * 1e9));
  }
  EXPECT_TRUE(near(ours.bottleneck.seconds, slowest)) << what;
  EXPECT_TRUE(near(ours.bus_GBps, theirs.bus_GBps)) << what << ours.bus_GBps << " " << theirs.bus_GBps;
  EXPECT_TRUE(near(ours.algorithm_GBps * slowest * 1e9, kBytes)) << what;
  ASSERT_EQ(ours.classes.size(), theirs.classes.size()) << what;
  bool reached = false;
  for (std::size_t i = 0; i < ours.classes.size(); ++i) {
    EXPECT_EQ(ours.classes[i].links_as_loaded, theirs.classes[i].links_as_loaded) << what;
    EXPECT_LE(ours.classes[i].share, 1) << what;
    reached = reached || ours.classes[i].share == 1;
  }
  EXPECT_TRUE(reached) << what;
}

TEST(PatternLoad, NamedPatterns_EqualFlowByFlow) {
  int compared = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    Topology topology = random_fabric_cluster(seed);
    if (seed % 2 == 0) topology = random_alike_cluster(seed, 4);
    for (const TrafficPattern pattern : {TrafficPattern::alltoall, TrafficPattern::rail, TrafficPattern::pairs}) {
      const std::string what = std::string(name(pattern)) + " of seed " + std::to_string(seed);
      try {
        pattern_load(Router(topology), pattern, kBytes);
      } catch (const InvalidInput& error) {  // pods that nothing joins; hosts without a NIC in reach
        EXPECT_EQ(error.value, "no path") << what;
        continue;
      }
      expect_as_flow_by_flow(topology, pattern, what);
      ++compared;
    }
  }
  EXPECT_GT(compared, 100);
}

TEST(PatternLoad, AllToAll_ByHand) {
  // 4 hosts of 4 GPUs, 4 NICs of 25 GB/s: each GPU sends 12/16 of 1 MiB out of its host, 786,432 bytes / 25e9 = 31.46
  // us.
  const PatternLoad load = pattern_load(Router(small_cluster(4)), TrafficPattern::alltoall, kBytes);
  EXPECT_EQ(load.bottleneck.klass, "nic_out");
  EXPECT_NEAR(load.bottleneck.seconds * 1e6, 786432 / 25e3, 1e-9);
  EXPECT_NEAR(load.algorithm_GBps, 25 * 16 / 12.0, 1e-9);
  EXPECT_NEAR(load.bus_GBps, load.algorithm_GBps * 15 / 16, 1e-9);
  const LoadedClass& nic = class_of(load, "nic_out");
  EXPECT_EQ(nic.links_as_loaded, 16);
  EXPECT_EQ(nic.total_bytes, 16 * 786432);
  EXPECT_EQ(nic.share, 1);
  // A pod of two hosts and a rail a leaf: from 2 GPUs up, 8/16 of 1 MiB each, over 50 GB/s: a third of the NICs' time.
  EXPECT_NEAR(class_of(load, "leaf_up").share, (2 * 524288 / 50.0) / (786432 / 25.0), 1e-12);
}

TEST(PatternLoad, Rail_ByHand) {
  // Groups of 4: each GPU keeps a quarter and sends the rest by its own NIC, nothing over NVLink.
  const PatternLoad load = pattern_load(Router(small_cluster(4)), TrafficPattern::rail, kBytes);
  EXPECT_EQ(load.sent_bytes, kBytes * 3 / 4);
  EXPECT_NEAR(load.bus_GBps, 25, 1e-9);
  for (const LoadedClass& own : load.classes) EXPECT_NE(own.klass, "nvlink");
}

TEST(PatternLoad, Pairs_ByHand) {
  // n/2 = 2 GPUs further in one host of 4: NVLink alone, 1 MiB over 100 GB/s.
  const PatternLoad load = pattern_load(Router(small_cluster(1)), TrafficPattern::pairs, kBytes);
  EXPECT_NEAR(load.bottleneck.seconds, kBytes / 100e9, 1e-15);
  EXPECT_EQ(load.bus_GBps, load.algorithm_GBps);
  EXPECT_EQ(load.classes.size(), 1U);
}

TEST(PatternLoad, RemovedHost_IsNoMember) {
  const Topology whole = small_cluster(4);
  expect_as_flow_by_flow(edit(whole, {parse_remove("host1")}), TrafficPattern::rail, "a host less");
  expect_as_flow_by_flow(edit(whole, {parse_remove("host1.gpu2")}), TrafficPattern::rail, "a GPU less");
  expect_as_flow_by_flow(edit(whole, {parse_degrade("leaf1->spine=0.25")}), TrafficPattern::alltoall, "a slow leaf");
}

TEST(PatternLoad, DegradedCable_IsTheOneBottleneck) {
  const PatternLoad load = pattern_load(Router(edit(small_cluster(4), {parse_degrade("leaf1->spine=0.25")})),
                                        TrafficPattern::alltoall, kBytes);
  EXPECT_EQ(load.bottleneck.name, "leaf1->spine");
  EXPECT_EQ(class_of(load, "leaf_up").links_as_loaded, 1);
}

TEST(PatternLoad, WithoutTrafficOrPath_SaysWhy) {
  const auto loaded = [](const Topology& topology, TrafficPattern pattern) {
    return refusal([&] { pattern_load(Router(topology), pattern, kBytes); });
  };
  EXPECT_TRUE(contains(loaded(small_cluster(1), TrafficPattern::rail), "rail: no two of the 4 GPUs"));
  Topology apart = small_cluster(2);
  apart.fabric.reset();
  EXPECT_TRUE(contains(loaded(apart, TrafficPattern::alltoall), "no path"));
  Topology bare = small_cluster(2);
  bare.templates[0] = {};
  bare.templates[0].name = "bare";
  bare.templates[0].devices = {{DeviceKind::numa, "numa0", "", 0}};
  bare.fabric.reset();
  EXPECT_TRUE(contains(loaded(bare, TrafficPattern::pairs), "no GPUs are described"));
  EXPECT_TRUE(
      contains(refusal([] { pattern_load(Router(small_cluster(1)), TrafficPattern::alltoall, 0); }), "above 0"));
  TrafficMatrix zero;
  zero.gpus = 4, zero.bytes.assign(16, 0.0), zero.source = "zero.csv";
  EXPECT_TRUE(contains(refusal([&] { pattern_load(Router(small_cluster(1)), zero); }), "zero.csv"));
}

TEST(TrafficCsv, NamesAreOptional) {
  const std::vector<double> expected{0, 1, 2e6, 0.5};
  for (const char* text : {"0,1\n2e6,0.5\n", "0, 1\r\n2e6 ,0.5", "a,b\n0,1\n2e6,0.5\n", ",a,b\na,0,1\nb,2e6,0.5\n\n",
                           "\"from\",\"a\",\"b\"\n\"a\",0,1\n\"b\",2e6,0.5",
                           "\xef\xbb\xbf"
                           "0,1\n2e6,0.5"})
    EXPECT_EQ(read_traffic_csv(text, "m.csv", 2).bytes, expected) << text;
}

TEST(TrafficCsv, BadCells_AreNamedByRowAndColumn) {
  const auto refused = [](const std::string& text) { return refusal([&] { read_traffic_csv(text, "m.csv", 2); }); };
  EXPECT_TRUE(contains(refused("0,1\n2,-3\n"), "m.csv: row 2, column 2: \"-3\""));
  EXPECT_TRUE(contains(refused("0,nan\n2,3\n"), "row 1, column 2"));
  EXPECT_TRUE(contains(refused("a,b\n0,1\ninf,3\n"), "row 2, column 1"));
  EXPECT_TRUE(contains(refused("0,1\n1e999,3\n"), "row 2, column 1"));
  EXPECT_TRUE(contains(refused("0,1\nx,3\n"), "row 2, column 1: \"x\": a number"));
  EXPECT_TRUE(contains(refused("0,1\n2,\n"), "row 2, column 2"));
  EXPECT_TRUE(contains(refused("0,1,2\n2,3,4\n"), "row 1 has 3 columns: 2 x 2"));
  EXPECT_TRUE(contains(refused("0,1\n"), "1 rows"));
  EXPECT_TRUE(contains(refused("0,1\n2,3\n4,5\n"), "more than 2 rows"));
  EXPECT_TRUE(contains(refused(""), "0 rows"));
  EXPECT_TRUE(contains(refusal([] { read_traffic_csv("", "m.csv", 5000); }), "at most 4096"));
}

TEST(PatternLoad, TextAndJson_NameTheBottleneck) {
  const PatternLoad load = pattern_load(Router(cluster("l40s-8x-pcie")), TrafficPattern::alltoall, 64 * kBytes);
  // 4 x 4 of 64 pairs cross to the other CPU, as many come, and 4 x 2 pass between its two switches: 5 x 64 MiB in all.
  EXPECT_EQ(load.bottleneck.klass, "cpu_root");
  EXPECT_EQ(class_of(load, "cpu_root").max_bytes, 320 * kBytes);
  const std::string text = pattern_load_text(load);
  EXPECT_TRUE(contains(text, "bottleneck: host0.cpu_root0->numa0 (cpu_root, 64 GB/s, assumed): at least 5.243 ms"));
  EXPECT_TRUE(contains(text, "12.8 GB/s algorithm bandwidth, 11.2 GB/s bus bandwidth a GPU"));
  const auto json = nlohmann::json::parse(pattern_load_json(load));
  EXPECT_EQ(json.at("bottleneck").at("class"), "cpu_root");
  EXPECT_NEAR(json.at("bus_GBps").get<double>(), 11.2, 1e-9);
  EXPECT_EQ(json.at("classes").size(), load.classes.size());
}

}  // namespace
}  // namespace topomoe::test
