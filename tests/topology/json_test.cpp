#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "support.hpp"

namespace topomoe::test {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> committed_clusters() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(source_path("configs/clusters")))
    if (entry.path().extension() == ".json") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

TEST(ClusterJson, CommittedFiles_AreWhatTheWriterWrites) {
  ASSERT_GE(committed_clusters().size(), 12U);
  for (const std::string& file : committed_clusters()) {
    const Topology topology = read_topology_file(file);
    const std::string written = write_cluster_json(topology);
    EXPECT_EQ(write_cluster_json(read_cluster_json(written, file)), written) << file;
    EXPECT_EQ(fingerprint(read_cluster_json(written, file)), fingerprint(topology)) << file;
    if (contains(text_of(file), "nccl_xml")) continue;
    EXPECT_EQ(written, text_of(file)) << file;
  }
}

TEST(ClusterJson, CommittedFiles_SayWhereEachRateIsFrom) {
  for (const std::string& file : committed_clusters()) {
    const Router router(read_topology_file(file));
    for (int id = 0; id < router.link_count(); id += 7) EXPECT_NE(router.link(id).source, Source::unknown) << file;
  }
}

TEST(ClusterJson, Quickstart_ReadsItsHostFromTheNcclFileBesideIt) {
  const Topology topology = cluster("quickstart-2xh100");
  EXPECT_EQ(topology.gpu_count(), 16);
  EXPECT_EQ(topology.gpus_per_node(), 8);
  EXPECT_EQ(topology.gpu_spec(0).memory_GiB, 80);
  EXPECT_EQ(topology.gpu_spec(0).source, Source::datasheet);
  EXPECT_EQ(topology.bus_id(8), "0000:1b:00.0");
  const Router router(topology);
  EXPECT_EQ(router.route(0, 7).bottleneck_GBps, 450);  // 18 links x 25 GB/s
  EXPECT_EQ(router.route(0, 8).path_class, PathClass::NET);
  EXPECT_FALSE(warns(topology, "GPU figures"));  // given in the cluster file
  EXPECT_TRUE(
      contains(refusal([] { read_cluster_json(text_of(source_path("configs/clusters/quickstart-2xh100.json")), "x"); }),
               "read from a file"));
}

TEST(ClusterJson, ExplicitGraph_RoundTripsAndHasTheFingerprintOfItsShape) {
  Topology topology = small_cluster(3);
  const std::string of_shape = fingerprint(topology);
  EXPECT_TRUE(contains(write_cluster_json(topology), "\"shape\""));
  topology.templates[0].shape.reset();
  const std::string written = write_cluster_json(topology);
  EXPECT_TRUE(contains(written, "\"devices\""));
  const Topology read = read_cluster_json(written, "graph");
  EXPECT_EQ(write_cluster_json(read), written);
  EXPECT_EQ(fingerprint(read), of_shape);
  EXPECT_EQ(read.templates, topology.templates);
}

// Somebody halves one link of a regular host: the short form would lie, so the graph is written.
TEST(ClusterJson, EditedGraph_IsNotWrittenAsShape) {
  Topology topology = small_cluster(1);
  topology.templates[0].links[3].GBps_per_direction /= 2;
  EXPECT_FALSE(contains(write_cluster_json(topology), "\"shape\""));
  EXPECT_NE(fingerprint(topology), fingerprint(small_cluster(1)));
}

TEST(ClusterJson, OversubscriptionAlone_GivesTheUplinkRate) {
  Json json = Json::parse(write_cluster_json(small_cluster(4)));
  json["fabric"]["uplink"].erase("GBps_per_direction");
  json["fabric"]["oversubscription"] = 4;
  // 2 hosts x 25 GB/s down on each leaf, 4:1
  EXPECT_DOUBLE_EQ(read_cluster_json(json.dump(), "x").fabric->uplink.GBps_per_direction, 12.5);
  json["fabric"]["uplink"]["GBps_per_direction"] = 50;
  EXPECT_TRUE(contains(refusal([&] { read_cluster_json(json.dump(), "x"); }), "fabric.oversubscription"));
}

struct Refused {
  const char* what;
  std::function<void(Json&)> edit;
  const char* field;
};

