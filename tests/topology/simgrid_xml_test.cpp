// SimGrid's platform XML: clusters of every shape, zones and graphs of links as fabrics; what does not fit is refused.
#include <map>
#include <random>

#include "spoiled.hpp"
#include "support.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/simgrid_units.hpp"

namespace topomoe::test {
namespace {

std::string platform(const std::string& inside) {
  return "<?xml version='1.0'?>\n<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n"
         "<platform version=\"4.1\">\n" +
         inside + "</platform>\n";
}
Topology read(const std::string& inside) { return read_simgrid(platform(inside), "t.xml"); }
std::string refused(const std::string& inside) {
  return refusal([&] { read(inside); });
}
// Hosts h0, h1, ... and links l0, l1, ... of 1, 2, ... GB/s and 10 us, both ways of their own.
std::string zone(int hosts, int links, const std::string& rest, const std::string& routing = "Full") {
  std::string text = "<zone id=\"z\" routing=\"" + routing + "\">";
  for (int i = 0; i < hosts; ++i) text += "<host id=\"h" + std::to_string(i) + "\" speed=\"1Gf\"/>";
  for (int i = 0; i < links; ++i)
    text += "<link id=\"l" + std::to_string(i) + "\" bandwidth=\"" + std::to_string(i + 1) +
            "GBps\" latency=\"10us\" sharing_policy=\"SPLITDUPLEX\"/>";
  return text + rest + "</zone>";
}
std::string route(const std::string& src, const std::string& dst, const std::vector<std::string>& links,
                  const std::string& more = "") {
  std::string text = "<route src=\"" + src + "\" dst=\"" + dst + "\"" + more + ">";
  for (const std::string& link : links) text += "<link_ctn id=\"" + link + "\"/>";
  return text + "</route>";
}
std::string cluster(const std::string& id, const std::string& radical, const std::string& more = "") {
  return "<cluster id=\"" + id + "\" prefix=\"" + id + "-\" suffix=\"\" radical=\"" + radical +
         "\" speed=\"1Gf\" bw=\"1GBps\" lat=\"5us\" " + more + "/>";
}
std::string joined(const std::string& a, const std::string& b, const std::string& link) {
  return "<zoneRoute src=\"" + a + "\" dst=\"" + b + "\" gw_src=\"" + a + "-" + a + "_router\" gw_dst=\"" + b + "-" +
         b + "_router\"><link_ctn id=\"" + link + "\"/></zoneRoute>";
}
double nic_GBps(const Topology& topology, int host) {
  return topology.host_template(host).nics.at(0).port.GBps_per_direction;
}

TEST(SimgridUnits, Rates_AreBytesOrBitsOfPowersOfTenAndTwo) {
  const std::pair<const char*, double> cases[] = {{"125MBps", 0.125},
                                                  {"10Gbps", 1.25},
                                                  {"1.25E8", 0.125},
                                                  {"2.25GBps", 2.25},
                                                  {"1kBps", 1e-6},
                                                  {"1KBps", 1e-6},
                                                  {"8Kibps", 1.024e-6},
                                                  {"1GiBps", 1.073741824},
                                                  {"5e-1 TBps", 500},
                                                  {"41.279125MBps", 0.041279125},
                                                  {"1Bps", 1e-9},
                                                  {"8bps", 1e-9},
                                                  {"0", 0}};
  for (const auto& [text, GBps] : cases) {
    ASSERT_TRUE(simgrid_GBps(text)) << text;
    EXPECT_NEAR(*simgrid_GBps(text), GBps, 1e-12 * GBps) << text;
  }
  for (const char* text : {"", "fast", "1 Gb", "1gbps", "-1Bps", "inf", "nanBps", "1e400", "1GxBps", "1iBps", "1Bps x"})
    EXPECT_FALSE(simgrid_GBps(text)) << text;
}

TEST(SimgridUnits, Latencies_AreFromPicosecondsToWeeks) {
  const std::pair<const char*, double> cases[] = {{"50us", 50},  {"0", 0},       {"1.461517ms", 1461.517},
                                                  {"1E-4", 100}, {"500ns", 0.5}, {"20ps", 2e-5},
                                                  {"1s", 1e6},   {"1m", 60e6}};
  for (const auto& [text, us] : cases) {
    ASSERT_TRUE(simgrid_latency_us(text)) << text;
    EXPECT_NEAR(*simgrid_latency_us(text), us, 1e-9 * us) << text;
  }
  for (const char* text : {"", "us", "1 minute", "-1us", "1e308w"}) EXPECT_FALSE(simgrid_latency_us(text)) << text;
}

TEST(SimgridUnits, Radical_IsNumbersAndRanges) {
  std::vector<std::string> names;
  EXPECT_TRUE(add_radical("0-2, 12", "n", ".x", 100, names));
  EXPECT_EQ(names, (std::vector<std::string>{"n0.x", "n1.x", "n2.x", "n12.x"}));
  for (const char* list : {"", "a", "1-", "-1", "2-1", "1,,2", "0-99", "1-99999999999999999999"}) {
    std::vector<std::string> some;
    EXPECT_FALSE(add_radical(list, "", "", 99, some)) << list;
  }
}

TEST(Simgrid, FlatCluster_IsALeafOfHostsWithoutGpus) {
  const Topology topology = read(cluster("c", "0-3,7"));
  EXPECT_EQ(topology.host_names, (std::vector<std::string>{"c-0", "c-1", "c-2", "c-3", "c-7"}));
  EXPECT_EQ(topology.gpu_count(), 0);
  EXPECT_EQ(topology.leaf_count(), 1);
  EXPECT_EQ(topology.fabric->spine_count, 0);
  EXPECT_EQ(topology.fabric->leaf_names, std::vector<std::string>{"c"});
  EXPECT_EQ(nic_GBps(topology, 0), 1);
  EXPECT_EQ(topology.templates[0].nics[0].port.latency_us, 5);
  EXPECT_EQ(topology.templates[0].nics[0].port.source, Source::assumed);
  EXPECT_TRUE(warns(topology, "these are hosts without GPUs"));
  EXPECT_EQ(read_topology(platform(cluster("c", "0-3,7")), "t.xml"), topology);
}

TEST(Simgrid, Backbone_IsNotModelledInsideAndSaysSo) {
  EXPECT_TRUE(warns(read(cluster("c", "0-3", "bb_bw=\"2GBps\" bb_lat=\"1us\"")),
                    "backbones (1, \"c_backbone\" of 2 GB/s first) that all traffic"));
  EXPECT_EQ(nic_GBps(read(cluster("c", "0-3", "bb_bw=\"500MBps\"")), 0), 0.5);  // no flow gets more of its 1 GB/s
  EXPECT_TRUE(warns(read(cluster("c", "0-3", "sharing_policy=\"SHARED\"")), "half-duplex links (4, \"c-0\" first)"));
  EXPECT_TRUE(warns(read(cluster("c", "0-3", "limiter_link=\"1GBps\" loopback_bw=\"1GBps\"")), "limiter_link"));
}

// A leaf of 4 hosts and one of 2 behind a backbone of 2 GB/s; a link of 3 GB/s between them.
TEST(Simgrid, TwoClusters_AreLeavesWithTheLeastRateOnTheirWay) {
  const Topology topology = read(
      "<AS id=\"w\" routing=\"Full\">" + cluster("a", "0-3") + cluster("b", "0-1", "bb_bw=\"2GBps\" bb_lat=\"7us\"") +
      "<link id=\"l\" bandwidth=\"3GBps\" latency=\"20us\" sharing_policy=\"SPLITDUPLEX\"/>"
      "<ASroute src=\"a\" dst=\"b\" gw_src=\"a-a_router\" gw_dst=\"b-b_router\"><link_ctn id=\"l\"/></ASroute></AS>");
  EXPECT_EQ(unit_of_hosts(topology), (std::vector<int>{4, 2}));
  EXPECT_EQ(topology.fabric->spine_count, 1);
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 3);
  EXPECT_EQ(topology.fabric->uplink.latency_us, 17);  // half of 20, and b's backbone
  ASSERT_EQ(topology.fabric->exceptions.size(), 1U);
  EXPECT_EQ(topology.fabric->exceptions[0].name, "leaf1->spine");
  EXPECT_DOUBLE_EQ(topology.fabric->exceptions[0].factor, 2.0 / 3);
  EXPECT_TRUE(warns(topology, "different latencies"));
}

TEST(Simgrid, ClustersOnOneLink_ShareIt) {
  const std::string three = "<zone id=\"w\" routing=\"Full\">" + cluster("a", "0-1") + cluster("b", "0-1") +
                            cluster("c", "0-1") + "<link id=\"l\" bandwidth=\"3GBps\" latency=\"20us\"/>";
  const Topology topology =
      read(three + joined("a", "b", "l") + joined("b", "c", "l") + joined("a", "c", "l") + "</zone>");
  EXPECT_EQ(topology.leaf_count(), 3);
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 3);
  EXPECT_EQ(topology.fabric->uplink.latency_us, 10);  // crossed once on a way, over two uplinks
  EXPECT_TRUE(warns(topology, "\"l\" of 3 GB/s"));
}

