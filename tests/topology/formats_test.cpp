// Which format a text is taken for, and what is said of one that is none.
#include "support.hpp"

namespace topomoe::test {
namespace {

TEST(Formats, UnknownContent_ListsWhatIsReadAndQuotesTheBeginning) {
  const std::string message = refusal([] { read_topology("hello\nworld", "greeting.txt"); });
  EXPECT_TRUE(contains(message, "greeting.txt: begins with \"hello\"")) << message;
  for (const TopologyFormat& format : topology_formats()) EXPECT_TRUE(contains(message, format.name)) << message;
}

TEST(Formats, UnknownXml_IsNamedByItsRoot) {
  EXPECT_TRUE(contains(refusal([] { read_topology("<?xml version='1.0'?><!-- a > b --><html/>", "x"); }), "<html>"));
}

TEST(Formats, EmptyText_IsRefused) {
  for (const char* text : {"", " \n\t", "\xef\xbb\xbf", "\xef\xbb\xbf \n"})
    EXPECT_TRUE(contains(refusal([&] { read_topology(text, "x"); }), "empty"));
}

TEST(Formats, KnownButNotRead_IsCalledByItsName) {
  const std::string message = refusal([] { read_topology("<graphs version=\"1\"></graphs>", "graph.xml"); });
  EXPECT_TRUE(contains(message, "NCCL graph XML")) << message;
  EXPECT_TRUE(contains(message, "NCCL_TOPO_DUMP_FILE")) << message;
}

TEST(Formats, As_OverridesTheContentAndNamesItsChoices) {
  const std::string text = text_of(fixture("nccl-two-trays-one-domain.xml"));
  EXPECT_EQ(read_topology(text, "x", "nccl-xml"), read_topology(text, "x"));
  EXPECT_TRUE(contains(refusal([&] { read_topology(text, "x", "cluster-json"); }), "JSON"));
  EXPECT_TRUE(contains(refusal([&] { read_topology(text, "x", "hwlock"); }), "cluster-json"));
}

TEST(Formats, ByteOrderMarkAndCommentsBeforeTheRoot_AreNoObstacle) {
  const std::string text = text_of(fixture("nccl-two-trays-one-domain.xml"));
  EXPECT_EQ(read_topology("\xef\xbb\xbf\n<!-- <graphs> -->" + text, "x").gpu_count(),
            read_topology(text, "x").gpu_count());
}

}  // namespace
}  // namespace topomoe::test