TEST(ClusterJson, BadValues_AreRefusedNamingFieldAndValue) {
  const std::vector<Refused> cases{
      {"missing schema", [](Json& j) { j.erase("schema"); }, "c.json: schema: missing"},
      {"other schema", [](Json& j) { j["schema"] = "topomoe.cluster/9"; }, "topomoe.cluster/9"},
      {"unknown key", [](Json& j) { j["host"] = 1; }, "c.json: host: 1: unknown key; known here:"},
      {"no hosts", [](Json& j) { j["hosts"] = Json::array(); }, "hosts"},
      {"count 0", [](Json& j) { j["hosts"][0]["count"] = 0; }, "hosts[0].count: 0"},
      {"count 1e8", [](Json& j) { j["hosts"][0]["count"] = 100'000'000; }, "hosts[0].count: 100000000"},
      {"gpus > 1e7", [](Json& j) { j["hosts"][0]["count"] = 9'000'000; }, "gpus in all: 36000000"},
      {"count 1.5", [](Json& j) { j["hosts"][0]["count"] = 1.5; }, "hosts[0].count: 1.5"},
      {"count text", [](Json& j) { j["hosts"][0]["count"] = "2"; }, "hosts[0].count: \"2\""},
      {"template unknown", [](Json& j) { j["hosts"][0]["template"] = "dgx"; },
       "hosts[0].template: \"dgx\": known: small-host"},
      {"domain 0", [](Json& j) { j["hosts_per_domain"] = 0; }, "hosts_per_domain: 0"},
      {"rate 0", [](Json& j) { j["templates"][0]["shape"]["nvlink"]["GBps_per_direction"] = 0; }, "nvlink: 0 GB/s"},
      {"rate < 0", [](Json& j) { j["templates"][0]["shape"]["nic"]["GBps_per_direction"] = -25; }, "nic: -25 GB/s"},
      {"rate absurd", [](Json& j) { j["templates"][0]["shape"]["pcie"]["GBps_per_direction"] = 64e9; },
       "GBps_per_direction: 64000000000"},
      {"rate null", [](Json& j) { j["templates"][0]["shape"]["pcie"]["GBps_per_direction"] = nullptr; },
       "pcie.GBps_per_direction: null"},
      {"latency < 0", [](Json& j) { j["templates"][0]["shape"]["pcie"]["latency_us"] = -1; }, "latency_us: -1"},
      {"no source", [](Json& j) { j["templates"][0]["shape"]["pcie"].erase("source"); }, "pcie.source: missing"},
      {"kind", [](Json& j) { j["templates"][0]["shape"]["kind"] = "torus"; },
       "kind: \"torus\": allowed: nvswitch, pcie"},
      {"gpus not divisible", [](Json& j) { j["templates"][0]["shape"]["gpus_per_pci_switch"] = 3; },
       "gpus_per_pci_switch: 3: must divide gpus (4)"},
      {"gpus 0", [](Json& j) { j["templates"][0]["shape"]["gpus"] = 0; }, "gpus: 0"},
      {"rails too few", [](Json& j) { j["fabric"]["rails"] = 2; }, "rail: 2: allowed: 0 to 1"},
      {"hosts_per_leaf", [](Json& j) { j["fabric"]["hosts_per_leaf"] = 0; }, "fabric.hosts_per_leaf: 0"},
      {"oversubscription", [](Json& j) { j["fabric"]["oversubscription"] = -2; }, "fabric.oversubscription: -2"},
      {"uplink missing", [](Json& j) { j["fabric"].erase("uplink"); }, "fabric.uplink: missing"},
      {"fabric list", [](Json& j) { j["fabric"] = Json::array(); }, "fabric: []: must be an object"},
      {"outside",
       [](Json& j) {
         j["templates"][0] = {{"nccl_xml", "../../etc/passwd"}};
       },
       "nccl_xml"},
  };
  for (const Refused& refused : cases) {
    Json json = Json::parse(write_cluster_json(small_cluster(2)));
    refused.edit(json);
    const std::string message = refusal([&] { read_cluster_json(json.dump(), "c.json", "."); });
    EXPECT_TRUE(contains(message, refused.field)) << refused.what << "\n" << message;
    EXPECT_TRUE(contains(message, "c.json") || contains(message, "small-host")) << message;
  }
}