TEST(Simgrid, ClustersJoinedEachWithEach_AreGroups) {
  std::string text =
      "<zone id=\"w\" routing=\"Full\">" + cluster("a", "0-1") + cluster("b", "0-1") + cluster("c", "0-2");
  for (const char* link : {"ab", "bc", "ac"})
    text += std::string("<link id=\"") + link + "\" bandwidth=\"" + (link[0] == 'b' ? "2" : "4") +
            "GBps\" latency=\"20us\" sharing_policy=\"SPLITDUPLEX\"/>";
  const Topology topology =
      read(text + joined("a", "b", "ab") + joined("b", "c", "bc") + joined("a", "c", "ac") + "</zone>");
  EXPECT_EQ(topology.fabric->kind, FabricKind::dragonfly_plus);
  EXPECT_EQ(topology.fabric->pod_uplink.GBps_per_direction, 4);
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 8);  // a: 4 to b and 4 to c
  std::vector<std::string> lower;
  for (const FabricException& own : topology.fabric->exceptions) lower.push_back(own.name);
  EXPECT_EQ(lower, (std::vector<std::string>{"leaf1->group1", "group1->group2", "leaf2->group2"}));
  EXPECT_TRUE(warns(topology, "joined each with each"));
}

TEST(Simgrid, Torus_KeepsDimensionsAndOrder) {
  const Topology topology = read(cluster("t", "0-11", "topology=\"TORUS\" topo_parameters=\"3,2,2\""));
  EXPECT_EQ(topology.fabric->kind, FabricKind::torus);
  EXPECT_EQ(topology.fabric->dims, (std::vector<int>{3, 2, 2}));
  EXPECT_EQ(topology.fabric->ring.GBps_per_direction, 1);
  EXPECT_EQ(topology.host_name(4), "t-4");
  EXPECT_EQ(read(cluster("t", "0-2", "topology=\"TORUS\" topo_parameters=\"3,1\"")).fabric->dims, std::vector<int>{3});
  EXPECT_TRUE(contains(refused(cluster("t", "0-9", "topology=\"TORUS\" topo_parameters=\"3,2,2\"")),
                       "they make 12 hosts, and radical names 10"));
}

