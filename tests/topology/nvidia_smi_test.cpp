// The matrix of nvidia-smi topo -m in the forms that people paste, and what of it is refused.
#include <nlohmann/json.hpp>

#include "support.hpp"

namespace topomoe::test {
namespace {

std::string two_switches() { return text_of(fixture("nvidia-smi-two-switches.txt")); }
Topology read(const std::string& text) { return read_topology(text, "smi.txt"); }
std::string said(const std::string& text) {
  return refusal([&] { read_topology(text, "smi.txt", "nvidia-smi"); });
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  EXPECT_TRUE(contains(text, from)) << from;
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

// All to all by NV`links`, with the affinity given.
std::string switched(int gpus, int links, const std::string& affinity = "") {
  std::string text;
  for (int i = 0; i < gpus; ++i) text += "\tGPU" + std::to_string(i);
  text += affinity.empty() ? "\n" : "\tCPU Affinity\n";
  for (int i = 0; i < gpus; ++i) {
    text += "GPU" + std::to_string(i);
    for (int j = 0; j < gpus; ++j) text += i == j ? "\tX" : "\tNV" + std::to_string(links);
    text += affinity.empty() ? "\n" : "\t" + affinity + "\n";
  }
  return text;
}

TEST(NvidiaSmi, Paths_HaveTheClassesOfTheMatrix) {
  const Topology topology = read(two_switches());
  const Router router(topology);
  EXPECT_EQ(router.route(0, 1).path_class, PathClass::NVL);
  EXPECT_EQ(router.route(0, 2).path_class, PathClass::PXB);
  EXPECT_EQ(router.route(1, 2).path_class, PathClass::PHB);  // NODE: one CPU
  EXPECT_EQ(router.route(2, 3).path_class, PathClass::SYS);
  EXPECT_EQ(router.route_to_nic(0, 0).path_class, PathClass::PIX);
  EXPECT_EQ(router.route_to_nic(1, 0).path_class, PathClass::PHB);
  EXPECT_EQ(router.route_to_nic(2, 0).path_class, PathClass::PXB);
  EXPECT_EQ(router.route_to_nic(3, 0).path_class, PathClass::SYS);
  EXPECT_EQ(router.route_to_nic(3, 1).path_class, PathClass::PHB);
}

TEST(NvidiaSmi, Facts_AreLinksNicsAndTheirNames) {
  const Topology topology = read(two_switches());
  const auto facts = nlohmann::json::parse(facts_json(topology));
  EXPECT_EQ(facts["n_numa"], 2);
  EXPECT_EQ(facts["n_net"], 2);
  EXPECT_EQ(facts["gpu_pair_links"]["gpu0->gpu1"], 4);
  EXPECT_EQ(facts["links_per_gpu"].size(), 2U);
  EXPECT_EQ(facts["nvswitch"], false);
  EXPECT_EQ(facts["closest_nic"]["gpu0"]["type"], "PIX");
  const HostTemplate& host = topology.templates[0];
  EXPECT_EQ(host.nics[1].name, "mlx5_3");
  EXPECT_EQ(attribute(host.devices[static_cast<std::size_t>(host.gpus[3])].attributes, "numa_affinity"), "1,10-17");
  for (const Link& link : host.links) EXPECT_EQ(link.source, Source::assumed);  // the matrix has no rate
  EXPECT_TRUE(warns(topology, "gives no rates"));
}

TEST(NvidiaSmi, SpacesColoursAndComments_SayTheSame) {
  const Topology plain = read(two_switches());
  std::string spaces = replaced(two_switches(), "\t", "   ");
  EXPECT_EQ(read(spaces), plain);
  EXPECT_EQ(read(replaced(spaces, "\n", "\n * ")), plain);
  EXPECT_EQ(read("// " + replaced(spaces, "\n", "\n// ")), plain);
  EXPECT_EQ(read("$ nvidia-smi topo -m\n" + replaced(two_switches(), "\n", "\r\n")), plain);
  EXPECT_EQ(read(replaced(two_switches(), " X ", "X")), plain);
  const std::string header = two_switches().substr(1, two_switches().find("\tCPU") - 1);
  EXPECT_EQ(read(replaced(two_switches(), header, "\x1b[4m" + header + "\x1b[0m")), plain);
  EXPECT_EQ(read(replaced(two_switches(), header, "[4m" + header + "[0m")), plain);
}

TEST(NvidiaSmi, ColumnsOfAffinityMissing_ClassesStillTellTheCpus) {
  const Topology topology = read(
      "     GPU0 GPU1 mlx5_0\n"
      "GPU0  X   SYS  PHB\n"
      "GPU1 SYS   X   SYS\n"
      "mlx5_0 PHB SYS X\n");
  EXPECT_EQ(nlohmann::json::parse(facts_json(topology))["n_numa"], 2);
  EXPECT_EQ(topology.templates[0].nics.at(0).name, "mlx5_0");
  EXPECT_EQ(topology.templates[0].nvlink, Presence::absent);  // two GPUs, and the matrix has no NV between them
}

// 4 x 18 = 54 links to three others are more than the 18 of a GPU: they go to switches. 3 x 4 = 12 may be cables.
TEST(NvidiaSmi, MoreLinksThanAGpuHas_LeadToASwitch) {
  const auto facts = [](const std::string& text) { return nlohmann::json::parse(facts_json(read(text))); };
  EXPECT_EQ(facts(switched(4, 18))["links_to_switch"]["gpu3"], 18);
  EXPECT_EQ(facts(switched(4, 18))["gpu_pair_links"].size(), 0U);
  EXPECT_EQ(facts(switched(4, 4))["links_per_gpu"]["gpu3"], 12);
  EXPECT_EQ(facts(switched(4, 4))["nvswitch"], false);
  EXPECT_EQ(facts(switched(4, 4))["gpu_pair_links"].size(), 12U);
}

// V100 has 6 NVLinks and PCIe Gen3, A100 12 and Gen4, H100 18 and Gen5.
TEST(NvidiaSmi, Slots_AreOfTheGenerationOfTheNvlinks) {
  const auto slot = [](int links) {
    const Topology topology = read(switched(2, links));
    for (const Link& link : topology.templates.at(0).links)
      if (link.kind == LinkKind::pcie) return std::pair(link.GBps_per_direction, link.source_note);
    return std::pair(0.0, std::string());
  };
  EXPECT_EQ(slot(18), std::pair(64.0, std::string("PCIe Gen5 x16: 18 NVLinks are Hopper's or later")));
  EXPECT_EQ(slot(12), std::pair(32.0, std::string("PCIe Gen4 x16: 12 NVLinks are Ampere's or later")));
  EXPECT_EQ(slot(11).first, 16);
  EXPECT_EQ(slot(6).first, 16);
}

TEST(NvidiaSmi, GpuWithFewerLinksToTheSwitch_IsKept) {
  std::string text = switched(3, 18);  // all cells of GPU2: NV16
  text = replaced(text, "GPU2\tNV18\tNV18", "GPU2\tNV16\tNV16");
  text = replaced(text, "X\tNV18\tNV18\n", "X\tNV18\tNV16\n");
  text = replaced(text, "NV18\tX\tNV18\n", "NV18\tX\tNV16\n");
  const auto facts = nlohmann::json::parse(facts_json(read(text)));
  EXPECT_EQ(facts["links_to_switch"]["gpu0"], 18);
  EXPECT_EQ(facts["links_to_switch"]["gpu2"], 16);
}

TEST(NvidiaSmi, NoAffinityAtAll_IsSaid) {
  EXPECT_TRUE(warns(read(switched(8, 18)), "taken as one"));
  EXPECT_FALSE(warns(read(switched(8, 18, "0-63")), "taken as one"));
}

TEST(NvidiaSmi, OneAffinityButSys_IsTwoCpusAndSaid) {
  const Topology topology = read("GPU0 GPU1 CPU Affinity\nGPU0 X SYS 0-7\nGPU1 SYS X 0-7\n");
  EXPECT_EQ(Router(topology).route(0, 1).path_class, PathClass::SYS);
  EXPECT_TRUE(warns(topology, "one affinity"));
}

TEST(NvidiaSmi, RowsOfNicsMissing_AreSaid) {
  std::string text = two_switches();
  text = text.substr(0, text.find("NIC1\tSYS\tSYS"));
  const Topology topology = read(text);
  EXPECT_TRUE(warns(topology, "no row for NIC1"));
  EXPECT_EQ(Router(topology).route_to_nic(3, 1).path_class, PathClass::PHB);
}

TEST(NvidiaSmi, NicsThatContradict_AreLeftOutAndSaid) {
  std::string text = replaced(two_switches(), "PXB\tSYS\t X \tSYS", "PXB\tSYS\t X \tPIX");
  text = replaced(text, "PHB\tSYS\t X ", "PHB\tPIX\t X ");
  const Topology topology = read(text);
  EXPECT_TRUE(warns(topology, "paths between NICs fit no tree"));
  EXPECT_EQ(Router(topology).route_to_nic(0, 0).path_class, PathClass::PIX);
}

TEST(NvidiaSmi, DamagedMatrices_AreNamed) {
  const auto broken = [](const std::string& from, const std::string& to) {
    return said(replaced(two_switches(), from, to));
  };
  EXPECT_TRUE(contains(broken("SYS\tPIX\tSYS\t0", "SYS\tPIXSYS\t0"), "column NIC0: \"PIXSYS\": two cells have run"));
  EXPECT_TRUE(contains(broken("GPU3\tSYS\tSYS\tSYS", "GPU3\tSYS\t\tSYS"), "row GPU3, column GPU1: empty"));
  EXPECT_TRUE(contains(broken("GPU1\tNV4\t X ", "GPU1\tNV2\t X "), "NV4 one way, NV2 the other"));
  EXPECT_TRUE(contains(broken("GPU1\tNV4\t X \tNODE", "GPU1\tNV4\tNODE\t X "), "has the row lost a cell"));
  EXPECT_TRUE(contains(broken("GPU2\tGPU3\tNIC0", "GPU2GPU3\tNIC0"), "run together"));
  EXPECT_TRUE(contains(broken("GPU3\tNIC0\tNIC1\tCPU", "GPU3\tNIC0\tCPU"), "row NIC1: no such column"));
  EXPECT_TRUE(contains(broken("GPU3\tSYS\tSYS\tSYS\t X ", "GPX3\tSYS\tSYS\tSYS\t X "), "row GPU3: missing"));
  EXPECT_TRUE(contains(broken("\tNV4\t", "\tNV99999999999\t"), "column GPU1"));
  EXPECT_TRUE(contains(said(two_switches() + two_switches()), "a second matrix"));
  EXPECT_TRUE(contains(said("GPU0 GPU1\nGPU0 X\n"), "1 of 2 cells"));
  EXPECT_TRUE(contains(said("hello"), "no line of columns"));
}

TEST(NvidiaSmi, ClassesThatFitNoTree_AreNamedAsAChain) {
  const std::string message = said(
      "GPU0 GPU1 NIC0 NIC1\n"
      "GPU0 X SYS PIX PIX\n"
      "GPU1 SYS X PIX SYS\n");
  EXPECT_TRUE(contains(message, "GPU0-NIC0 PIX, NIC0-GPU1 PIX, yet GPU0-GPU1 SYS")) << message;
}

TEST(NvidiaSmi, TooManyColumns_AreRefused) { EXPECT_TRUE(contains(said(switched(97, 1)), "more than 96")); }

TEST(NvidiaSmi, CutOffAnywhere_IsReadOrRefused) {
  const std::string text = two_switches();
  for (std::size_t length = 0; length < text.size(); ++length) try {
      EXPECT_EQ(read_topology(text.substr(0, length), "cut.txt", "nvidia-smi").gpu_count(), 4);
    } catch (const InvalidInput& error) {
      EXPECT_FALSE(error.hint.empty());
    }
}

TEST(NvidiaSmi, AnyByteChanged_IsReadOrRefused) {
  const std::string text = two_switches();
  for (std::size_t at = 0; at < text.size(); ++at)
    for (const char other : {'\t', '\n', 'X', '9', '\x1b', '\xc2'}) {
      std::string changed = text;
      changed[at] = other;
      try {
        const Router router(read_topology(changed, "changed.txt", "nvidia-smi"));
      } catch (const InvalidInput&) {
      }
    }
}

}  // namespace
}  // namespace topomoe::test
