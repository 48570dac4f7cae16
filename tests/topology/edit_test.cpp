// Edits: what is removed, degraded or set, what it does to routes and loads, and how it is written.
#include <set>

#include "random_cluster.hpp"
#include "support.hpp"
#include "topomoe/build_fabric.hpp"
#include "topomoe/class_loads.hpp"

namespace topomoe::test {
namespace {

Topology edited(const Topology& topology, const std::vector<std::string>& texts) {
  std::vector<Edit> edits;
  for (const std::string& text : texts) {
    const std::string rest = text.substr(text.find(' ') + 1);
    edits.push_back(text[0] == 'r' ? parse_remove(rest) : text[0] == 'd' ? parse_degrade(rest) : parse_set(rest));
  }
  return edit(topology, edits);
}

double rate_of(const Topology& topology, const std::string& name) {
  const Router router(topology);
  for (int id = 0; id < router.link_count(); ++id)
    if (router.link(id).name == name) return router.link_GBps_per_direction(id);
  ADD_FAILURE() << "no link " << name;
  return -1;
}

void expect_groups(const Topology& topology, const std::vector<HostGroup>& groups) {
  EXPECT_EQ(topology.groups, groups);
}

TEST(Edit, RemovedGpu_SplitsItsHostOffAndKeepsTheRestFolded) {
  const Topology topology = edited(cluster("h100-32x8"), {"remove host17.gpu3"});
  expect_groups(topology, {{0, 17}, {1, 1}, {0, 14}});
  EXPECT_EQ(topology.templates[1].name, "dgx-h100 without gpu3");
  EXPECT_EQ(topology.gpu_count(), 255);
  EXPECT_EQ(topology.gpu_name(17 * 8 + 3), "host17.gpu4");  // the others keep their names
  EXPECT_TRUE(warns(topology, "edited: host17.gpu3 removed"));
  EXPECT_FALSE(topology.uniform());
  const Router router(topology);
  EXPECT_EQ(router.route(17 * 8 + 3, 4).path_class, PathClass::NET);  // gpu4 keeps its NIC, rail 4
  // Two hosts that lose the same GPU share a template; neighbours are one group.
  expect_groups(edited(cluster("h100-32x8"), {"remove host4.gpu3", "remove host5.gpu3", "remove host9.gpu3"}),
                {{0, 4}, {1, 2}, {0, 3}, {1, 1}, {0, 22}});
}

TEST(Edit, RemovedHost_KeepsItsPlace) {
  const Topology topology = edited(cluster("h100-32x8"), {"remove host3", "remove host4"});
  EXPECT_EQ(topology.host_count(), 32);
  EXPECT_EQ(topology.gpu_count(), 240);
  EXPECT_EQ(topology.gpu_name(24), "host5.gpu0");
  EXPECT_TRUE(topology.uniform());
  EXPECT_EQ(topology.gpus_per_node(), 8);
  EXPECT_EQ(Router(topology).route(0, 24).path_class, PathClass::NET);
  EXPECT_EQ(edited(cluster("h100-2x8"), {"remove host0"}).gpus_per_node(), 8);
}

// A tray less in the rack: the others still meet on their plane.
TEST(Edit, RemovedHostOfADomain_LeavesTheOthersWhereTheyAre) {
  const Topology topology = edited(cluster("gb200-nvl72"), {"remove host2"});
  EXPECT_EQ(topology.gpus_in_node(0), 68);
  EXPECT_EQ(Router(topology).route(0, 67).path_class, PathClass::NVL);
}

TEST(Edit, RemovedNic_ItsGpuTakesAnother) {
  const Topology topology = edited(small_cluster(4), {"remove host1.nic2"});
  expect_groups(topology, {{0, 1}, {1, 1}, {0, 2}});
  const Router router(topology);
  const Route route = router.route(6, 2);  // gpu2 of host1 to gpu2 of host0: its switch has nic3 as well
  EXPECT_NE(route.path_class, PathClass::DIS);
  for (const std::string& name : link_names(router, route)) EXPECT_FALSE(contains(name, "host1.nic2")) << name;
}

TEST(Edit, DegradedNicAndGpu_LoseRateOnTheirOwnLinks) {
  const Topology topology = edited(small_cluster(4), {"degrade host1.nic2=0.25", "degrade host0.gpu3=0.5"});
  EXPECT_EQ(rate_of(topology, "host1.nic2->leaf2"), 25 * 0.25);
  EXPECT_EQ(rate_of(topology, "host1.nic3->leaf3"), 25);
  EXPECT_EQ(rate_of(topology, "host1.nic2->pci_switch1"), 32);
  EXPECT_EQ(rate_of(topology, "host0.gpu3->nvswitch"), 50);
  EXPECT_EQ(rate_of(topology, "host0.nvswitch->gpu3"), 50);
  EXPECT_EQ(rate_of(topology, "host0.gpu2->nvswitch"), 100);
  EXPECT_EQ(rate_of(edited(small_cluster(4), {"degrade host2.gpu0->nvswitch=0.5"}), "host2.gpu0->nvswitch"), 50);
  EXPECT_EQ(rate_of(edited(small_cluster(4), {"degrade host2=0.5"}), "host2.nic0->leaf4"), 12.5);
}

// Any name that a report prints can be typed.
TEST(Edit, LinksOfHosts_FromEitherEndAndOverSharedPlanes) {
  EXPECT_EQ(rate_of(edited(small_cluster(4), {"degrade leaf2->host1.nic2=0.5"}), "host1.nic2->leaf2"), 12.5);
  const Topology rack = cluster("gb200-nvl72");
  for (const char* name : {"host3.gpu1->domain0.nvswitch", "domain0.nvswitch->host3.gpu1", "host3.gpu1->nvswitch"}) {
    const Topology slow = edited(rack, {std::string("degrade ") + name + "=0.5"});
    EXPECT_EQ(rate_of(slow, "host3.gpu1->domain0.nvswitch"), 450);
    EXPECT_EQ(rate_of(slow, "host3.gpu2->domain0.nvswitch"), 900);
  }
  for (unsigned seed = 0; seed < 12; ++seed) {
    const Topology topology = random_alike_cluster(seed, 4);
    const Router router(topology);
    for (int id = 0; id < router.link_count(); ++id) {
      const LinkInfo link = router.link(id);
      const Router slow(edited(topology, {"degrade " + link.name + "=0.5"}));
      EXPECT_EQ(slow.link_GBps_per_direction(id), link.GBps_per_direction / 2) << link.name;
    }
  }
}

// Pod 0 of two hosts: their ports to leaf 1 and its uplinks at half; other leaves as they were.
TEST(Edit, DegradedLeaf_TakesItsPortsAndUplinksAlong) {
  const Topology topology = edited(small_cluster(6), {"degrade leaf1=0.5"});
  expect_groups(topology, {{1, 2}, {0, 4}});
  EXPECT_EQ(rate_of(topology, "host1.nic1->leaf1"), 12.5);
  EXPECT_EQ(rate_of(topology, "leaf1->host0.nic1"), 12.5);
  EXPECT_EQ(rate_of(topology, "leaf1->spine"), 25);
  EXPECT_EQ(rate_of(topology, "spine->leaf1"), 25);
  EXPECT_EQ(rate_of(topology, "leaf5->spine"), 50);
  EXPECT_EQ(rate_of(topology, "host2.nic1->leaf5"), 25);
}

TEST(Edit, RemovedLeaf_ItsGpusGoOverAnotherRail) {
  const Topology topology = edited(small_cluster(4), {"remove leaf1"});
  const Router router(topology);
  for (const auto& [src, dst] : {std::pair{1, 5}, {1, 9}, {9, 1}, {0, 1 + 4}}) {
    const Route route = router.route(src, dst);
    EXPECT_NE(route.path_class, PathClass::DIS);
    for (const std::string& name : link_names(router, route)) EXPECT_FALSE(contains(name, "leaf1")) << name;
  }
  EXPECT_NO_THROW(all_to_all_loads(router, 1));
}

TEST(Edit, DeadUplinks_FlowsLeaveByTheGpuOfAnotherRail) {
  const Topology topology = edited(small_cluster(4), {"remove leaf1->spine"});
  const Router router(topology);
  EXPECT_EQ(router.route(1, 5).path_class, PathClass::NET);  // inside the pod the leaf still serves
  const Route far = router.route(1, 9);                      // to gpu1 of host2, in the other pod
  EXPECT_EQ(far.path_class, PathClass::PXN);
  EXPECT_EQ(link_names(router, far)[1], "host0.nvswitch->gpu0");
  EXPECT_TRUE(contains(link_names(router, far)[5], "leaf0->spine"));
  EXPECT_EQ(rate_of(topology, "leaf1->spine"), 0);
}

// 2 spines: without one of them each leaf has half of 50 GB/s left; without one uplink only its leaf.
TEST(Edit, OneOfSeveralSpines_TakesItsShare) {
  EXPECT_EQ(rate_of(edited(small_cluster(4), {"remove spine1"}), "leaf6->spine"), 25);
  const Topology one = edited(small_cluster(4), {"remove leaf6->spine1"});
  EXPECT_EQ(rate_of(one, "leaf6->spine"), 25);
  EXPECT_EQ(rate_of(one, "leaf5->spine"), 50);
  EXPECT_EQ(rate_of(edited(small_cluster(4), {"remove spine0", "remove spine1"}), "leaf6->spine"), 0);
  EXPECT_EQ(rate_of(edited(small_cluster(4), {"degrade spine0=0.5", "degrade leaf6->spine=0.5"}), "leaf6->spine"),
            18.75);
}

TEST(Edit, PodsGroupsAndRings_AreNamedAsTheirLinks) {
  Topology pods = small_cluster(8);
  pods.fabric->hosts_per_pod = 4;
  pods.fabric->core_count = 4;
  pods.fabric->pod_uplink = {100, 1, Source::assumed, "test"};
  EXPECT_EQ(rate_of(edited(pods, {"remove pod1->core3"}), "pod1->core"), 75);
  EXPECT_EQ(rate_of(edited(pods, {"remove core3", "degrade core->pod1=0.5"}), "pod1->core"), 37.5);
  EXPECT_EQ(rate_of(edited(pods, {"remove pod0.spine1"}), "leaf3->pod0"), 25);
  EXPECT_EQ(rate_of(edited(pods, {"set pod_uplink.GBps=40"}), "core->pod0"), 40);

  Topology groups = pods;
  groups.fabric->kind = FabricKind::dragonfly_plus;
  groups.fabric->core_count = 0;
  groups.fabric->hosts_per_pod = 2;
  const Topology cut = edited(groups, {"remove group0->group2"});
  EXPECT_EQ(rate_of(cut, "group2->group0"), 0);
  const Router router(cut);
  EXPECT_EQ(link_names(router, router.route(0, 4 * 4))[4], "group0->group3");  // (0 + 2 + 1) % 4 is the first third
  EXPECT_TRUE(contains(refusal([&] { edited(groups, {"remove group0->group4"}); }), "groups 0 to 3"));

  Topology torus = small_cluster(6);
  torus.fabric = Fabric{};
  torus.fabric->kind = FabricKind::torus;
  torus.fabric->dims = {3, 2};
  torus.fabric->ring = {10, 1, Source::assumed, "test"};
  const Router around(edited(torus, {"remove host0.ring->host1.ring"}));
  const Route route = around.route(0, 4);  // 0 -> 2 -> 1 instead of 0 -> 1
  EXPECT_EQ(link_names(around, route)[3], "host0.ring->host2.ring");
  EXPECT_EQ(link_names(around, route)[4], "host2.ring->host1.ring");
  EXPECT_TRUE(contains(refusal([&] { edited(torus, {"remove host0.ring->host4.ring"}); }), "neighbours"));
  EXPECT_TRUE(contains(refusal([&] { edited(torus, {"remove leaf0"}); }), "no leaves"));
}

// Each GPU has two ports, one on each of two planes, and spreads its peers over them. Where the leaf of plane 0 has
// lost its uplinks, all that leaves the unit goes by plane 1; inside the unit both still serve.
TEST(Edit, DeadPlane_FlowsTakeTheOtherPort) {
  HostShape shape = small_shape();
  shape.nics = 8;
  shape.gpus_per_pci_switch = 1;
  Topology topology = small_cluster(8, shape);
  RailOptimisedShape fabric;
  fabric.hosts_per_leaf = 4;
  fabric.spine_count = 2;
  topology.fabric = build_rail_optimised(topology, fabric);
  topology.fabric->rail_optimised = false;
  topology.fabric->planes = 2;
  EXPECT_EQ(topology.leaf_count(), 4);
  const auto planes_used = [](const Topology& t, int first_host, int last_host) {
    const Router router(t);
    std::set<std::string> used;
    for (int host = first_host; host <= last_host; ++host)
      for (const std::string& name : link_names(router, router.route(0, 4 * host)))
        if (contains(name, "->leaf")) used.insert(name.substr(name.find("->") + 2));
    return used;
  };
  using Leaves = std::set<std::string>;
  EXPECT_EQ(planes_used(topology, 1, 3), (Leaves{"leaf0", "leaf1"}));
  const Topology cut = edited(topology, {"remove leaf0->plane0.spine"});
  EXPECT_EQ(planes_used(cut, 1, 3), (Leaves{"leaf0", "leaf1"}));
  EXPECT_EQ(planes_used(cut, 4, 7), (Leaves{"leaf1", "leaf3"}));  // up by leaf 1, down by leaf 3, both of plane 1
  EXPECT_EQ(rate_of(edited(topology, {"remove plane1.spine0"}), "leaf1->plane1.spine"),
            rate_of(topology, "leaf1->plane1.spine") / 2);
}

TEST(Edit, SetFigures_ForAllOfThem) {
  const Topology topology = cluster("h100-32x8");
  EXPECT_EQ(rate_of(edited(topology, {"set nic.GBps=25"}), "host5.nic3->leaf3"), 25);
  EXPECT_EQ(edited(topology, {"set nic.GBps=25"}).fabric->oversubscription, 0.5);  // the uplinks are as they were
  EXPECT_EQ(rate_of(edited(topology, {"set nvlink.GBps=900"}), "host5.gpu3->nvswitch"), 900);
  EXPECT_EQ(rate_of(edited(topology, {"set pcie.GBps=128"}), "host5.gpu3->pci_switch3"), 128);
  EXPECT_EQ(rate_of(edited(topology, {"set uplink.GBps=100"}), "leaf3->spine"), 100);
  EXPECT_EQ(rate_of(edited(topology, {"set oversubscription=4"}), "leaf3->spine"), 32 * 50 / 4.0);
  EXPECT_EQ(edited(topology, {"set hosts=64"}).host_count(), 64);
  EXPECT_EQ(edited(topology, {"set hosts=4"}).gpu_count(), 32);
  EXPECT_EQ(edited(topology, {"set hosts_per_domain=4"}).gpus_per_node(), 32);
  EXPECT_EQ(edited(topology, {"set gpu.memory_GiB=141"}).gpu_spec(0).memory_GiB, 141);
  // A regular host stays short.
  EXPECT_TRUE(contains(write_cluster_json(edited(topology, {"set nvlink.GBps=333", "set nic.GBps=77"})), "\"shape\""));
}

TEST(Edit, FewerHosts_DropTheExceptionsOfLeavesThatWent) {
  Topology topology = edited(cluster("h100-1024x8"), {"remove leaf9->spine", "remove leaf3->spine"});
  EXPECT_EQ(edited(topology, {"set hosts=32"}).fabric->exceptions.size(), 1U);
  EXPECT_EQ(resize_hosts(topology, 256, nullptr).fabric->exceptions.size(), 1U);
}

TEST(Edit, UnknownNames_SayWhatThereIs) {
  const Topology topology = cluster("h100-32x8");
  const std::vector<std::pair<std::string, std::string>> cases{
      {"remove host32", "host0 to host31"},
      {"remove host3.gpu9", "host3 has gpu0, gpu1"},
      {"remove host3.numa0", "holds others up"},
      {"remove leaf8", "leaf0 to leaf7"},
      {"remove leaf3->core", "leaf3->spine"},
      {"remove leaf3->spine999", "leaf3->spineN"},
      {"remove rail8", "rail0 to rail7"},
      {"remove host3.gpu1->gpu2", "is joined to pci_switch1, nvswitch"},
      {"remove nothing", "leaf0 to leaf7"},
      {"degrade leaf3=0", "above 0"},
      {"degrade leaf3=1.5", "at most 1"},
      {"degrade leaf3", "leaf3=0.5"},
      {"degrade leaf3=fast", "leaf3=0.5"},
      {"set nic.Gbps=25", "nic.GBps"},
      {"set nic.GBps=-1", "above 0"},
      {"set nic.GBps=nan", "a number"},
      {"set hosts=1.5", "whole number"},
      {"set hosts=1e12", "10,000,000"},
      {"set ring.GBps=5", "has none"},
      {"remove leaf3=0.5", "a name alone"},
      {"remove leaf3-", "in quotes"},
  };
  for (const auto& [text, part] : cases)
    EXPECT_TRUE(contains(refusal([&] { edited(topology, {text}); }), part)) << text;
  EXPECT_TRUE(contains(refusal([&] { edited(cluster("dgx-h100"), {"remove leaf0"}); }), "no fabric"));
  EXPECT_TRUE(contains(refusal([&] { edited(cluster("dgx-h100"), {"remove host0"}); }), "no GPU"));
}

TEST(Edit, EditedClusters_RoundTripThroughJson) {
  const Topology topology = cluster("h100-1024x8");
  const Topology all = edited(topology, {"remove host17.gpu3", "remove host20", "degrade leaf3=0.5", "remove leaf70",
                                         "degrade host900.nic2=0.25", "remove leaf9->spine5", "set nic.GBps=37.5"});
  const std::string text = write_cluster_json(all);
  EXPECT_LT(text.size(), 120'000U);
  const Topology read = read_cluster_json(text, "edited");
  EXPECT_EQ(write_cluster_json(read), text);
  EXPECT_EQ(fingerprint(read), fingerprint(all));
  EXPECT_NE(fingerprint(all), fingerprint(topology));
  EXPECT_EQ(read.fabric->exceptions, all.fabric->exceptions);
  EXPECT_EQ(fingerprint(edited(topology, {})), fingerprint(topology));
}

// Random edits: loads by classes stay equal to flow by flow, which routes of edited hosts and dead links test hardest.
TEST(Edit, RandomEdits_LoadsByClassesEqualFlowByFlow) {
  int joined = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    Topology topology = random_alike_cluster(seed, 4);
    Dice dice(seed + 5);
    for (int i = dice.between(1, 3); i > 0; --i) {
      const std::string host = "host" + std::to_string(dice.between(0, topology.host_count() - 1));
      const std::string digit = std::to_string(dice.between(0, 3));
      const std::vector<std::string> all{"remove " + host, "remove " + host + ".gpu" + digit,
                                         "remove " + host + ".nic" + digit, "degrade " + host + ".nic" + digit + "=0.5",
                                         "remove leaf" + digit};
      try {
        topology = edited(topology, {all[static_cast<std::size_t>(dice.between(0, 4))]});
      } catch (const InvalidInput&) {  // gone already, or no such leaf
      }
    }
    const Router router(topology);
    std::optional<FoldedLoads> folded;
    try {
      folded = all_to_all_loads(router, 1);
    } catch (const InvalidInput&) {
      continue;
    }
    ++joined;
    LinkLoads loads(router);
    for (int src = 0; src < topology.gpu_count(); ++src)
      for (int dst = 0; dst < topology.gpu_count(); ++dst) loads.add(src, dst, 1);
    for (int id = 0; id < router.link_count(); ++id)
      ASSERT_EQ(folded->bytes_on(id), loads.bytes_on(id)) << seed << " " << router.link(id).name;
  }
  EXPECT_GT(joined, 20);
}

// Two hosts a leaf and four rails, so leaves 0 to 3 are those of the first two hosts.
Topology named_cluster() {
  Topology topology = small_cluster(4);
  topology.host_names = {"n1", "n1.west", "n3", "n4"};
  topology.fabric->leaf_names.assign(8, "");
  topology.fabric->leaf_names[5] = "isr5";
  topology.fabric->pod_names = {"top"};
  return topology;
}

Topology removed(const Topology& from, const std::string& target) { return edit(from, {parse_remove(target)}); }

TEST(Edit, NamesOfPeople_AreThoseOfTheirNumbers) {
  const Topology topology = named_cluster();
  const std::pair<const char*, const char*> alike[] = {{"n3", "host2"},
                                                       {"n3.gpu1", "host2.gpu1"},
                                                       {"n1.gpu1", "host0.gpu1"},
                                                       {"n1.west.nic2", "host1.nic2"},
                                                       {"isr5", "leaf5"},
                                                       {"isr5->top", "leaf5->spine"},
                                                       {"n4.gpu0->nvswitch", "host3.gpu0->nvswitch"}};
  for (const auto& [named, numbered] : alike) {
    Topology a = removed(topology, named), b = removed(topology, numbered);
    EXPECT_TRUE(warns(a, std::string("edited: ") + named + " removed"));
    a.warnings = b.warnings = {};
    EXPECT_EQ(a, b) << named;
  }
}

// What a report names can be typed back.
TEST(Edit, EveryLinkByItsName_IsFound) {
  const Topology topology = named_cluster();
  const Router router(topology);
  EXPECT_EQ(router.link(0).name, "n1.pci_switch0->numa0");
  EXPECT_EQ(topology.gpu_name(4), "n1.west.gpu0");
  bool named_leaf = false;
  for (int id = 0; id < router.link_count(); ++id) {
    const LinkInfo link = router.link(id);
    named_leaf = named_leaf || link.name == "isr5->spine";
    EXPECT_NO_THROW(edit(topology, {{Edit::Kind::degrade, link.name, 0.5}})) << link.name;
  }
  EXPECT_TRUE(named_leaf);
}

TEST(Edit, NameThatIsAlsoAnothersNumber_IsRefused) {
  Topology topology = small_cluster(2);
  topology.host_names = {"host1", "host2"};  // the hosts 0 and 1
  EXPECT_TRUE(contains(refusal([&] { removed(topology, "host1"); }), "what people call host0"));
  topology.host_names = {"host0", "host1"};
  EXPECT_EQ(removed(topology, "host1").gpu_count(), 4);
}

}  // namespace
}  // namespace topomoe::test