// 4 hosts a leaf, 4 leaves, 2 spines over 2 links each: 4 GB/s up.
TEST(Simgrid, FatTree_HasItsCounts) {
  const auto fat = [](const std::string& radical, const std::string& numbers) {
    return cluster("f", radical, "topology=\"FAT_TREE\" topo_parameters=\"" + numbers + "\"");
  };
  const Topology two = read(fat("0-15", "2;4,4;1,2;1,2"));
  EXPECT_EQ(two.fabric->hosts_per_leaf, 4);
  EXPECT_EQ(two.leaf_count(), 4);
  EXPECT_EQ(two.fabric->spine_count, 2);
  EXPECT_EQ(two.fabric->uplink.GBps_per_direction, 4);
  EXPECT_EQ(two.fabric->oversubscription, 1);
  EXPECT_TRUE(warns(two, "level 2: 2 parallel links"));
  // Pods of 2 leaves of 2 hosts, 3 pods; 2 spines a pod, each to 4 cores of its own.
  const Topology three = read(fat("0-11", " 3 ; 2,2,3 ; 1,2,4 ; 1,1,1 "));
  EXPECT_EQ(three.fabric->hosts_per_pod, 4);
  EXPECT_EQ(three.fabric->core_count, 8);
  EXPECT_EQ(three.fabric->pod_uplink.GBps_per_direction, 8);
  EXPECT_EQ(read(fat("0-3", "1;4;1;1")).fabric->spine_count, 0);
  const Topology planes = read(fat("0-15", "2;4,4;2,2;1,1"));
  EXPECT_EQ(planes.fabric->planes, 2);
  EXPECT_EQ(planes.templates[0].nics.size(), 2U);
  EXPECT_EQ(planes.leaf_count(), 8);
  EXPECT_TRUE(contains(refused(fat("0-15", "2;4,4;1,2")), "levels; down links"));
  EXPECT_TRUE(contains(refused(fat("0-15", "4;2,2,2,2;1,1,1,1;1,1,1,1")), "at most three levels"));
  EXPECT_TRUE(contains(refused(fat("0-15", "2;4,x;1,2;1,2")), "whole numbers"));
  EXPECT_TRUE(contains(refused(fat("0-15", "3;100000,100000,100000;1,1,1;1,1,1")), "at most 10,000,000 hosts"));
}

