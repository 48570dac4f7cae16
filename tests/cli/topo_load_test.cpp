// topo load as users call it.
#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using TopoLoad = Command;
using nlohmann::json;

TEST_F(TopoLoad, EachPattern_NamesItsBottleneck) {
  for (const std::string pattern : {"alltoall", "rail", "pairs"}) {
    const Said said = topomoe("topo load $clusters/h100-16x8.json --pattern " + pattern + " --format json");
    ASSERT_EQ(said.code, 0) << said.err;
    const json load = json::parse(said.out);
    EXPECT_EQ(load.at("pattern"), pattern);
    EXPECT_EQ(load.at("buffer_bytes"), 64 << 20);
    EXPECT_EQ(load.at("bottleneck").at("class"), "nic_out");
  }
  const Said said = topomoe("topo load $clusters/dgx-h100.json --bytes 8M");
  EXPECT_NE(said.out.find("alltoall, 8 MiB a GPU, 8 GPUs\nbottleneck: host0.gpu0->nvswitch (nvlink, 450 GB/s"),
            std::string::npos)
      << said.out;
}

TEST_F(TopoLoad, Edits_ChangeIt) {
  const Said said = topomoe("topo load $clusters/h100-16x8.json --degrade leaf3=0.5 --remove host5 --format json");
  ASSERT_EQ(said.code, 0) << said.err;
  const json load = json::parse(said.out);
  EXPECT_EQ(load.at("gpus"), 120);
  EXPECT_NE(load.at("bottleneck").at("link").get<std::string>().find("leaf3"), std::string::npos);
}

TEST_F(TopoLoad, Matrix_IsReadAndRefusedByRowAndColumn) {
  std::string rows, bad;
  for (int row = 0; row < 8; ++row) {
    rows += row == 0 ? "0,4500000,0,0,0,0,0,0\n" : "0,0,0,0,0,0,0,0\n";
    bad += row == 2 ? "0,0,0,-1,0,0,0,0\n" : "0,0,0,0,0,0,0,0\n";
  }
  write("one.csv", rows), write("bad.csv", bad);
  const Said said = topomoe("topo load $clusters/dgx-h100.json --pattern one.csv --format json");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_NEAR(json::parse(said.out).at("bound_us").get<double>(), 10, 1e-9);  // 4.5 MB at 450 GB/s
  const auto refused = [&](const std::string& arguments, const std::vector<std::string>& words) {
    const Said no = topomoe("topo load " + arguments);
    EXPECT_EQ(no.code, 2) << arguments;
    expect_one_line(no.err, words);
  };
  refused("$clusters/dgx-h100.json --pattern bad.csv", {"bad.csv: row 3, column 4", "\"-1\""});
  refused("$clusters/h100-2x8.json --pattern one.csv", {"row 1 has 8 columns", "16 x 16"});
  refused("$clusters/dgx-h100.json --pattern one.csv --bytes 1M", {"--bytes", "--pattern"});
  refused("$clusters/dgx-h100.json --pattern ring", {"--pattern", "ring", "alltoall, rail, pairs"});
  refused("$clusters/dgx-h100.json --pattern none.csv", {"none.csv", "cannot be opened"});
  refused("$clusters/dgx-h100.json --pattern rail", {"rail", "no two of the 8 GPUs"});
  refused("$clusters/dgx-h100.json --bytes 0", {"--bytes"});
  write("net.conf", "SwitchName=s1 Nodes=n[1-4]\n");
  refused("net.conf", {"no GPUs"});
}

}  // namespace
}  // namespace topomoe::testing
