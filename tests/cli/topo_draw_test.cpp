// topo draw as users call it.
#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using TopoDraw = Command;

TEST_F(TopoDraw, WritesAPictureOrAPage) {
  ASSERT_EQ(topomoe("topo draw $clusters/h100-16x8.json -o a.svg").code, 0);
  EXPECT_EQ(read("a.svg").rfind("<svg ", 0), 0U);
  EXPECT_NE(read("a.svg").find("alltoall, 64 MiB a GPU"), std::string::npos);
  ASSERT_EQ(topomoe("topo draw $clusters/h100-16x8.json -o a.html --pattern rail --bytes 8M --remove host3").code, 0);
  EXPECT_EQ(read("a.html").rfind("<!doctype html>", 0), 0U);
  EXPECT_NE(read("a.html").find("rail, 8 MiB a GPU"), std::string::npos);
  EXPECT_EQ(files(), (std::vector<std::string>{"a.html", "a.svg"}));
}

TEST_F(TopoDraw, IsTheDrawingOfShowAndExport) {
  ASSERT_EQ(topomoe("topo draw $clusters/dgx-h100.json -o a.svg").code, 0);
  ASSERT_EQ(topomoe("topo show $clusters/dgx-h100.json --svg b.svg").code, 0);
  ASSERT_EQ(topomoe("topo export $clusters/dgx-h100.json --as svg -o c.svg").code, 0);
  EXPECT_EQ(read("a.svg"), read("b.svg"));
  EXPECT_EQ(read("a.svg"), read("c.svg"));
}

TEST_F(TopoDraw, NetworkAlone_IsDrawnWithoutColours) {
  write("net.conf", "SwitchName=s1 Nodes=n[1-4]\n");
  ASSERT_EQ(topomoe("topo draw net.conf -o net.svg").code, 0);
  EXPECT_NE(read("net.svg").find("not coloured by load"), std::string::npos);
}

TEST_F(TopoDraw, BadInput_LeavesNothingBehind) {
  write("cut.xml", "<system version=\"1\"><cpu numaid=\"0\">");
  write("here.svg", "{}");
  const auto refused = [&](const std::string& arguments, const std::vector<std::string>& words) {
    const Said no = topomoe("topo draw " + arguments);
    EXPECT_EQ(no.code, 2) << arguments;
    expect_one_line(no.err, words);
  };
  refused("cut.xml -o out.svg", {"cut.xml"});
  refused("here.svg -o here.svg", {"-o", "here.svg"});
  refused("$clusters/dgx-h100.json -o out.png", {"-o", "out.png", "x.svg"});
  refused("$clusters/dgx-h100.json -o out.svg --pattern rail", {"rail"});
  refused("$clusters/dgx-h100.json -o none/out.svg", {"-o", "no folder"});
  write("m.csv", "1,2\n3,4\n");
  refused("$clusters/dgx-h100.json -o out.svg --pattern m.csv", {"m.csv", "8 x 8"});
  EXPECT_EQ(files(), (std::vector<std::string>{"cut.xml", "here.svg", "m.csv"}));
}

}  // namespace
}  // namespace topomoe::testing
