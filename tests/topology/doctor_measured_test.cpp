// Measurements against a description: bounds by hand, verdicts, and runs that are not of it.
#include "topology/doctor/doctor_measured.hpp"

#include <cmath>
#include <limits>
#include <map>
#include <sstream>

#include "support.hpp"

namespace topomoe::test {
namespace {

constexpr double kMiB = 1024.0 * 1024, kNone = std::numeric_limits<double>::quiet_NaN();

// A run of `hosts` x `each` ranks that reached `busbw_GBps` at `bytes`.
MeasuredCollective run(const std::string& operation, int hosts, int each, double busbw_GBps,
                       double bytes = 1024 * kMiB) {
  MeasuredCollective out{"out.txt", operation, "2.27", hosts * each, {}, {}, 0, 0};
  for (int rank = 0; rank < hosts * each; ++rank)
    out.devices.push_back({rank, 0, "node" + std::to_string(rank / each), rank % each, "", "NVIDIA H100 80GB HBM3"});
  out.rows.push_back({bytes, {bytes / busbw_GBps / 1e3, busbw_GBps, busbw_GBps, 0}, {kNone, kNone, kNone, kNone}});
  return out;
}

BusbwCeiling bound(const Topology& topology, const MeasuredCollective& own) {
  std::vector<Finding> findings;
  const auto place = place_run(own, topology, findings);
  EXPECT_TRUE(place.has_value()) << findings_text(findings);
  return busbw_ceiling(place.value(), own.operation);
}

std::vector<Finding> judged(const Topology& topology, std::vector<Measured> measured) {
  return diagnose_measured(topology, measured);
}
// The only finding.
Finding verdict(const Topology& topology, const MeasuredCollective& own) {
  const std::vector<Finding> all = judged(topology, {own});
  EXPECT_EQ(all.size(), 1U) << findings_text(all);
  return all.at(0);
}

// ---------------------------------------------------------------- bounds

// N/(N-1) x (n-1)/n x 50 GB/s: 2 x 15/16 x 50 = 93.75, 4/3 x 31/32 x 50 = 64.58; in one host 18 NVLinks of 25 GB/s.
TEST(BusbwCeiling, AllToAll_IsTheClosedFormWhereNicsLimit) {
  const Topology sixteen = cluster("h100-16x8");
  const BusbwCeiling two = bound(sixteen, run("alltoall", 2, 8, 1)), four = bound(sixteen, run("alltoall", 4, 8, 1));
  EXPECT_NEAR(two.usual_GBps, 93.75, 1e-9);
  EXPECT_EQ(two.formula, "2/1 x 15/16 x 50 GB/s of NIC a GPU");
  EXPECT_EQ(two.bottleneck, "host0.nic0->leaf0");
  EXPECT_NEAR(four.usual_GBps, 4.0 / 3 * 31 / 32 * 50, 1e-9);
  EXPECT_NEAR(bound(sixteen, run("alltoall", 1, 8, 1)).usual_GBps, 450, 1e-9);
  // Half of its NICs for as many GPUs: half.
  EXPECT_NEAR(bound(edit(sixteen, {parse_set("nic.GBps=25")}), run("alltoall", 2, 8, 1)).usual_GBps, 46.875, 1e-9);
  // Of 1,024 hosts the first three: the pattern, not the cluster, counts.
  EXPECT_NEAR(bound(cluster("h100-1024x8"), run("alltoall", 3, 8, 1)).usual_GBps, 1.5 * 23 / 24 * 50, 1e-9);
}

// A rack of NVL72 is one node: 900 GB/s of NVLink and no NIC.
TEST(BusbwCeiling, AllToAll_OverHostsOfOneDomainTakesNvlink) {
  const BusbwCeiling own = bound(cluster("gb200-nvl72"), run("alltoall", 4, 4, 1));
  EXPECT_NEAR(own.usual_GBps, 900, 1e-9);
  EXPECT_EQ(own.formula, "");
}

// A dead GPU link or a slow NIC shows in the bound, and by name.
TEST(BusbwCeiling, AllToAll_NamesTheLinkThatLimits) {
  const Topology slow = edit(cluster("h100-2x8"), {parse_degrade("host1.nic3=0.5")});
  const BusbwCeiling own = bound(slow, run("alltoall", 2, 8, 1));
  EXPECT_NEAR(own.usual_GBps, 93.75 / 2, 1e-9);
  EXPECT_TRUE(contains(own.bottleneck, "host1.nic3") || contains(own.bottleneck, "->host1.nic3")) << own.bottleneck;
  EXPECT_EQ(own.formula, "");
}

// A ring leaves a node with all it carries by 8 NICs of 50: 400. Trees reduce inside first: 31/24 x 400 = 516.7, but a
// GPU has 450 of NVLink and 64 of PCIe: 514. Switches that reduce: 2 x 31/32 x 400 = 775.
TEST(BusbwCeiling, Rings_AreBoundByTheEdgeOfANode) {
  const Topology sixteen = cluster("h100-16x8");
  const BusbwCeiling own = bound(sixteen, run("all_reduce", 4, 8, 1));
  EXPECT_NEAR(own.usual_GBps, 400, 1e-9);
  EXPECT_NEAR(own.any_GBps, 514, 1e-9);
  EXPECT_NEAR(own.in_switch_GBps, 775, 1e-9);
  EXPECT_EQ(own.bottleneck, "all 8 NICs of host0");
  EXPECT_NEAR(bound(sixteen, run("all_gather", 4, 8, 1)).in_switch_GBps, 514, 1e-9);
  EXPECT_NEAR(bound(sixteen, run("reduce_scatter", 1, 8, 1)).usual_GBps, 450, 1e-9);
  EXPECT_NEAR(bound(sixteen, run("broadcast", 4, 8, 1)).any_GBps, 400, 1e-9);
  // One GPU of each host uses the NIC beside it, 50; of all eight its slot of PCIe could take 64.
  const BusbwCeiling one = bound(sixteen, run("all_gather", 4, 1, 1));
  EXPECT_NEAR(one.usual_GBps, 50, 1e-9);
  EXPECT_EQ(one.bottleneck, "1 of 8 NICs of host0, the nearest");
  EXPECT_NEAR(one.any_GBps, 64, 1e-9);
  EXPECT_NEAR(bound(sixteen, run("send_recv", 2, 8, 1)).usual_GBps, 50, 1e-9);
}

// 7 ranks on one host and 1 on another, 100 GB/s out of each. A sum of S bytes leaves host0 and the result comes back:
// S/100 at least, and 2 x 7/8 x 100 = 175 of bus bandwidth; 7 GPUs of host0 alone allow no 7/1 x 100 = 700. All-gather:
// 7/8 of S leave host0: 7/8 S / (7/8 S / 100) = 100.
TEST(BusbwCeiling, AnyAlgorithm_OfUnequalSetsIsBoundByOneEdge) {
  HostShape shape = small_shape();
  shape.gpus = 8, shape.gpus_per_pci_switch = 4, shape.nvlink.GBps_per_direction = 10000;
  shape.pcie.GBps_per_direction = 10000;
  MeasuredCollective own = run("all_reduce", 1, 8, 1);
  own.devices[7].host = "node1", own.devices[7].device = 0;
  EXPECT_NEAR(bound(small_cluster(2, shape), own).any_GBps, 175, 1e-9);
  EXPECT_NEAR(bound(small_cluster(2, shape), own).in_switch_GBps, 175, 1e-9);
  own.operation = "all_gather";
  EXPECT_NEAR(bound(small_cluster(2, shape), own).any_GBps, 100, 1e-9);
}

// Three hosts of 100, 100 and 25 GB/s, a GPU each: of 225 GB/s together 4 buffers a sum, 2 x 2/3 x 225 / 4 = 75; the
// slow edge alone allows 2 x 2/3 x 25 = 33.3.
TEST(BusbwCeiling, AnyAlgorithm_IsTheLeastOfEdgesAndPartitions) {
  HostShape shape = small_shape();
  shape.nvlink.GBps_per_direction = shape.pcie.GBps_per_direction = 10000;
  Topology own = small_cluster(3, shape);
  EXPECT_NEAR(bound(own, run("all_reduce", 3, 1, 1)).any_GBps, 100, 1e-9);  // 4/3 x 300 / 4
  own = edit(own, {parse_remove("host2.nic1"), parse_remove("host2.nic2"), parse_remove("host2.nic3")});
  EXPECT_NEAR(bound(own, run("all_reduce", 3, 1, 1)).any_GBps, 100.0 / 3, 1e-9);
}

TEST(DoctorMeasured, GatherAndScatter_AreNotJudged) {
  for (const char* operation : {"gather", "scatter"}) {
    const Finding own = verdict(cluster("dgx-h100"), run(operation, 1, 8, 3000));
    EXPECT_EQ(own.severity, Severity::note);
    EXPECT_TRUE(contains(own.check, "not judged: what it can reach depends on its root"));
  }
}

// Hosts of four NICs of 25 GB/s, two to a unit of four leaves. 10 GB/s up from each leaf: 40 leave the unit, and of 8
// in 16 ranks any algorithm gets 15/8 of it.
TEST(BusbwCeiling, Rings_AreBoundByTheUplinks) {
  Topology topology = small_cluster(4);
  EXPECT_NEAR(bound(topology, run("all_gather", 4, 4, 1)).usual_GBps, 100, 1e-9);
  topology.fabric->uplink.GBps_per_direction = 10, topology.fabric->oversubscription = 5;
  const BusbwCeiling own = bound(topology, run("all_gather", 4, 4, 1));
  EXPECT_NEAR(own.usual_GBps, 40, 1e-9);
  EXPECT_NEAR(own.any_GBps, 75, 1e-9);
  EXPECT_EQ(own.bottleneck, "the uplinks of the leaves of unit 0");
}

// Without NVLink each GPU has its slot of 32, each pair a switch of 32 up, each half one way to the other.
TEST(BusbwCeiling, PcieHost_IsBoundByItsTree) {
  const BusbwCeiling own = bound(cluster("l40s-8x-pcie"), run("all_gather", 1, 8, 1));
  EXPECT_NEAR(own.usual_GBps, 32, 1e-9);
  EXPECT_EQ(own.klass, "pcie");
}

// NCCL_TESTS_SPLIT="MOD 8": eight pairs, each on its own rail; all-gathers of two share the NICs of a host by eight.
TEST(BusbwCeiling, Groups_RunAtTheSameTime) {
  MeasuredCollective own = run("alltoall", 2, 8, 1);
  for (MeasuredDevice& device : own.devices) device.group = device.rank % 8;
  const Topology two = cluster("h100-2x8");
  EXPECT_NEAR(bound(two, own).usual_GBps, 50, 1e-9);
  own.operation = "all_gather";
  const BusbwCeiling shared = bound(two, own);
  EXPECT_NEAR(shared.usual_GBps, 50, 1e-9);
  EXPECT_EQ(shared.formula, "shared by 8 groups");
}

// ---------------------------------------------------------------- verdicts

TEST(DoctorMeasured, Verdict_FollowsTheShareOfTheBound) {
  const Topology own = cluster("h100-16x8");
  // Healthy is 0.63 x 93.75 = 59.1; severe below 0.75 of that, 44.3; above 1.02 x 93.75 = 95.6 the description is
  // wrong.
  const std::pair<double, Severity> cases[] = {
      {93.7, Severity::note}, {60.1, Severity::note}, {58.9, Severity::warning}, {46, Severity::warning},
      {44, Severity::severe}, {9, Severity::severe},  {95.5, Severity::note},    {96, Severity::warning}};
  for (const auto& [GBps, severity] : cases)
    EXPECT_EQ(verdict(own, run("alltoall", 2, 8, GBps)).severity, severity) << GBps;
  const Finding low = verdict(own, run("alltoall", 4, 8, 14));
  EXPECT_EQ(low.element, "alltoall of 32 ranks on 4 hosts (out.txt)");
  EXPECT_EQ(low.seen, "bus bandwidth 14 GB/s at 1 GiB: 22 % of the bound");
  EXPECT_TRUE(contains(low.expected, "64.6 GB/s (4/3 x 31/32 x 50 GB/s of NIC a GPU) by host0.nic0->leaf0"));
  EXPECT_TRUE(contains(low.expected, "bound by nodes: 1: 450, 2: 93.8, 4: 64.6, 8: 56.2")) << low.expected;
  EXPECT_FALSE(low.cost.empty());
  EXPECT_TRUE(contains(low.check, "NCCL_IB_HCA"));
  const Finding high = verdict(own, run("alltoall", 4, 8, 90));
  EXPECT_TRUE(contains(high.seen, "more than the description allows"));
  EXPECT_TRUE(contains(high.check, "the description is wrong"));
}

// 22, 4.5 and 2.1 GB/s at 2, 4 and 8 L40S, as measured by others: without peer-to-peer CPUs pass on a fifth of their
// rate.
TEST(DoctorMeasured, PcieBox_IsHeldAgainstWhatCpusPassOn) {
  for (const auto& [ranks, GBps] : {std::pair(2, 22.0), {4, 4.5}, {8, 2.1}}) {
    MeasuredCollective own = run("alltoall", 1, ranks, GBps);
    for (MeasuredDevice& device : own.devices) device.gpu = "NVIDIA L40S";
    EXPECT_EQ(verdict(cluster("l40s-8x-pcie"), own).severity, Severity::note) << ranks;
    own.rows[0].out_of_place.busbw_GBps /= 3;
    EXPECT_EQ(verdict(cluster("l40s-8x-pcie"), own).severity, Severity::severe) << ranks;
  }
}

// 476 GB/s of 8 GPUs with NVLS, 470 of two hosts by a tree, 366 of four by a ring: as users measured (nccl-tests#290,
// #309).
TEST(DoctorMeasured, AllReduce_AboveARingIsNormalOfTreesAndSwitches) {
  const Topology own = cluster("h100-16x8");
  EXPECT_TRUE(contains(verdict(own, run("all_reduce", 1, 8, 476)).check, "NVLS, SHARP"));
  EXPECT_TRUE(contains(verdict(own, run("all_reduce", 2, 8, 470)).check, "normal of trees"));
  EXPECT_TRUE(contains(verdict(own, run("all_reduce", 4, 8, 366)).seen, "92 % of the bound, normal"));
  EXPECT_EQ(verdict(own, run("all_reduce", 4, 8, 160)).severity, Severity::severe);
  EXPECT_EQ(verdict(own, run("all_reduce", 1, 8, 810)).severity, Severity::warning);
}

// At 64 MiB healthy machines are on their way; at 1 MiB they are not yet.
TEST(DoctorMeasured, SmallSizes_AreNotJudgedAsLarge) {
  const Topology own = cluster("dgx-h100");
  EXPECT_EQ(verdict(own, run("alltoall", 1, 8, 150, 64 * kMiB)).severity, Severity::note);
  EXPECT_EQ(verdict(own, run("alltoall", 1, 8, 150)).severity, Severity::severe);
  EXPECT_EQ(verdict(own, run("alltoall", 1, 8, 100, 64 * kMiB)).severity, Severity::severe);
  EXPECT_TRUE(contains(verdict(own, run("alltoall", 1, 8, 17, kMiB)).check, "not judged"));
}

TEST(DoctorMeasured, WhatIsNotKnown_IsNotJudged) {
  Topology own = cluster("dgx-h100");
  own.templates[0].nvlink = Presence::unknown;
  EXPECT_TRUE(contains(verdict(own, run("alltoall", 1, 8, 5)).check, "not judged"));
  for (Nic& nic : own.templates[0].nics) nic.port.source = Source::unknown;
  own.templates[0].shape.reset();
  const std::vector<Finding> all = judged(own, {run("alltoall", 2, 8, 5)});
  EXPECT_TRUE(contains(findings_text(all), "does not know this rate")) << findings_text(all);
  EXPECT_FALSE(contains(findings_text(all), "severe"));
}

TEST(DoctorMeasured, WrongValues_AreSevere) {
  MeasuredCollective own = run("alltoall", 1, 8, 320);
  own.out_of_bounds = 3;
  EXPECT_EQ(judged(cluster("dgx-h100"), {own}).at(0).seen, "3 wrong values");
  own.out_of_bounds = 0;
  own.rows[0].out_of_place.wrong = 2e-6;   // as old versions print the error of a sum
  own.rows[0].in_place = {1, 1, 1000, 1};  // nor does an in-place all-to-all count, which old versions call wrong
  EXPECT_EQ(judged(cluster("dgx-h100"), {own}).size(), 1U);
  EXPECT_TRUE(contains(judged(cluster("dgx-h100"), {own}).at(0).seen, "320 GB/s"));
  own.operation = "all_gather";
  EXPECT_EQ(judged(cluster("dgx-h100"), {own}).at(0).seen, "wrong values");
}

// 70 and 52 GB/s: x 0.74, where the bound falls by 64.58 / 93.75 = 0.69. 70 and 30 is more than arithmetic.
TEST(DoctorMeasured, FallFromTwoToFourNodes_IsHeldAgainstTheBounds) {
  const Topology own = cluster("h100-16x8");
  const auto fall = [&](double four) {
    for (const Finding& finding : judged(own, {run("alltoall", 4, 8, four), run("alltoall", 2, 8, 70)}))
      if (contains(finding.element, "from 2 to 4 nodes")) return finding;
    return Finding{};
  };
  EXPECT_EQ(fall(52).severity, Severity::note);
  EXPECT_TRUE(contains(fall(52).expected, "x 0.69; that much is arithmetic"));
  EXPECT_EQ(fall(30).severity, Severity::warning);
  EXPECT_EQ(fall(75), Finding{});
}

// Every operation and number of GPUs of two systems: 0.50 to 0.99 of the bound.
TEST(DoctorMeasured, HealthyMachinesOfOthers_AreNormal) {
  const std::string path = data_path("measurements/nccl_single_node.csv");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there; set TOPOMOE_DATA_DIR";
  const std::map<std::string, std::string> clusters{{"a100_sxm", "dgx-a100"}, {"h100_sxm", "dgx-h100"}};
  std::istringstream lines(text_of(path));
  std::map<std::string, MeasuredCollective> runs;
  std::string line;
  for (std::getline(lines, line); std::getline(lines, line);) {
    std::istringstream cells(line);
    std::string system, nccl, operation, ranks, bytes, us;
    for (std::string* cell : {&system, &nccl, &operation, &ranks, &bytes, &us}) std::getline(cells, *cell, ',');
    if (!clusters.count(system)) continue;
    const int n = std::stoi(ranks);
    const double factor = operation == "all_reduce" ? 2.0 * (n - 1) / n : 1.0 * (n - 1) / n;
    const double busbw = std::stod(bytes) / std::stod(us) / 1e3 * factor;
    MeasuredCollective next = run(operation, 1, n, busbw, std::stod(bytes));
    for (MeasuredDevice& device : next.devices) device.gpu.clear();
    const auto [at, first] = runs.emplace(system + " " + operation + " " + ranks, next);
    if (!first) at->second.rows.push_back(next.rows[0]);
  }
  EXPECT_EQ(runs.size(), 24U);
  for (const auto& [name, own] : runs) {
    const Finding finding = verdict(cluster(clusters.at(name.substr(0, name.find(' ')))), own);
    EXPECT_EQ(finding.severity, Severity::note) << name << ": " << finding.seen;
    EXPECT_TRUE(contains(finding.seen, "normal")) << name << ": " << finding.seen;
  }
}

// ---------------------------------------------------------------- where it ran

TEST(DoctorMeasured, MoreHostsThanDescribed_AreGrownAndSaid) {
  const std::vector<Finding> one = judged(cluster("dgx-h100"), {run("alltoall", 4, 8, 50)});
  ASSERT_EQ(one.size(), 2U);
  EXPECT_EQ(one[0].seen, "ran on 4 hosts");
  EXPECT_TRUE(contains(one[1].expected, "at most 64.6 GB/s"));
  const std::vector<Finding> two = judged(cluster("h100-2x8"), {run("alltoall", 4, 8, 50)});
  EXPECT_EQ(two[0].severity, Severity::warning);
  EXPECT_TRUE(contains(two[1].expected, "at most 64.6 GB/s"));
  // A host that was taken out keeps its place, not its GPUs.
  const Topology less = edit(cluster("h100-2x8"), {parse_remove("host1")});
  EXPECT_TRUE(contains(judged(less, {run("alltoall", 2, 8, 70)}).at(1).expected, "at most 93.8 GB/s"));
  EXPECT_EQ(judged(less, {run("alltoall", 1, 8, 320)}).size(), 1U);
}

TEST(DoctorMeasured, HostsByName_AreFoundWhereTheyStand) {
  Topology own = edit(cluster("h100-16x8"), {parse_degrade("host9.nic0=0.5")});
  for (int host = 0; host < 16; ++host) own.host_names.push_back("n" + std::to_string(host) + ".site");
  MeasuredCollective there = run("alltoall", 2, 8, 40);
  for (MeasuredDevice& device : there.devices) device.host = device.host == "node0" ? "n9" : "n3";
  EXPECT_NEAR(bound(own, there).usual_GBps, 93.75 / 2, 1e-9);
  for (MeasuredDevice& device : there.devices) device.host = device.host == "n9" ? "n8" : "n3";
  EXPECT_NEAR(bound(own, there).usual_GBps, 93.75, 1e-9);
  for (MeasuredDevice& device : there.devices) device.host = device.host == "n8" ? "m8" : "n3";
  const std::vector<Finding> strange = judged(own, {there});
  EXPECT_TRUE(contains(findings_text(strange), "ran on m8\n  expected: hosts that the description names: 1 of 2"));
}

// An address is a whole name: "10" of both would be the same host.
TEST(DoctorMeasured, HostsByAddress_AreFoundWhereTheyStand) {
  Topology own = edit(cluster("h100-16x8"), {parse_degrade("host9.nic0=0.5")});
  for (int host = 0; host < 16; ++host) own.host_names.push_back("10.0.0." + std::to_string(host));
  MeasuredCollective there = run("alltoall", 2, 8, 90);
  for (MeasuredDevice& device : there.devices) device.host = device.host == "node0" ? "10.0.0.9" : "10.0.0.3";
  EXPECT_NEAR(bound(own, there).usual_GBps, 93.75 / 2, 1e-9);
  for (MeasuredDevice& device : there.devices) device.host = device.host == "10.0.0.9" ? "10.0.0.8" : "10.0.0.3";
  EXPECT_NEAR(bound(own, there).usual_GBps, 93.75, 1e-9);
  EXPECT_EQ(judged(own, {there}).size(), 1U);
}

// n1 may be n1.siteA or n1.siteB; by its whole name it is one of them.
TEST(DoctorMeasured, NamesThatPlaceNothing_AreSaidAndSoIsTheVerdict) {
  Topology own = edit(cluster("h100-2x8"), {parse_degrade("host1.nvswitch=0.5")});
  own.host_names = {"n1.siteA", "n1.siteB"};
  MeasuredCollective there = run("alltoall", 1, 8, 200);
  for (MeasuredDevice& device : there.devices) device.host = "n1.siteB";
  EXPECT_NEAR(bound(own, there).usual_GBps, 225, 1e-9);
  for (MeasuredDevice& device : there.devices) device.host = "n1";
  std::vector<Finding> said = judged(own, {there});
  EXPECT_TRUE(contains(findings_text(said), "warning: alltoall of 8 ranks on 1 host (out.txt): ran on n1\n"))
      << findings_text(said);
  EXPECT_TRUE(contains(findings_text(said), "of the first hosts of the description, not those that ran it: at most"));
  // The description's n1 for both hosts of the run.
  own.host_names = {"n1", "n2"};
  MeasuredCollective two = run("alltoall", 2, 8, 60);
  for (MeasuredDevice& device : two.devices) device.host = device.host == "node0" ? "n1.siteA" : "n1.siteB";
  EXPECT_TRUE(contains(findings_text(judged(own, {two})), "a host of the description for each: they are 1 of them"));
  // Hosts that differ and have no names: which of them ran it is not known.
  own.host_names.clear();
  EXPECT_TRUE(contains(findings_text(judged(own, {there})), "which has none: its hosts differ"));
}

// Host 0 has no GPU: 16 ranks are two of the other hosts, not sixteen.
TEST(DoctorMeasured, RanksCutOut_StandOnHostsWithGpus) {
  const Topology own = edit(cluster("h100-16x8"), {parse_remove("host0")});
  MeasuredCollective cut = run("alltoall", 2, 8, 70);
  cut.devices.resize(3);
  const std::vector<Finding> said = judged(own, {cut});
  EXPECT_TRUE(contains(findings_text(said), "at most 93.8 GB/s")) << findings_text(said);
}

TEST(DoctorMeasured, GpusByBusId_AreFoundWhereTheyStand) {
  Topology own = cluster("dgx-h100");
  HostTemplate& host = own.templates[0];
  host.shape.reset();
  for (std::size_t i = 0; i < 8; ++i)
    host.devices[static_cast<std::size_t>(host.gpus[i])].bus_id = "0000:" + std::to_string(20 + i) + ":00.0";
  for (Link& link : host.links)  // GPU 6 has half its NVLinks
    if (link.kind == LinkKind::nvlink && (link.src == host.gpus[6] || link.dst == host.gpus[6]))
      link.GBps_per_direction = 225;
  MeasuredCollective two = run("alltoall", 1, 2, 100);
  two.devices[0].bus_id = "0000:26:00", two.devices[1].bus_id = "21";
  EXPECT_EQ(bound(own, two).bottleneck, "host0.gpu6->nvswitch");
  two.devices[0].bus_id = "0000:20:00";
  EXPECT_NEAR(bound(own, two).usual_GBps, 450, 1e-9);
  two.devices[0].bus_id = "0000:99:00";
  EXPECT_TRUE(contains(findings_text(judged(own, {two})), "bus ids that the description does not have: 0000:99:00"));
}

TEST(DoctorMeasured, RunsThatAreNotOfIt_AreFindingsAndNotCompared) {
  const Topology own = cluster("dgx-h100");
  const auto said = [&](const MeasuredCollective& it) { return findings_text(judged(own, {it})); };
  EXPECT_TRUE(contains(said(run("alltoall", 1, 16, 300)), "device 8 of node0"));
  MeasuredCollective odd = run("alltoall", 1, 8, 300);
  odd.devices[3].device = 2;
  EXPECT_TRUE(contains(said(odd), "several ranks on one GPU"));
  odd = run("alltoall", 1, 8, 300);
  odd.devices.resize(3);
  EXPECT_TRUE(contains(said(odd), "3 of 8 ranks are named"));
  EXPECT_TRUE(contains(said(odd), "at most 450 GB/s"));
  odd = run("alltoall", 1, 8, 300);
  for (MeasuredDevice& device : odd.devices) device.gpu = "NVIDIA A100-SXM4-80GB";
  EXPECT_TRUE(contains(said(odd), "ran on A100 for H100"));
  odd = run("alltoall", 1, 8, 300);
  odd.devices[0].group = 1;
  EXPECT_TRUE(contains(said(odd), "groups of different sizes"));
  odd = run("", 1, 8, 300);
  EXPECT_TRUE(contains(refusal([&] { judged(own, {odd}); }), "--op"));
  odd = run("alltoall", 1, 8, 300);
  odd.ranks = 0;
  EXPECT_TRUE(contains(refusal([&] { judged(own, {odd}); }), "Rank"));
  EXPECT_TRUE(contains(findings_text(judged(small_cluster(1), {run("alltoall", 1, 1, 3)})), "one rank"));
  Topology bare = cluster("dgx-h100");
  bare.templates[0].nics.clear(), bare.templates[0].shape.reset();
  EXPECT_TRUE(contains(findings_text(judged(bare, {run("alltoall", 2, 8, 3)})), "NICs to join more"));
}

// Any byte of the output changed, any end cut off: findings or a refusal.
TEST(DoctorMeasured, DamagedFiles_AreFindingsOrRefused) {
  const std::string whole = text_of(source_path("tests/data/measured/nccl_tests_alltoall.txt")) +
                            "1073741824 16777216 float none -1 9999 99.9 320.0 0 9999 99.9 320.0 N/A\n";
  const Topology own = cluster("h100-2x8");
  int refused = 0, found = 0;
  const auto attempt = [&](const std::string& text) {
    try {
      EXPECT_FALSE(judged(own, read_measured(text, "out")).empty());
      ++found;
    } catch (const InvalidInput&) {
      ++refused;
    }
  };
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string text = whole;
    text[i] = "9 x\n"[i % 4];
    attempt(text);
    if (i % 8 == 0) attempt(whole.substr(0, i));
  }
  EXPECT_GT(refused, 10);
  EXPECT_GT(found, 1000);
}

// ---------------------------------------------------------------- copies

MeasuredCopies copied(const std::string& testcase, const std::vector<std::vector<double>>& GBps) {
  return {"n.txt", {}, {{testcase, "memcpy CE GPU(row) <- GPU(column) bandwidth (GB/s)", GBps}}, {}};
}
std::vector<std::vector<double>> square(std::size_t n, double GBps) {
  std::vector<std::vector<double>> out(n, std::vector<double>(n, GBps));
  for (std::size_t i = 0; i < n; ++i) out[i][i] = kNone;
  return out;
}
constexpr const char* kPairs = "device_to_device_memcpy_read_ce";

TEST(DoctorCopies, HealthyMatrix_IsANoteWithItsShare) {
  const std::vector<Finding> all = judged(cluster("dgx-h100"), {copied(kPairs, square(8, 370))});
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].severity, Severity::note);
  EXPECT_TRUE(contains(all[0].seen, "370 GB/s in the middle of 56: 82 % of the path, normal"));
}

