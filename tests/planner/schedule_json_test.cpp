// JSON of schedules: nothing is lost, it reads well, and what is wrong is named.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <tuple>

#include "planner/plan/json.hpp"
#include "tests/planner/sample_plan.hpp"

namespace topomoe {
namespace {

Schedule flat(int n = 2) { return build_schedule("flat", {.tp = 2, .etp = 2, .ep = 4, .chunks = n, .pieces = n}); }

bool same(const View& a, const View& b) {
  return a.buffer == b.buffer && a.chunks == b.chunks && a.sources == b.sources && a.dests == b.dests &&
         a.split == b.split && a.block == b.block;
}
bool same(const std::vector<View>& a, const std::vector<View>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const View& x, const View& y) { return same(x, y); });
}

void expect_same(const Schedule& a, const Schedule& b) {
  EXPECT_EQ(std::tie(a.name, a.split, a.transport, a.intake, a.chunks, a.pieces),
            std::tie(b.name, b.split, b.transport, b.intake, b.chunks, b.pieces));
  ASSERT_EQ(a.buffers.size(), b.buffers.size());
  for (std::size_t i = 0; i < a.buffers.size(); ++i) {
    const Buffer &x = a.buffers[i], &y = b.buffers[i];
    EXPECT_EQ(std::tie(x.name, x.symbol, x.chunks, x.sources, x.dests, x.order, x.together, x.columns, x.element,
                       x.storage, x.blocks, x.split, x.alias),
              std::tie(y.name, y.symbol, y.chunks, y.sources, y.dests, y.order, y.together, y.columns, y.element,
                       y.storage, y.blocks, y.split, y.alias))
        << x.name;
  }
  ASSERT_EQ(a.maps.size(), b.maps.size());
  for (std::size_t i = 0; i < a.maps.size(); ++i) {
    const IndexMap &x = a.maps[i], &y = b.maps[i];
    EXPECT_TRUE(x.name == y.name && same(x.from, y.from) && same(x.to, y.to) && same(x.ids, y.ids)) << x.name;
  }
  for (const auto& [one, other] : {std::pair{&a.forward, &b.forward}, {&a.backward, &b.backward}}) {
    ASSERT_EQ(one->size(), other->size());
    for (std::size_t i = 0; i < one->size(); ++i) {
      const Step &x = (*one)[i], &y = (*other)[i];
      EXPECT_EQ(std::tie(x.name, x.kind, x.phase, x.chunk, x.lane, x.group, x.metadata, x.map, x.transpose,
                         x.shared_by_tp, x.beside, x.after),
                std::tie(y.name, y.kind, y.phase, y.chunk, y.lane, y.group, y.metadata, y.map, y.transpose,
                         y.shared_by_tp, y.beside, y.after))
          << x.name;
      EXPECT_TRUE(same(x.in, y.in) && same(x.out, y.out) && same(x.weights, y.weights)) << x.name;
      const auto equal = [](const CountSlice& s, const CountSlice& t) {
        return s.symbol == t.symbol && s.sources == t.sources && s.dests == t.dests;
      };
      EXPECT_TRUE(std::equal(x.slices.begin(), x.slices.end(), y.slices.begin(), y.slices.end(), equal)) << x.name;
    }
  }
}

TEST(ScheduleJson, Read_GivesBackWhatWasWritten) {
  each_schedule({1, 2, 4}, [&](const Schedule& s) {
    SCOPED_TRACE(s.name);
    const ordered_json json = to_json(s);
    const Schedule again = schedule_from_json(parse_json(json.dump(), "x"));
    expect_same(s, again);
    EXPECT_EQ(to_json(again).dump(), json.dump());
  });
}

TEST(ScheduleJson, Written_ReadsWell) {
  const ordered_json json = to_json(flat());
  EXPECT_EQ(
      json["buffers"][1].dump(),
      R"({"name":"x.tokens","symbol":"tokens","chunks":[0,2],"sources":"me.tp","order":"by_token","storage":"caller","alias":"x"})");
  EXPECT_EQ(json["maps"][0].dump(),
            R"({"name":"pack.0","from":{"buffer":"x.tokens","chunks":[0,1],"sources":"me"},"to":"send.0",)"
            R"("ids":{"buffer":"ids","chunks":[0,1],"sources":"me"}})");
  const auto& steps = json["forward"];
  const auto gather =
      std::find_if(steps.begin(), steps.end(), [](const auto& s) { return s["name"] == "gather rows.0"; });
  ASSERT_NE(gather, steps.end());
  EXPECT_EQ(gather->dump(),
            R"({"name":"gather rows.0","kind":"all_gather","chunk":0,"lane":"intra_node","group":"etp",)"
            R"("in":[{"buffer":"recv.0","chunks":[0,1],"sources":"me.ep"}],)"
            R"("out":[{"buffer":"gathered.0","chunks":[0,1],"sources":"peer.ep"}],)"
            R"("after":["counts","shard counts","dispatch.0"]})");
}

