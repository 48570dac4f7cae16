// What joins the hosts, and hosts that differ: each fault named, with what it costs an all-to-all.
//
// small_cluster(4): two units of two hosts, 4 GPUs with NICs of 25 GB/s, 50 GB/s up from each leaf. Of 15 bytes that a
// GPU sends 12 take its NIC: 15 x 25 / 12 = 31.25 GB/s. A leaf sends 2 x 8 up: 15 x 50 / 16 = 46.9 GB/s.
#include <algorithm>

#include "support.hpp"
#include "topomoe/doctor.hpp"

namespace topomoe::test {
namespace {

std::vector<Finding> found(const Topology& topology) { return diagnose(std::vector<Topology>{topology}); }

// The first whose element has this in it; empty where there is none.
Finding about(const Topology& topology, const std::string& element) {
  for (const Finding& own : found(topology))
    if (contains(own.element, element)) return own;
  return {};
}

long worse_than_notes(const Topology& topology) {
  const std::vector<Finding> all = found(topology);
  return std::count_if(all.begin(), all.end(), [](const Finding& own) { return own.severity != Severity::note; });
}

TEST(DoctorFabric, CleanClusters_HaveNotesOnly) {
  EXPECT_EQ(worse_than_notes(small_cluster(4)), 0);
  for (const char* name : {"h100-16x8", "h100-2048x8-3tier", "h100-512x8-dragonfly", "gb200-nvl72", "h100-32x8"})
    EXPECT_EQ(worse_than_notes(cluster(name)), 0) << name << "\n" << findings_text(found(cluster(name)));
}

// One of two spines gone: 25 GB/s up from leaf 0, 15 x 25 / 16 = 23.4.
TEST(DoctorFabric, DeadCable_IsSevereWithItsCost) {
  const Finding own = about(edit(small_cluster(4), {parse_remove("leaf0->spine1")}), "leaf0->spine1");
  EXPECT_EQ(own.severity, Severity::severe);
  EXPECT_EQ(own.seen, "dead");
  EXPECT_EQ(own.cost, "all-to-all over 4 hosts: at most 23.4 of 31.2 GB/s a GPU");
}

// A fifth of 50: 15 x 10 / 16 = 9.4.
TEST(DoctorFabric, DegradedUplinks_AreAWarningWithItsCost) {
  const Finding own = about(edit(small_cluster(4), {parse_degrade("leaf0->spine=0.2")}), "leaf0->spine");
  EXPECT_EQ(own.severity, Severity::warning);
  EXPECT_EQ(own.seen, "at 0.2 of its rate");
  EXPECT_EQ(own.cost, "all-to-all over 4 hosts: at most 9.4 of 31.2 GB/s a GPU");
}

// 12.5 GB/s up: 15 x 12.5 / 16 = 11.7.
TEST(DoctorFabric, Oversubscription_IsANoteWithItsCost) {
  const Finding own = about(edit(small_cluster(4), {parse_set("oversubscription=4")}), "uplinks of leaves");
  EXPECT_EQ(own.severity, Severity::note);
  EXPECT_EQ(own.seen, "4:1 oversubscribed");
  EXPECT_EQ(own.cost, "all-to-all over 4 hosts: at most 11.7 of 31.2 GB/s a GPU");
}

TEST(DoctorFabric, LeavesThatNothingJoins_AreSevere) {
  Topology own = small_cluster(4);
  own.fabric->spine_count = 0, own.fabric->uplink = {};
  EXPECT_EQ(about(own, "fabric").severity, Severity::severe);
  EXPECT_TRUE(contains(about(own, "fabric").seen, "no path"));
  EXPECT_EQ(worse_than_notes(resize_hosts(own, 8, nullptr)), 0);  // one unit needs no spine
}

TEST(DoctorFabric, RailWithoutPorts_IsAWarning) {
  Topology own = small_cluster(4);
  own.fabric->rails = 6;
  EXPECT_EQ(about(own, "rails").severity, Severity::warning);
  EXPECT_EQ(about(own, "rails").seen, "no host has a port on rail 4, 5");
}

TEST(DoctorFabric, UnevenLeavesAndNames_AreSaid) {
  Topology own = small_cluster(3);
  own.fabric->leaf_hosts = {2, 1};
  own.host_names = {"n1", "", "n1"};
  EXPECT_TRUE(contains(about(own, "leaves").seen, "1 of 2 have 2"));
  EXPECT_EQ(about(own, "hosts").seen, "1 of 3 have no name");
  EXPECT_EQ(about(own, "n1").seen, "named twice");
  own.host_names = {"n1", "n2", "n3"};
  EXPECT_EQ(worse_than_notes(own), 0);
}

// The slow port takes 12 of 15 bytes at 12.5 GB/s: 15.6.
TEST(DoctorFabric, HostWithASlowerPort_IsSevereOnceWithItsCost) {
  const Topology own = edit(small_cluster(4), {parse_degrade("host2.nic1=0.5")});
  const Finding ports = about(own, "host2.NICs");
  EXPECT_EQ(ports.severity, Severity::severe);
  EXPECT_EQ(ports.seen, "4 ports, 87.5 GB/s together");
  EXPECT_EQ(ports.expected, "4 ports, 100 GB/s, as host0");
  EXPECT_EQ(ports.cost, "all-to-all over 4 hosts: at most 15.6 of 31.2 GB/s a GPU");
  EXPECT_EQ(worse_than_notes(own), 1) << findings_text(found(own));
}

// What its GPU sent takes the NIC beside it: half the rate.
TEST(DoctorFabric, HostShortOfANic_IsSevereOnceWithItsCost) {
  const Topology own = edit(small_cluster(4), {parse_remove("host3.nic2")});
  int severe = 0;
  for (const Finding& finding : found(own))
    if (finding.severity == Severity::severe && contains(finding.element, "host3.nic2")) {
      ++severe;
      EXPECT_EQ(finding.cost, "all-to-all over 4 hosts: at most 15.6 of 31.2 GB/s a GPU");
    }
  EXPECT_EQ(severe, 1) << findings_text(found(own));
  EXPECT_EQ(about(own, "host3.NICs"), Finding{});
}

// ---------------------------------------------------------------- hosts of which nothing is known

// Hosts 1 and 3 removed: two are left, of which neither is at fault.
TEST(DoctorFabric, RemovedHosts_AreOneNote) {
  const Topology own = edit(small_cluster(4), {parse_remove("host1"), parse_remove("host3")});
  EXPECT_EQ(worse_than_notes(own), 0) << findings_text(found(own));
  EXPECT_EQ(about(own, "host1 and 1 more").seen, "nothing is known of what is in them: not compared");
}

// A network's file knows n1 by its port and n2 by its name alone.
TEST(DoctorFabric, HostsThatNobodyDescribed_AreOneNoteAndNotCounted) {
  Topology own = small_cluster(4);
  HostTemplate adapter{.name = "1 adapters, like X"}, unknown{.name = "unknown"};
  adapter.devices = {{DeviceKind::nic, "nic0", "", -1, {}}};
  adapter.nics = {{0, 0, "mlx5_0", {25, 3, Source::datasheet, ""}, {}}};
  unknown.devices = {{DeviceKind::numa, "numa0", "", -1, {}}};
  own.templates.insert(own.templates.end(), {adapter, unknown});
  own.groups = {{0, 1}, {1, 1}, {2, 1}, {0, 1}};
  own.host_names = {"n0", "n1", "n2", "n3"};
  EXPECT_EQ(worse_than_notes(own), 0) << findings_text(found(own));
  EXPECT_EQ(about(own, "n1 and 1 more").severity, Severity::note);
  // 2 hosts of 4 GPUs: of 7 bytes that a GPU sends 4 take its NIC or its leaf's uplinks.
  const Finding slow = about(edit(own, {parse_degrade("n3.nic1=0.5")}), "n3.NICs");
  EXPECT_EQ(slow.cost, "all-to-all over 2 hosts: at most 21.9 of 43.8 GB/s a GPU");
  EXPECT_EQ(slow.expected, "4 ports, 100 GB/s, as n0");
}

TEST(DoctorFabric, Hosts_AreCalledAsPeopleDo) {
  Topology own = edit(small_cluster(4), {parse_remove("host2.gpu3")});
  EXPECT_EQ(about(own, "gpu3").element.substr(0, 10), "host2.gpu3");
  own.host_names = {"node01", "node02", "node03", "node04"};
  EXPECT_EQ(about(own, "gpu3").element.substr(0, 11), "node03.gpu3");
}

TEST(DoctorRates, GuessesOfOneOrigin_AreOneNote) {
  HostShape shape = small_shape();
  shape.nic = {25, 3, Source::assumed, "two ports"};
  const Finding nics = about(small_cluster(1, shape), "nic nic0");
  EXPECT_EQ(nics.element, "nic nic0, nic1, nic2, nic3");
  EXPECT_EQ(nics.seen, "the rate of 4 links is assumed, 25 GB/s (two ports)");
  EXPECT_EQ(about(small_cluster(4), "uplinks of 8 leaves").seen, "50 GB/s assumed (test)");
  shape.nic.source = Source::datasheet;
  EXPECT_EQ(about(small_cluster(1, shape), "nic nic0"), Finding{});
}

TEST(DoctorNics, MergedAndVirtualOnes_AreNotes) {
  Topology own = small_cluster(1);
  HostTemplate& host = own.templates[0];
  host.shape.reset();
  const auto device = static_cast<std::size_t>(host.nics[0].device);
  host.devices[device].attributes = {{"vendor", "0x15b3"}, {"device", "0x101e"}};
  host.nics[1].name = "mlx5_1+mlx5_2";
  host.nics[2].name = host.nics[3].name = "vnet";
  EXPECT_EQ(about(own, "NICs").seen, "1 of 4 are virtual functions");
  EXPECT_TRUE(contains(about(own, "mlx5_1+mlx5_2").seen, "merged"));
  EXPECT_EQ(about(own, "vnet").seen, "2 nets of this name");
  EXPECT_EQ(worse_than_notes(own), 0);
}

}  // namespace
}  // namespace topomoe::test