// 3 groups of 3 chassis of 4 routers of 2 hosts. A router has 3 links of its chassis, 2 x 2 of its number, one of 4
// to another group: 3 + 4 + 4 GB/s.
TEST(Simgrid, Dragonfly_IsGroupsOfRoutersAndSaysWhatDiffers) {
  const Topology topology =
      read(cluster("d", "0-71", "topology=\"DRAGONFLY\" topo_parameters=\"3,4 ; 3,2 ; 4,1 ; 2\""));
  EXPECT_EQ(topology.fabric->kind, FabricKind::dragonfly_plus);
  EXPECT_EQ(topology.fabric->hosts_per_leaf, 2);
  EXPECT_EQ(topology.fabric->hosts_per_pod, 24);
  EXPECT_EQ(topology.fabric->uplink.GBps_per_direction, 11);
  EXPECT_EQ(topology.fabric->pod_uplink.GBps_per_direction, 4);
  EXPECT_TRUE(warns(topology, "12 routers of a group are joined directly"));
  EXPECT_TRUE(
      contains(refused(cluster("d", "0-71", "topology=\"DRAGONFLY\" topo_parameters=\"3,4;3,2;3\"")), "groups,links"));
}

// h0 -l0- | -l1- h1: two hosts and a switch.
TEST(Simgrid, RoutesOverSeveralLinks_MeetInSwitches) {
  const Topology two = read(zone(2, 2, route("h0", "h1", {"l0", "l1"})));
  EXPECT_EQ(two.leaf_count(), 1);
  EXPECT_EQ(nic_GBps(two, 0), 1);
  EXPECT_EQ(nic_GBps(two, 1), 2);
  EXPECT_EQ(read(zone(2, 2, route("h0", "h1", {"l0_UP", "l1_DOWN"}))), two);
  EXPECT_TRUE(contains(refused(zone(2, 1, "<link id=\"s\" bandwidth=\"1GBps\"/>" + route("h0", "h1", {"s_UP"}))),
                       "\"s_UP\": there is no link"));
  // h0 -l0- x -l1- h1 and x -l2- h2.
  const Topology star = read(
      zone(3, 3, route("h0", "h1", {"l0", "l1"}) + route("h0", "h2", {"l0", "l2"}) + route("h1", "h2", {"l1", "l2"})));
  EXPECT_EQ(star.leaf_count(), 1);
  EXPECT_EQ(nic_GBps(star, 2), 3);
}