TEST(ClusterJson, BadGraph_IsRefusedNamingTheDevice) {
  Topology topology = small_cluster(1);
  topology.templates[0].shape.reset();
  const Json good = Json::parse(write_cluster_json(topology));
  const auto refused = [&](const std::function<void(Json&)>& edit) {
    Json json = good;
    edit(json["templates"][0]);
    return refusal([&] { read_cluster_json(json.dump(), "c.json"); });
  };
  EXPECT_TRUE(contains(refused([](Json& t) { t["links"][0]["src"] = "gpu9"; }), "links[0].src: \"gpu9\""));
  EXPECT_TRUE(contains(refused([](Json& t) { t["links"][0]["kind"] = "nic"; }), "links[0].kind: nic"));
  EXPECT_TRUE(contains(refused([](Json& t) { t["links"][0]["dst"] = t["links"][0]["src"]; }), "joins two devices"));
  EXPECT_TRUE(contains(refused([](Json& t) { t["devices"][1]["name"] = t["devices"][0]["name"]; }), "already taken"));
  EXPECT_TRUE(contains(refused([](Json& t) { t["devices"][0]["kind"] = "spine"; }), "devices[0].kind: spine"));
  EXPECT_TRUE(contains(refused([](Json& t) { t["nics"][0]["device"] = "gpu0"; }), "nics[0].device"));
  EXPECT_TRUE(contains(refused([](Json& t) { t["nvlink"] = "maybe"; }), "nvlink: \"maybe\""));
}

TEST(ClusterJson, CutOffAnywhere_IsRefusedAndNeverCrashes) {
  Topology topology = small_cluster(1);
  topology.templates[0].shape.reset();
  const std::string text = write_cluster_json(topology);
  for (std::size_t length = 0; length + 2 < text.size(); length += 67)
    refusal([&] { read_cluster_json(text.substr(0, length), "cut.json"); });
}

TEST(ClusterJson, NaNInAStruct_IsRefused) {
  Topology topology = small_cluster(2);
  topology.fabric->uplink.GBps_per_direction = std::nan("");
  EXPECT_TRUE(contains(refusal([&] { Router router(topology); }), "fabric.uplink.GBps_per_direction: nan"));
}

TEST(Fingerprint, ChangesWithRatesAndCountsOnly) {
  Topology topology = small_cluster(2);
  const std::string before = fingerprint(topology);
  EXPECT_EQ(before.size(), 16U);
  topology.name = "other";
  topology.source = "elsewhere";
  topology.templates[0].name = "renamed";
  topology.templates[0].links[0].source_note = "noted";
  topology.warnings.push_back("said");
  topology.groups = {{0, 1}, {0, 1}};  // the same two hosts
  EXPECT_EQ(fingerprint(topology), before);
  topology.groups.push_back({0, 1});
  EXPECT_NE(fingerprint(topology), before);
}

TEST(TopologyFile, WrongFiles_SayWhatTheyAre) {
  EXPECT_TRUE(contains(refusal([] { read_topology_file("/nowhere/at.all"); }), "cannot be opened"));
  EXPECT_TRUE(contains(refusal([] { read_topology_file(source_path("configs")); }), "a folder"));
  EXPECT_TRUE(contains(refusal([] { read_topology_file(source_path("tests/topology/support.hpp")); }), "JSON"));
}

