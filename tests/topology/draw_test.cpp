// The picture and its page: well-formed, of everything, folded, coloured by load.
#include "topomoe/draw.hpp"

#include <pugixml.hpp>
#include <set>

#include "random_cluster.hpp"
#include "support.hpp"
#include "topology/show/draw_fabric.hpp"
#include "topology/show/svg_canvas.hpp"

namespace topomoe::test {
namespace {

struct Drawn {
  explicit Drawn(const Topology& topology) : router(topology), traffic(usual_traffic(router)) {
    svg = draw_svg(router, traffic);
    EXPECT_TRUE(document.load_string(svg.c_str(), pugi::parse_default | pugi::parse_ws_pcdata)) << svg.substr(0, 400);
  }
  std::string texts() const {
    std::string out;
    for (const auto& text : document.select_nodes("//text")) out += std::string(text.node().child_value()) + "\n";
    return out;
  }
  std::set<std::string> line_classes() const {
    std::set<std::string> out;
    for (const auto& line : document.select_nodes("//line[title] | //path[title]"))
      out.insert(line.node().attribute("class").value());
    return out;
  }
  Router router;
  DrawnTraffic traffic;
  std::string svg;
  pugi::xml_document document;
};

TEST(Draw, RandomClusters_AreWellFormedAndNameEveryTemplate) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    Topology topology = with_random_exceptions(random_fabric_cluster(seed), seed);
    for (std::size_t i = 0; i < topology.templates.size(); ++i)
      topology.templates[i].name = "kind <" + std::to_string(i) + "> & \"co\"";
    const Drawn drawn(topology);
    for (std::size_t i = 0; i < topology.templates.size(); ++i)
      EXPECT_TRUE(contains(drawn.texts(), topology.templates[i].name + " x ")) << seed;
    pugi::xml_document page;
    const std::string html = draw_page(drawn.router, drawn.traffic);
    EXPECT_TRUE(contains(html, "</svg>"));
    EXPECT_TRUE(contains(html, "kind &lt;0&gt; &amp; &quot;co&quot; x "));
  }
}

TEST(Draw, EveryBoxOfAHost_IsThere) {
  const Topology topology = cluster("l40s-8x-pcie");
  const Drawn drawn(topology);
  const std::string texts = drawn.texts();
  for (const HostDevice& device : topology.templates[0].devices)
    EXPECT_TRUE(contains(texts, device.name + "\n")) << device.name;
  // Of 64 MiB: 5 over 64 GB/s at a root, the slowest; 2/128 between CPUs (20%), 7/8 a slot of 32 (35%), 3/2 a switch
  // of 32 (60%); NICs idle.
  EXPECT_EQ(drawn.line_classes(), (std::set<std::string>{"l0", "l1", "l2", "l3", "l5"}));
}

TEST(Draw, Lines_AreInsideThePictureAndBoxesApart) {
  for (const char* name : {"gb200-nvl72", "h100-512x8-dragonfly", "l40s-8x-pcie", "h100-2048x8-3tier"}) {
    const Drawn drawn(cluster(name));
    const auto number = [](const pugi::xml_node& node, const char* key) { return node.attribute(key).as_double(); };
    const pugi::xml_node svg = drawn.document.child("svg");
    struct Box {
      double x, y, w, h;
    };
    std::vector<Box> boxes;
    for (const auto& found : drawn.document.select_nodes("//rect[@class='gpu' or @class='net' or @class='plane']"))
      boxes.push_back({number(found.node(), "x"), number(found.node(), "y"), number(found.node(), "width"),
                       number(found.node(), "height")});
    ASSERT_GT(boxes.size(), 4U);
    for (std::size_t a = 0; a < boxes.size(); ++a) {
      EXPECT_LE(boxes[a].x + boxes[a].w, number(svg, "width"));
      EXPECT_LE(boxes[a].y + boxes[a].h, number(svg, "height"));
      for (std::size_t b = 0; b < a; ++b)
        EXPECT_FALSE(boxes[a].x < boxes[b].x + boxes[b].w && boxes[b].x < boxes[a].x + boxes[a].w &&
                     boxes[a].y < boxes[b].y + boxes[b].h && boxes[b].y < boxes[a].y + boxes[a].h)
            << name;
    }
  }
}

TEST(Draw, SixtyFourEqualHosts_AreDrawnOnce) {
  const Drawn drawn(small_cluster(64));
  const std::string texts = drawn.texts();
  EXPECT_TRUE(contains(texts, "small-host x 64\n"));
  EXPECT_TRUE(contains(texts, "x 32, 2 hosts\n"));  // each of 4 rails: 32 leaves of two hosts
  EXPECT_EQ(drawn.document.select_nodes("//rect[@class='gpu']").size(), 4U);
  EXPECT_LT(drawn.svg.size(), Drawn(small_cluster(2)).svg.size() + 200);
}

TEST(Draw, UnequalLeafAndHost_StandApart) {
  const Topology topology =
      edit(small_cluster(64), {parse_degrade("leaf5->spine=0.5"), parse_remove("host9.gpu1"), parse_remove("host20")});
  const std::string texts = Drawn(topology).texts();
  EXPECT_TRUE(contains(texts, "leaf5 at 0.5\n"));
  EXPECT_TRUE(contains(texts, "leaf5->spine at 0.5 of its rate\n"));
  EXPECT_TRUE(contains(texts, "small-host x 62\n"));
  EXPECT_TRUE(contains(texts, "small-host without gpu1 x 1\n"));
  EXPECT_TRUE(contains(texts, "small-host removed x 1\n"));
}

