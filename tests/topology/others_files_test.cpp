// The NCCL and RCCL files that others wrote, against facts worked out by an independent reader (expected.json).
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "support.hpp"
#include "topology/show/diff.hpp"

namespace topomoe::test {
namespace {

using Json = nlohmann::ordered_json;

class OthersFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string facts = data_path("topologies/expected.json");
    if (!std::filesystem::exists(facts))
      GTEST_SKIP() << facts << " is not there; set TOPOMOE_DATA_DIR to the folder that has topologies/";
    if (facts_.empty()) {
      const Json all = Json::parse(text_of(facts));
      for (const auto& [file, fact] : all.items())
        if (file.starts_with("nccl-xml/")) facts_[file] = fact;
    }
    ASSERT_FALSE(facts_.empty());
  }
  template <class Check>
  void each(Check check) const {
    for (const auto& [file, fact] : facts_) {
      SCOPED_TRACE(file);
      check(read_topology_file(data_path("topologies/" + file)), fact);
    }
  }
  static std::map<std::string, Json> facts_;  // read once
};
std::map<std::string, Json> OthersFiles::facts_;

int gpu_with_bus_id(const Topology& topology, const std::string& bus_id) {
  for (int gpu = 0; gpu < topology.gpu_count(); ++gpu)
    if (topology.bus_id(gpu) == bus_id) return gpu;
  return -1;
}

TEST_F(OthersFiles, Counts_MatchTheIndependentReader) {
  each([](const Topology& topology, const Json& fact) {
    int gpus = 0, nics = 0, ports = 0, numas = 0, bridges = 0;
    for (int host = 0; host < topology.host_count(); ++host) {
      for (const HostDevice& device : topology.host_template(host).devices) {
        gpus += device.kind == DeviceKind::gpu;
        nics += device.kind == DeviceKind::nic;
        numas += device.kind == DeviceKind::numa;
        bridges += device.kind == DeviceKind::pci_switch;
      }
      for (const Nic& nic : topology.host_template(host).nics) ports += nic.port.source != Source::unknown;
    }
    EXPECT_EQ(topology.host_count(), fact["n_hosts"].get<int>());
    EXPECT_EQ(numas, fact["n_numa"].get<int>());
    EXPECT_EQ(gpus, fact["n_gpu"].get<int>());
    EXPECT_EQ(nics, fact["n_nic_pci"].get<int>());
    EXPECT_EQ(ports, fact["n_net"].get<int>());
    EXPECT_EQ(bridges, fact["n_pci_bridge"].get<int>());
    const bool is_template = fact["n_gpu"] > 0 && fact["n_gpu_elements"] == 0;
    for (const HostTemplate& host : topology.templates)
      if (!host.gpus.empty()) {
        EXPECT_EQ(host.nvlink == Presence::unknown, is_template);
      }
  });
}

TEST_F(OthersFiles, Facts_AreThoseOfTheIndependentReader) {
  each([](const Topology& topology, const Json& fact) {
    const auto ours = nlohmann::json::parse(facts_json(topology));
    for (const char* key : {"n_hosts", "n_numa", "n_gpu", "n_net", "links_per_gpu", "gpu_pair_links", "links_to_switch",
                            "nvswitch", "nccl_nvlink_GBps", "closest_nic"}) {
      const nlohmann::json wanted = fact.contains(key) ? nlohmann::json::parse(fact[key].dump()) : nlohmann::json();
      EXPECT_EQ(ours.at(key), wanted) << key;
    }
  });
}

TEST_F(OthersFiles, NcclXml_WrittenAndReadAgain_KeepsEveryFact) {
  each([](const Topology& topology, const Json&) {
    const std::string text = write_nccl_xml(topology);
    const Topology again = read_nccl_xml(text, topology.source);
    nlohmann::json was = nlohmann::json::parse(facts_json(topology)), is = nlohmann::json::parse(facts_json(again));
    was.erase("warnings"), is.erase("warnings");
    EXPECT_EQ(was, is);
    for (const Difference& own : differences(topology, again))
      ADD_FAILURE() << own.element << ": " << own.before << " -> " << own.after;
  });
}