// A tree of three tiers, in a row and with names: (h0 h1) r0 - p0 - core - p1 - r2 (h3), and r1 (h2) at p0.
TEST(Simgrid, GraphOfRouters_IsPodsOfLeaves) {
  std::string routers;
  for (const char* name : {"r0", "r1", "r2", "r3", "p0", "p1", "core"})
    routers += std::string("<router id=\"") + name + "\"/>";
  const Topology topology =
      read(zone(6, 12,
                routers + route("h0", "r0", {"l0"}) + route("h1", "r0", {"l1"}) + route("h2", "r1", {"l2"}) +
                    route("r1", "h5", {"l11"}) + route("h3", "r2", {"l3"}) + route("h4", "r3", {"l3x"}) +
                    route("r0", "p0", {"l4"}) + route("r1", "p0", {"l5"}) + route("r2", "p1", {"l6"}) +
                    route("r3", "p1", {"l7"}) + route("p0", "core", {"l8"}) + route("p1", "core", {"l9"}) +
                    "<link id=\"l3x\" bandwidth=\"1GBps\"/>",
                "Floyd"));
  EXPECT_EQ(topology.host_names, (std::vector<std::string>{"h0", "h1", "h2", "h5", "h3", "h4"}));
  EXPECT_EQ(unit_of_hosts(topology), (std::vector<int>{2, 2, 2}));
}

TEST(Simgrid, HostOnTheWayOfOthers_StandsAtASwitch) {
  // h0 -l0- h1 -l1- h2: h1 passes on.
  const Topology topology = read(zone(3, 2, route("h0", "h1", {"l0"}) + route("h1", "h2", {"l1"}), "Dijkstra"));
  EXPECT_EQ(topology.leaf_count(), 1);
  EXPECT_EQ(nic_GBps(topology, 1), 3);  // 1 + 2
  EXPECT_TRUE(warns(topology, "hosts (1: \"h1\") that pass on what others send"));
}

TEST(Simgrid, RingOfSwitches_IsRefused) {
  const std::string ring =
      zone(3, 3, route("h0", "h1", {"l0"}) + route("h1", "h2", {"l1"}) + route("h2", "h0", {"l2"}));
  EXPECT_EQ(read(ring).fabric->kind, FabricKind::dragonfly_plus);  // each with each
  const std::string four = zone(
      4, 4,
      route("h0", "h1", {"l0"}) + route("h1", "h2", {"l1"}) + route("h2", "h3", {"l2"}) + route("h3", "h0", {"l3"}),
      "Floyd");
  EXPECT_TRUE(contains(refused(four), "several ways between the same hosts, as at \"h0\""));
}

TEST(Simgrid, RoutesThatContradictEachOther_AreRefused) {
  // l0 l1 between h0 and h1, so l1 leads from the switch to h1; h2 cannot reach h0 over l1 alone.
  const std::string message =
      refused(zone(4, 4,
                   route("h0", "h1", {"l0", "l1"}) + route("h0", "h2", {"l0", "l2"}) + route("h1", "h2", {"l1", "l2"}) +
                       route("h3", "h0", {"l3", "l2", "l0"}) + route("h3", "h1", {"l3", "l1"})));
  EXPECT_TRUE(contains(message, "does not fit the other routes")) << message;
}

// Links of their own for each direction: one cable of 1 GB/s up and 2 GB/s down.
TEST(Simgrid, OneWayRoutes_AreDirectionsOfOneCable) {
  const std::string no = " symmetrical=\"NO\"";
  const Topology topology =
      read(zone(2, 2,
                "<router id=\"r\"/>" + route("h0", "r", {"l0"}, no) + route("r", "h0", {"l1"}, no) +
                    "<link id=\"x\" bandwidth=\"5GBps\" sharing_policy=\"FATPIPE\"/>" + route("h1", "r", {"x"}),
                "Floyd"));
  EXPECT_EQ(topology.leaf_count(), 1);
  EXPECT_EQ(nic_GBps(topology, 0), 1);
  EXPECT_TRUE(warns(topology, "links (1, \"h0\" to \"r\" first) that carry less in one direction"));
  EXPECT_TRUE(warns(topology, "(FATPIPE): here flows share it"));
}