TEST(ScheduleJson, NameTwice_IsOurBug) {
  Schedule s = flat();
  s.buffers[3].name = s.buffers[2].name;
  EXPECT_THROW(to_json(s), std::logic_error);
  s = flat();
  s.forward[1].map = 1000;
  EXPECT_THROW(to_json(s), std::logic_error);
}

std::string message_after(const std::function<void(ordered_json&)>& edit) {
  ordered_json json = to_json(flat());
  edit(json);
  return message_of([&] { schedule_from_json(json, "plan.json: schedule"); });
}

TEST(ScheduleJson, Wrong_IsNamed) {
  const auto step = [](ordered_json& j, const char* name) -> ordered_json& {
    for (auto& s : j["forward"])
      if (s["name"] == name) return s;
    throw std::logic_error(name);
  };
  EXPECT_HAS(
      message_after([&](auto& j) { j["forward"][0]["in"][0]["buffer"] = "y.token"; }),
      "plan.json: schedule.forward[0].in[0].buffer: \"y.token\": no buffer of this name; known: \"y.tokens\", \"y\", ");
  EXPECT_HAS(message_after([&](auto& j) { j["forward"][0]["in"][0]["buffer"] = "y.token"; }), " in all)");
  EXPECT_HAS(message_after([&](auto& j) { step(j, "dispatch.0")["out"][0] = 7; }),
             ".out[0]: 7: must be a buffer's name, or an object with a buffer and selectors");
  EXPECT_HAS(message_after([&](auto& j) { step(j, "dispatch.0")["after"][0] = "none such"; }),
             ".after[0]: \"none such\": no step of this pass of this name; known: ");
  EXPECT_HAS(message_after([&](auto& j) { step(j, "pack.0")["map"] = "pack"; }),
             ".map: \"pack\": no map of this name; known: \"pack.0\"");
  EXPECT_HAS(message_after([&](auto& j) { step(j, "dispatch.0").erase("group"); }), ".group: missing");
  EXPECT_HAS(message_after([&](auto& j) { step(j, "dispatch.0")["kind"] = "send"; }),
             ".kind: send: must be one of route, ");
  EXPECT_HAS(message_after([&](auto& j) { step(j, "dispatch.0")["grop"] = "ep"; }),
             ".grop: \"ep\": unknown key; known: ");
  EXPECT_HAS(message_after([&](auto& j) { j["buffers"][1]["sources"] = "me.everyone"; }),
             "schedule.buffers[1].sources: everyone: must be one of ep, etp, tp, ");
  EXPECT_HAS(message_after([&](auto& j) { j["buffers"][1]["sources"] = "you.tp"; }),
             "sources: you: must be one of me, peer");
  EXPECT_HAS(message_after([&](auto& j) { j["buffers"][1]["sources"] = "me."; }),
             "sources: empty: must be one of ep, ");
  EXPECT_HAS(message_after([&](auto& j) { j["buffers"][1]["split"] = "me"; }),
             "split: \"me\": must be me or peer and one group");
  EXPECT_HAS(message_after([&](auto& j) { j["buffers"][1]["chunks"] = {1}; }),
             "schedule.buffers[1].chunks: an array of 1: must be [begin, end)");
  EXPECT_HAS(message_after([&](auto& j) { j["buffers"][1]["chunks"] = {0, 1e9}; }), "must be an integer in [0, 4096]");
  EXPECT_HAS(message_after([&](auto& j) { j["buffers"][1]["name"] = "x"; }),
             "schedule.buffers[1].name: \"x\": this name is taken; names must be unique");
  EXPECT_HAS(message_after([&](auto& j) { j["chunks"] = 0; }), "schedule.chunks: 0: must be an integer in [1, 4096]");
  EXPECT_HAS(message_after([&](auto& j) { j["backward"] = "none"; }), "schedule.backward: \"none\": must be an array");
  EXPECT_HAS(message_after([&](auto& j) { j.erase("maps"); }), "schedule.maps: missing");
  EXPECT_HAS(message_after([&](auto& j) { j = {}; }), "plan.json: schedule: null: must be a JSON object");
}

}  // namespace
}  // namespace topomoe