TEST_F(OthersFiles, Json_WrittenAndReadAgain_IsTheSame) {
  each([](const Topology& topology, const Json&) {
    const std::string text = write_cluster_json(topology);
    const Topology again = read_cluster_json(text, "again.json");
    EXPECT_EQ(write_cluster_json(again), text);
    EXPECT_EQ(facts_json(again), facts_json(topology));
  });
}

// Links per GPU come back from the rate of all its links out over the raw rate of one.
TEST_F(OthersFiles, LinksPerGpu_MatchTheIndependentReader) {
  each([](const Topology& topology, const Json& fact) {
    for (const auto& [bus_id, links] : fact["links_per_gpu"].items()) {
      const int gpu = gpu_with_bus_id(topology, bus_id);
      ASSERT_GE(gpu, 0) << bus_id;
      const HostTemplate& host = topology.host_template(topology.host_of(gpu));
      const int device = host.gpus[static_cast<std::size_t>(gpu - topology.first_gpu_of_host(topology.host_of(gpu)))];
      double GBps = 0;
      for (const Link& link : host.links)
        if ((link.kind == LinkKind::nvlink || link.kind == LinkKind::xgmi) &&
            (link.src == device || (link.both_ways && link.dst == device)))
          GBps += link.GBps_per_direction;
      int dangling = 0;
      for (const Json& lost : fact["dangling_links"]) dangling += lost[0] == bus_id ? lost[2].get<int>() : 0;
      const Json& own =
          *std::find_if(fact["gpus"].begin(), fact["gpus"].end(), [&](const Json& g) { return g["id"] == bus_id; });
      double each_GBps = 0;
      if (fact["link_kind"] == "xgmi") {
        const std::string gcn = own["gcn"].is_string() ? own["gcn"].get<std::string>() : own["gcn"].dump();
        each_GBps = gcn == "gfx942" ? 64 : gcn == "910" ? 50 : 46;
      } else {
        each_GBps = own["sm"] == 86 ? 14.0625 : 25;
      }
      EXPECT_DOUBLE_EQ(GBps / each_GBps, links.get<int>() - dangling) << bus_id;
    }
  });
}

TEST_F(OthersFiles, ClosestNic_HasTheClassOfTheIndependentReader) {
  each([](const Topology& topology, const Json& fact) {
    if (topology.gpu_count() == 0) return;
    const Router router(topology);
    for (const auto& [bus_id, closest] : fact["closest_nic"].items()) {
      const int gpu = gpu_with_bus_id(topology, bus_id);
      ASSERT_GE(gpu, 0);
      const int nic = router.nearest_nic(gpu);
      ASSERT_GE(nic, 0) << bus_id;
      EXPECT_EQ(name(router.route_to_nic(gpu, nic).path_class), closest["type"].get<std::string>()) << bus_id;
    }
  });
}

TEST_F(OthersFiles, EachReadsRoutesDrawsAndRoundTrips) {
  each([](const Topology& topology, const Json&) {
    const Router router(topology);
    for (int a = 0; a < topology.gpu_count(); ++a)
      for (int b = 0; b < topology.gpu_count(); ++b) EXPECT_NE(router.route(a, b).path_class, PathClass::DIS);
    draws_and_round_trips(topology);
  });
}

TEST_F(OthersFiles, CutOffAnywhere_IsRefusedAndNeverCrashes) {
  for (const auto& [file, fact] : facts_) {
    const std::string text = text_of(data_path("topologies/" + file));
    for (std::size_t length = 0; length < text.find("</system>"); length += 331)
      refusal([&] { read_nccl_xml(text.substr(0, length), "cut.xml"); });
  }
}

TEST_F(OthersFiles, InventedFile_IsRefusedWithItsRealProblem) {
  const std::string message =
      refusal([] { read_topology_file(data_path("topologies/malformed/nccl-invented-gpu-under-system.xml")); });
  EXPECT_TRUE(contains(message, "<gpu> in it"));
}

}  // namespace
}  // namespace topomoe::test