TEST(DoctorCopies, OneSlowPair_IsNamedOnce) {
  auto matrix = square(8, 370);
  matrix[2][5] = 180, matrix[5][2] = 181;
  const std::vector<Finding> all = judged(cluster("dgx-h100"), {copied(kPairs, matrix)});
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].severity, Severity::severe);
  EXPECT_EQ(all[0].element, "gpu2 and gpu5");
  EXPECT_EQ(all[0].seen, "180 GB/s copied");
}

TEST(DoctorCopies, SlowGpu_IsOneFinding) {
  auto matrix = square(8, 370);
  for (std::size_t i = 0; i < 8; ++i)
    if (i != 4) matrix[i][4] = matrix[4][i] = 120;
  const std::vector<Finding> all = judged(cluster("dgx-h100"), {copied(kPairs, matrix)});
  ASSERT_EQ(all.size(), 2U) << findings_text(all);
  EXPECT_EQ(all[0].element, "gpu4");
  EXPECT_EQ(all[0].seen, "14 of its 14 copies slow, the least 120 GB/s");
}

// Pairs are alike where their paths are: on four GPUs under two CPUs, without NVLink, half of them cross.
TEST(DoctorCopies, SlowerPathsAreNoFault) {
  HostShape shape = small_shape();
  shape.kind = "pcie", shape.nvlink = {}, shape.cpu_interconnect.GBps_per_direction = 20;
  const Topology own = small_cluster(1, shape);
  auto matrix = square(4, 26);
  for (const auto& [a, b] : {std::pair(0, 2), {0, 3}, {1, 2}, {1, 3}})
    matrix[static_cast<std::size_t>(a)][static_cast<std::size_t>(b)] =
        matrix[static_cast<std::size_t>(b)][static_cast<std::size_t>(a)] = 14;
  for (const Finding& finding : judged(own, {copied(kPairs, matrix)})) EXPECT_EQ(finding.severity, Severity::note);
  matrix[0][3] = 9;
  EXPECT_EQ(judged(own, {copied(kPairs, matrix)}).at(0).element, "gpu0 and gpu3");
}

