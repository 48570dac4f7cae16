// Which format a text is taken for, and what is said of one that is none.
#include "support.hpp"

namespace topomoe::test {
namespace {

TEST(Formats, UnknownContent_ListsWhatIsReadAndQuotesTheBeginning) {
  const std::string message = refusal([] { read_topology("hello\nworld", "greeting.txt"); });
  EXPECT_TRUE(contains(message, "greeting.txt: begins with \"hello\"")) << message;
  for (const TopologyFormat& format : topology_formats()) EXPECT_TRUE(contains(message, format.name)) << message;
  EXPECT_LT(message.size(), 400U) << message;  // names alone
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

TEST(Formats, WhatIsMeasured_IsSentToTheDoctor) {
  for (const char* file : {"nccl_tests_all_reduce.json", "nccl_tests_alltoall.txt", "nvbandwidth.json"}) {
    const std::string message =
        refusal([&] { read_topology(text_of(source_path(std::string("tests/data/measured/") + file)), file); });
    EXPECT_TRUE(contains(message, std::string(file) + ": output of nccl-tests or nvbandwidth")) << message;
    EXPECT_TRUE(contains(message, "topo doctor --measured")) << message;
  }
  EXPECT_TRUE(
      contains(refusal([] { read_topology("nvbandwidth Version: v0.8\nRunning host_to_device_memcpy_ce.\n", "x"); }),
               "topo doctor --measured"));
}

TEST(Formats, ModelsConfig_IsSentToModel) {
  for (const char* text : {R"({"model_type": "mixtral"})", R"({"architectures": ["MixtralForCausalLM"]})"})
    EXPECT_TRUE(contains(refusal([&] { read_topology(text, "config.json"); }), "a model's config.json: ")) << text;
  // A cluster that calls something so is a cluster, with what is wrong in it.
  EXPECT_FALSE(contains(refusal([] { read_topology(R"({"schema": "topomoe.cluster/1", "model_type": 1})", "x"); }),
                        "config.json"));
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

TEST(Formats, TextThatIsNotUtf8_IsRefusedByItsFirstBrokenByte) {
  const std::string line = "SwitchName=leaf Nodes=h[1-2] # ";  // 31 bytes
  for (const char* broken : {"\xe9", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"}) {
    const std::string message = refusal([&] { read_topology(line + broken + "\n", "x"); });
    EXPECT_TRUE(contains(message, "x: byte 31: not UTF-8") && contains(message, "iconv")) << message;
  }
  for (const char* whole : {"\xc3\xa9", "\xe2\x82\xac", "\xf4\x8f\xbf\xbf"})
    EXPECT_EQ(read_topology(line + whole + "\n", "x").host_count(), 2);
}

TEST(Formats, Refusal_IsOneLineWhateverTheTextHolds) {
  const std::string message = refusal(
      [] { read_topology("<system><cpu><pci busid=\"0:0\" link_width=\"1&#10;2&#27;[2J\"/></cpu></system>", "x"); });
  EXPECT_TRUE(contains(message, "\"1?2?[2J\"")) << message;
}

TEST(Formats, Refusal_IsShortWhateverTheTextHolds) {
  const std::string message =
      refusal([] { read_topology("SwitchName=leaf Nodes=h1 " + std::string(100'000, 'k') + "=1", "x"); });
  EXPECT_LT(message.size(), 4096U);
  EXPECT_TRUE(contains(message, "kkk...")) << message;
}

}  // namespace
}  // namespace topomoe::test