TEST(ClusterJson, BadFabrics_AreRefusedNamingTheField) {
  const Json tree = Json::parse(write_cluster_json(cluster("h100-2048x8-3tier")));
  Json torus = Json::parse(write_cluster_json(small_cluster(8)));
  torus["fabric"] = {{"kind", "torus"},
                     {"dims", {2, 4}},
                     {"ring", {{"GBps_per_direction", 10}, {"latency_us", 1}, {"source", "assumed: test"}}}};
  EXPECT_NO_THROW(read_cluster_json(tree.dump(), "t"));
  EXPECT_NO_THROW(read_cluster_json(torus.dump(), "t"));
  struct Case {
    const Json& base;
    void (*spoil)(Json& fabric);
    const char* said;
  };
  const std::vector<Case> cases{
      {tree, [](Json& f) { f["kind"] = "hypercube"; }, "fabric.kind: \"hypercube\": known: fat_tree"},
      {tree, [](Json& f) { f["kind"] = 7; }, "fabric.kind: 7"},
      {tree, [](Json& f) { f["planes"] = 3, f.erase("pod_oversubscription"); },
       "fabric.planes: 3: a divisor of the 8 rails"},
      {tree, [](Json& f) { f["planes"] = 0; }, "fabric.planes: 0"},
      {tree, [](Json& f) { f["hosts_per_pod"] = 100, f.erase("pod_oversubscription"); },
       "fabric.hosts_per_pod: 100: a multiple of hosts_per_leaf (32)"},
      {tree, [](Json& f) { f["hosts_per_pod"] = -32; }, "fabric.hosts_per_pod: -32"},
      {tree, [](Json& f) { f["hosts_per_pod"] = 1e12; }, "fabric.hosts_per_pod"},
      {tree, [](Json& f) { f.erase("core_count"); }, "fabric.core_count: missing"},
      {tree, [](Json& f) { f.erase("pod_uplink"); }, "fabric.pod_uplink: missing"},
      {tree, [](Json& f) { f["pod_oversubscription"] = 5; }, "fabric.pod_oversubscription: 5: pod_uplink"},
      {tree, [](Json& f) { f["pod_oversubscription"] = -1; }, "fabric.pod_oversubscription: -1"},
      {tree, [](Json& f) { f["spine_count"] = 0; }, "fabric.spine_count: 0"},
      {tree, [](Json& f) { f["hosts_per_group"] = 64; }, "fabric.hosts_per_group"},
      {tree, [](Json& f) { f["dims"] = {4}; }, "fabric.dims"},
      {tree,
       [](Json& f) {
         f["exceptions"] = {{{"name", "leaf0->moon"}, {"factor", 0}}};
       },
       "exceptions[0].name"},
      {tree,
       [](Json& f) {
         f["exceptions"] = {{{"name", "leaf0->pod0"}, {"factor", 2}}};
       },
       "exceptions[0].factor: 2"},
      {tree,
       [](Json& f) {
         f["exceptions"] = {{{"name", "leaf0->pod0"}}};
       },
       "exceptions[0].factor: missing"},
      {tree, [](Json& f) { f["exceptions"] = "none"; }, "fabric.exceptions"},
      {torus,
       [](Json& f) {
         f["dims"] = {3, 3};
       },
       "fabric.dims: 9 places: the product is the number of hosts, 8"},
      {torus, [](Json& f) { f["dims"] = {1e12}; }, "fabric.dims"},
      {torus,
       [](Json& f) {
         f["dims"] = {2, 4, 1};
       },
       "fabric.dims[2]: 1"},
      {torus, [](Json& f) { f["dims"] = Json::array(); }, "fabric.dims: number"},
      {torus, [](Json& f) { f["ring"]["GBps_per_direction"] = 0; }, "fabric.ring.GBps_per_direction: 0"},
      {torus, [](Json& f) { f["spine_count"] = 4; }, "fabric.spine_count"},
  };
  for (const Case& one : cases) {
    Json json = one.base;
    one.spoil(json["fabric"]);
    const std::string said = refusal([&] { read_cluster_json(json.dump(), "t"); });
    EXPECT_TRUE(contains(said, one.said)) << said;
  }
}

// No spines: nothing is computed from an uplink, but what was said of it stays.
TEST(ClusterJson, UplinkOfLeavesThatNothingJoins_ComesBack) {
  Topology topology = cluster("h100-2x8");
  topology.fabric->spine_count = 0;
  for (const Rate& uplink :
       {Rate{0, 2, Source::unknown, "nobody knows"}, Rate{50, 0, Source::assumed, "a guess"}, Rate{}}) {
    topology.fabric->uplink = uplink;
    // A leaf has one NIC of 50 GB/s of each host.
    topology.fabric->oversubscription = uplink.GBps_per_direction > 0 ? topology.fabric->hosts_per_leaf : 1;
    const Topology again = read_cluster_json(write_cluster_json(topology), "x");
    EXPECT_EQ(again.fabric->uplink, uplink);
    EXPECT_EQ(write_cluster_json(again), write_cluster_json(topology));
  }
}

TEST(ClusterJson, DeeperThanAnyFile_IsRefusedAndNeverCrashes) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string text = "{\"schema\": // [[ \" { /*\n ";
    for (int i = 0; i < 200'000; ++i) text += open;
    EXPECT_TRUE(contains(refusal([&] { read_cluster_json(text, "x"); }), "nested deeper than 64"));
  }
}

TEST(ClusterJson, MoreKeysThanAnyFile_AreRefusedAtOnce) {
  std::string text = "{\"schema\": \"topomoe.cluster/1\", \"templates\": {";
  for (int i = 0; i < 300'000; ++i) text += "\"k:" + std::to_string(i) + "\": [1, 2],";
  EXPECT_TRUE(contains(refusal([&] { read_cluster_json(text, "x"); }), "more than 256 keys"));
}

}  // namespace
}  // namespace topomoe::test