// 64 GB/s of Gen5 x16 described: 27 is what x8 gives, 70 is more than there is.
TEST(DoctorCopies, AllAlikeButNotTheDescribed_IsFound) {
  const Topology own = cluster("dgx-h100");
  const auto slot = [&](double GBps) {
    return judged(own, {copied("host_to_device_memcpy_ce", {std::vector<double>(8, GBps)})}).at(0);
  };
  EXPECT_EQ(slot(55).severity, Severity::note);
  EXPECT_EQ(slot(27).severity, Severity::severe);
  EXPECT_TRUE(contains(slot(27).seen, "42 % of the path"));
  EXPECT_EQ(slot(70).severity, Severity::warning);
  // Kernels that copy are slower on some, and two ways at once share: only beside siblings.
  EXPECT_TRUE(judged(own, {copied("host_to_device_memcpy_sm", {std::vector<double>(8, 35)})}).empty());
  std::vector<double> row(8, 35);
  row[6] = 17;
  EXPECT_EQ(judged(own, {copied("host_to_device_memcpy_sm", {row})}).at(0).element, "gpu6");
}

// More devices than are described: no paths, but still each other.
TEST(DoctorCopies, WithoutPaths_PairsAreHeldAgainstEachOther) {
  auto matrix = square(16, 50);
  matrix[3][12] = 11;
  const std::vector<Finding> all = judged(cluster("dgx-h100"), {copied(kPairs, matrix)});
  EXPECT_EQ(all.at(0).element, "GPU 3 and GPU 12");
  EXPECT_TRUE(contains(findings_text(all), "device 8 of the host"));
}

TEST(DoctorCopies, FailedTestcase_IsSevere) {
  MeasuredCopies own = copied(kPairs, square(8, 370));
  own.failed.push_back("device_to_device_memcpy_write_sm");
  EXPECT_EQ(judged(cluster("dgx-h100"), {own}).at(0).element, "device_to_device_memcpy_write_sm");
}

}  // namespace
}  // namespace topomoe::test