TEST(Simgrid, CabinetsHostLinksAndPeers_StandAroundOneSwitch) {
  const std::string cabinet =
      "<cabinet id=\"c\" prefix=\"c\" suffix=\"\" radical=\"1-3\" speed=\"1Gf\" bw=\"2GBps\" lat=\"1us\"/>";
  const Topology zoned = read("<zone id=\"z\" routing=\"Cluster\">" + cabinet +
                              "<host id=\"x\" speed=\"1Gf\"/><link id=\"u\" bandwidth=\"3GBps\"/>"
                              "<link id=\"d\" bandwidth=\"4GBps\"/><host_link id=\"x\" up=\"u\" down=\"d\"/>"
                              "<router id=\"r\"/><backbone id=\"b\" bandwidth=\"9GBps\" latency=\"1us\"/></zone>");
  EXPECT_EQ(zoned.host_count(), 4);
  EXPECT_EQ(nic_GBps(zoned, 3), 3);
  EXPECT_EQ(zoned.fabric->leaf_names, std::vector<std::string>{"z"});
  const Topology peers = read(
      "<zone id=\"z\" routing=\"Vivaldi\"><peer id=\"p\" speed=\"1Gf\" bw_in=\"2GBps\" "
      "bw_out=\"1GBps\" lat=\"1ms\" coordinates=\"1 2 3\"/><peer id=\"q\" speed=\"1Gf\" "
      "bw_in=\"2GBps\" bw_out=\"1GBps\"/></zone>");
  EXPECT_EQ(peers.leaf_count(), 1);
  EXPECT_TRUE(warns(peers, "2 peers whose latencies follow from coordinates"));
  EXPECT_TRUE(contains(refused("<zone id=\"z\" routing=\"Full\">" + cabinet + "</zone>"), "routing \"Cluster\""));
  EXPECT_TRUE(
      contains(refused("<zone id=\"z\" routing=\"Cluster\"><host id=\"x\" speed=\"1Gf\"/></zone>"), "host_link"));
}

TEST(Simgrid, WhatNothingJoins_IsNoFabricOrLeavesApart) {
  const Topology alone = read(zone(3, 0, "", "None"));
  EXPECT_FALSE(alone.fabric);
  EXPECT_TRUE(warns(alone, "3 parts that no route joins"));
  const Topology apart =
      read("<zone id=\"w\" routing=\"Full\">" + cluster("a", "0-1") + cluster("b", "0-2") + "</zone>");
  EXPECT_EQ(apart.leaf_count(), 2);
  EXPECT_EQ(apart.fabric->spine_count, 0);
}

TEST(Simgrid, ZonesJoinedByCoordinates_AreNotJoinedAndSaySo) {
  const Topology topology =
      read("<zone id=\"v\" routing=\"Vivaldi\">" + cluster("a", "0-1") + cluster("b", "0-2") + "</zone>");
  EXPECT_EQ(topology.fabric->spine_count, 0);
  EXPECT_TRUE(warns(topology, "zone \"v\": its 2 zones are joined by coordinates"));
}

TEST(Simgrid, WhatChangesOrIsNoNetwork_IsSaidOrPassedOver) {
  const Topology topology = read(
      "<config><prop id=\"a\" value=\"b\"/></config>" +
      zone(2, 1,
           "<link id=\"t\" bandwidth=\"1GBps\" state_file=\"f\"/>" + route("h0", "h1", {"l0"}) +
               "<bypassRoute src=\"h0\" dst=\"h1\"><link_ctn id=\"t\"/></bypassRoute>" + route("h0", "h0", {"t"})) +
      "<trace_connect kind=\"HOST_AVAIL\" trace=\"t\" element=\"h0\"/>"
      "<actor host=\"h0\" function=\"f\"/>");
  EXPECT_TRUE(warns(topology, "2 profiles of rates"));
  EXPECT_TRUE(warns(topology, "1 bypass routes"));
  EXPECT_TRUE(warns(topology, "1 loopbacks"));
}