TEST(Draw, Fold_CountsEveryLeafAndPodOnce) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const Topology topology = with_random_exceptions(random_fabric_cluster(seed), seed);
    if (topology.fabric->kind == FabricKind::torus) continue;
    const Router router(topology);
    const FoldedFabric folded = fold_fabric(router, DrawnLoad(router, nullptr));
    int leaves = 0, pods = 0;
    for (const LeafKind& kind : folded.leaves) leaves += kind.leaves;
    for (const PodKind& kind : folded.pods) pods += kind.pods;
    EXPECT_EQ(leaves, topology.leaf_count()) << seed;
    EXPECT_GE(pods, 1) << seed;
  }
}

TEST(Draw, SlowestLink_IsTheOneInRed) {
  // 4 hosts: NICs at 100%, leaves' uplinks at a third, NVLink 3 of 4 quarters of 1/16 over 100 GB/s: far less.
  const Drawn drawn(small_cluster(4));
  std::set<std::string> red;
  for (const auto& line : drawn.document.select_nodes("//line[@class='l5']"))
    red.insert(std::string(line.node().child_value("title")).substr(0, 8));
  EXPECT_EQ(red, std::set<std::string>{"NIC port"});
  EXPECT_TRUE(contains(drawn.texts(), "slowest: host0.nic0->leaf0 (nic_out)"));
}

TEST(Draw, WithoutTraffic_SaysWhy) {
  Topology apart = small_cluster(2);
  apart.fabric.reset();
  const Drawn drawn(apart);
  EXPECT_FALSE(drawn.traffic.load);
  EXPECT_TRUE(contains(drawn.texts(), "not coloured by load: flow host0.gpu0 -> host1.gpu0: no path"));
  EXPECT_EQ(drawn.line_classes(), std::set<std::string>{"plain"});
  EXPECT_FALSE(contains(draw_page(drawn.router, drawn.traffic), "Loads by class"));
}

TEST(Draw, HugeHostsAndManyKinds_StayAPicture) {
  HostShape shape = small_shape();
  shape.gpus = 128;
  Topology topology = small_cluster(2, shape);
  EXPECT_TRUE(contains(Drawn(topology).texts(), "128 GPUs, 4 NICs\n"));
  topology = small_cluster(4);
  for (int i = 0; i < 300; ++i) {
    topology.templates.push_back(topology.templates[0]);
    topology.templates.back().name = "kind" + std::to_string(i);
    topology.groups.push_back({i + 1, 1});
  }
  const Drawn drawn(topology);
  // Four in full, 200 as boxes, of 301.
  EXPECT_TRUE(contains(drawn.texts(), "and 97 kinds of hosts more\n"));
  EXPECT_LT(drawn.svg.size(), 500'000U);
  EXPECT_TRUE(contains(draw_page(drawn.router, drawn.traffic), "237 kinds of hosts more"));
}

TEST(Draw, Page_HasTheFiguresAndLoadsNothing) {
  const Router router(cluster("gb200-nvl72"));
  const std::string page = draw_page(router, usual_traffic(router));
  for (const char* part : {"<svg ", "Loads by class of links", "NVL 900", "P2C 64*", "same NVLink domain", "</html>"})
    EXPECT_TRUE(contains(page, part)) << part;
  EXPECT_TRUE(contains(page, "svg{display:block;max-width:100%;height:auto}"));  // as wide as the page, no wider
  EXPECT_TRUE(contains(page, " viewBox=\"0 0 "));
  for (const char* part : {"<script", "src=", "href=", "@import", "url("}) EXPECT_FALSE(contains(page, part)) << part;
}

TEST(SvgCanvas, Text_IsValidWhateverTheName) {
  EXPECT_EQ(xml_escaped("a<b>&\"c\"\x01"), "a&lt;b&gt;&amp;&quot;c&quot;");
  EXPECT_EQ(xml_escaped("M\xc3\xbcnchen \xe2\x82\xac \xf0\x9f\x98\x80"),
            "M\xc3\xbcnchen \xe2\x82\xac \xf0\x9f\x98\x80");
  // Cut off, overlong, a surrogate, beyond Unicode, a lone continuation.
  EXPECT_EQ(xml_escaped("\xc3"), "?");
  EXPECT_EQ(xml_escaped("\xc0\xaf"), "??");
  EXPECT_EQ(xml_escaped("\xed\xa0\x80"), "???");
  EXPECT_EQ(xml_escaped("\xf4\x90\x80\x80x"), "????x");
  EXPECT_EQ(xml_escaped("\x80z"), "?z");
}

TEST(SvgCanvas, LoadClasses_StepAtTheirBounds) {
  EXPECT_STREQ(load_class(-1), "plain");
  EXPECT_STREQ(load_class(0), "l0");
  EXPECT_STREQ(load_class(0.2), "l1");
  EXPECT_STREQ(load_class(0.5), "l2");  // "to 50%"
  EXPECT_STREQ(load_class(0.51), "l3");
  EXPECT_STREQ(load_class(0.99), "l4");
  EXPECT_STREQ(load_class(1), "l5");
  EXPECT_LT(line_width(16), line_width(64));
  EXPECT_LT(line_width(450), line_width(1600));
}

}  // namespace
}  // namespace topomoe::test