TEST(Simgrid, Mistakes_AreRefusedByElementAndByte) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "no host"},
      {"<actor host=\"h\" function=\"f\"/>", "a deployment file (actors) has none"},
      {zone(2, 1, route("h0", "h9", {"l0"})), "\"h9\": there is no host or router"},
      {zone(2, 1, route("h0", "h1", {"l9"})), "<link_ctn> id, byte"},
      {zone(2, 1, route("h0", "h1", {})), "a route between hosts has links"},
      {zone(2, 0, "<link id=\"a\" bandwidth=\"0\"/>"), "<link> bandwidth, byte"},
      {zone(2, 0, "<link id=\"a\" bandwidth=\"54Mbps,36Mbps\" sharing_policy=\"WIFI\"/>"), "wireless"},
      {zone(2, 0, "<link id=\"a\" bandwidth=\"1GBps\" latency=\"soon\"/>"), "\"soon\""},
      {zone(2, 1, "<link id=\"l0\" bandwidth=\"1GBps\"/>"), "another link has this name"},
      {zone(1, 0, "<host id=\"h0\" speed=\"1\"/>"), "two hosts or routers of this name"},
      {zone(2, 0, "", "RuleBased"), "\"RuleBased\""},
      {zone(2, 0, "<gpu/>"), "<gpu>, byte"},
      {"<include file=\"x\"/>", "put all in one file"},
      {cluster("c", "3-1"), "<cluster> radical"},
      {cluster("c", "0-2000000"), "at most 1000000 hosts"},
      {cluster("c", "0-3", "topology=\"RING\""), "FLAT, TORUS, FAT_TREE or DRAGONFLY"},
      {"<zone id=\"w\" routing=\"Full\">" + cluster("a", "0-3", "topology=\"TORUS\" topo_parameters=\"2,2\"") +
           cluster("b", "0-3") + "</zone>",
       "\"a\" (TORUS) beside other hosts"},
  };
  for (const auto& [inside, said] : cases) {
    const std::string message = refused(inside);
    EXPECT_TRUE(contains(message, said)) << message;
  }
  EXPECT_TRUE(contains(refusal([] { read_simgrid("<platform version=\"2\"/>", "t"); }), "simgrid_update_xml"));
  EXPECT_TRUE(contains(refusal([] { read_simgrid("<topology/>", "t"); }), "begins with <platform>"));
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "<zone id=\"z\" routing=\"Full\">";
  EXPECT_TRUE(contains(refusal([&] { read_simgrid("<platform version=\"4\">" + deep, "t"); }), "not XML at byte"));
  for (int i = 0; i < 100; ++i) deep += "</zone>";
  EXPECT_TRUE(contains(refused(deep), "nested deeper than 64"));
}

TEST(Simgrid, CutOffOrSpoiltAtEachByte_IsReadOrRefused) {
  for (const char* file : {"simgrid-sites.xml", "simgrid-fat-tree.xml"})
    survives_cuts_and_spoilt_bytes(text_of(fixture(file)), "<>\"/=9 -",
                                   [](const std::string& text) { return read_simgrid(text, "t.xml"); });
}

// A tree of up to three tiers, drawn; its hosts' routes as lists of links and nothing else. What is read has the same
// least rate between each two hosts, or is refused.
TEST(Simgrid, DrawnTrees_KeepTheLeastRateOfEachWay) {
  int three_tiers = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 dice(seed);
    const auto below = [&](unsigned end) { return static_cast<unsigned>(dice() % end); };
    std::vector<std::vector<std::string>> ways;  // from each host to the root
    std::string text = "<zone id=\"z\" routing=\"Full\">";
    std::map<std::string, double> GBps;
    const auto new_link = [&] {
      const std::string name = "l" + std::to_string(GBps.size());
      GBps[name] = 1 + below(9);
      text += "<link id=\"" + name + "\" bandwidth=\"" + std::to_string(GBps[name]) + "GBps\"/>";
      return name;
    };
    for (unsigned pod = 0, pods = 1 + below(3); pod < pods; ++pod) {
      const std::string out = new_link();
      for (unsigned leaf = 0, leaves = 1 + below(3); leaf < leaves; ++leaf) {
        const std::string up = new_link();
        for (unsigned host = 0, hosts = 1 + below(4); host < hosts; ++host) ways.push_back({new_link(), up, out});
      }
    }
    std::string routes;
    std::vector<std::vector<double>> wanted(ways.size(), std::vector<double>(ways.size()));
    for (std::size_t a = 0; a < ways.size(); ++a) {
      text += "<host id=\"h" + std::to_string(a) + "\" speed=\"1Gf\"/>";
      for (std::size_t b = a + 1; b < ways.size(); ++b) {
        std::size_t shared = 0;  // tiers above both
        while (shared < 2 && ways[a][2 - shared] == ways[b][2 - shared]) ++shared;
        std::vector<std::string> links(ways[a].begin(), ways[a].end() - static_cast<std::ptrdiff_t>(shared));
        links.insert(links.end(), ways[b].rbegin() + static_cast<std::ptrdiff_t>(shared), ways[b].rend());
        wanted[a][b] = 10;
        for (const std::string& link : links) wanted[a][b] = std::min(wanted[a][b], GBps[link]);
        routes += route("h" + std::to_string(a), "h" + std::to_string(b), links);
      }
    }
    const Topology topology = with_gpus(read(text + routes + "</zone>"));
    three_tiers += topology.fabric && topology.fabric->core_count > 0 ? 1 : 0;
    const Router router(topology);
    for (int i = 0; i < topology.host_count(); ++i)
      for (int j = 0; j < topology.host_count(); ++j) {
        const std::size_t a = std::stoul(topology.host_name(i).substr(1)),
                          b = std::stoul(topology.host_name(j).substr(1));
        if (a < b) {
          EXPECT_DOUBLE_EQ(router.route(i, j).bottleneck_GBps, wanted[a][b]) << a << " to " << b;
        }
      }
  }
  EXPECT_GT(three_tiers, 10);
}

// 60,000 hosts, each over two links with a router between.
TEST(Simgrid, ManyHosts_AreReadOnceAndQuickly) {
  std::string text = "<zone id=\"z\" routing=\"Floyd\"><router id=\"r\"/>";
  std::string routes;
  for (int i = 0; i < 60'000; ++i) {
    const std::string n = std::to_string(i);
    text += "<host id=\"h" + n + "\" speed=\"1Gf\"/><router id=\"x" + n + "\"/><link id=\"a" + n +
            "\" bandwidth=\"1GBps\"/><link id=\"b" + n + "\" bandwidth=\"2GBps\"/>";
    routes += route("h" + n, "r", {"b" + n, "a" + n}) + route("x" + n, "r", {"a" + n});
  }
  const Topology topology = read(text + routes + "</zone>");
  EXPECT_EQ(topology.host_count(), 60'000);
  EXPECT_EQ(topology.leaf_count(), 1);
}

TEST(Simgrid, OthersFiles_ReadDrawAndRoundTrip) {
  const std::string folder = data_path("topologies/simulators/simgrid");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there; set TOPOMOE_DATA_DIR";
  const std::map<std::string, std::pair<int, std::vector<int>>> hosts_of_leaves = {
      {"cluster_backbone.xml", {100, {100}}},
      {"cluster_multi.xml", {24, {8, 8, 8}}},
      {"cluster_torus.xml", {12, {}}},
      {"data_center.xml", {120, {40, 50, 30}}},
      {"dogbone.xml", {4, {2, 2}}},
      {"meta_cluster.xml", {60, {30, 30}}},
      {"two_hosts.xml", {2, {2}}}};
  for (const auto& [file, known] : hosts_of_leaves) {
    SCOPED_TRACE(file);
    const Topology topology = read_topology_file(folder + "/" + file);
    EXPECT_EQ(topology.host_count(), known.first);
    EXPECT_EQ(unit_of_hosts(topology), known.second);
    EXPECT_GT(topology.warnings.size(), 1U);
  }
  read_or_refused(folder, hosts_of_leaves);
}

TEST(SimgridXml, LinksOfOneRateAndTwoLatencies_AreTwoKindsOfHost) {
  std::string text = text_of(fixture("simgrid-sites.xml"));
  const std::size_t at = text.find("latency=\"", text.find("<link id=\"lb\""));
  text.replace(at, text.find('"', at + 9) + 1 - at, "latency=\"55us\"");
  const Topology topology = read_topology(text, "x");
  EXPECT_EQ(write_cluster_json(read_cluster_json(write_cluster_json(topology), "x")), write_cluster_json(topology));
}

}  // namespace
}  // namespace topomoe::test
