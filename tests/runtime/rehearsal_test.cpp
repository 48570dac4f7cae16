// Rehearsals: how far a plan is scaled down, and that a check which cannot fail is not what verifies it.

#include "runtime/rehearsal.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "planner/hf_config.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

const std::string kConfigs = TOPOMOE_SOURCE_DIR "/configs/";

Plan plan_for(std::vector<std::string> fix, const std::string& split = "", int chunks = 0, DType dtype = DType::f32) {
  PlanRequest request;
  request.topology = read_topology_file(kConfigs + "clusters/quickstart-2xh100.json");
  request.model = read_hf_config(read_text_file(kConfigs + "models/mixtral-8x7b.json"), "mixtral-8x7b.json");
  request.fix = std::move(fix);
  request.split = split, request.chunks = chunks;
  request.transport = "flat";
  request.job.dtype = dtype;
  request.job.sequence_parallel = SequenceParallel::off;
  request.job.recompute = Recompute::full;  // so that any layout fits
  const auto plan = make_plan(request);
  if (!plan) throw std::runtime_error(plan.error().message());
  return *plan;
}

RehearsalRequest small(const Plan& plan) {
  return {.size = choose_size(plan, size_request_from("hidden=16,ffn=32,tokens=24", "--shrink"), {}), .verify = true};
}

using Wrap = std::function<std::unique_ptr<Communicator>(Communicator&)>;

RehearsalReport run(const Plan& plan, const RehearsalRequest& request, const Wrap& wrap = nullptr) {
  std::optional<RehearsalReport> report;
  run_inproc(plan.layout.world, [&](Communicator& c) {
    const auto device = make_cpu_device();
    const auto wrapped = wrap ? wrap(c) : nullptr;
    if (auto mine = rehearse(plan, request, wrapped ? *wrapped : c, *device)) report = std::move(mine);
  });
  return *report;
}

// Sends as asked, but one payload message of rank 3 carries a wrong number.
class Corrupting final : public Communicator {
 public:
  Corrupting(Communicator& inner, std::string step) : inner_(inner), step_(std::move(step)) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  ChannelId open_channel(std::span<const int> members) override { return inner_.open_channel(members); }
  void progress() override { inner_.progress(); }
  void barrier() override { inner_.barrier(); }
  void fail(const Failure& failure) noexcept override { inner_.fail(failure); }
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    if (rank() == 3 && info.step == step_)
      for (const Outgoing& s : sends)
        if (s.bytes >= 4) {
          // Our own buffer of this pass; changed in place before it leaves.
          *static_cast<float*>(const_cast<void*>(s.data)) += 0.5F;
          break;
        }
    return inner_.exchange(channel, sends, receives, info);
  }

 private:
  Communicator& inner_;
  std::string step_;
};

std::vector<std::string> wrong(const RehearsalReport& r) {
  std::vector<std::string> names;
  for (const VerifiedTensor& t : r.verified)
    if (t.deviation.relative() > r.bound) names.push_back(t.name);
  return names;
}

TEST(Rehearsal, Layouts_AreVerifiedAndTheirBytesPredicted) {
  for (const auto& fix : std::vector<std::vector<std::string>>{
           {"tp=1", "ep=8"}, {"tp=2", "ep=8", "etp=1"}, {"tp=4", "ep=4", "etp=4"}, {"tp=8", "ep=2", "etp=8"}})
    for (const char* split : {"replicated", "sliced"})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Plan plan = plan_for(fix, split, 2, dtype);
        SCOPED_TRACE(name(plan.layout) + " " + plan.schedule.name);
        const RehearsalReport r = run(plan, small(plan));
        EXPECT_EQ(wrong(r), std::vector<std::string>());
        EXPECT_TRUE(r.bytes_agree());
        EXPECT_EQ(r.verified.size(), 6U);
      }
}

// A plan whose expert_owners were edited by hand, and that drops tokens: run as it says, checked and predicted.
TEST(Rehearsal, PlacementOfThePlanWithReplicasAndCapacity_IsExecuted) {
  for (const auto& fix : std::vector<std::vector<std::string>>{{"tp=1", "ep=8"}, {"tp=4", "ep=4", "etp=4"}}) {
    Plan plan = plan_for(fix, "sliced", 2);
    const int last = plan.layout.ep - 1;
    plan.expert_owners = {{last}, {0}, {0, 2, last}, {2}, {2}, {0}, {last, 0}, {2}};  // none on place 1
    for (const double capacity_factor : {0.0, 0.9}) {
      plan.job.capacity_factor = capacity_factor;
      const Plan read = read_plan(write_plan(plan), "plan.json");
      SCOPED_TRACE(name(read.layout));
      EXPECT_TRUE(unexecuted(read).empty());
      const RehearsalReport r = run(read, small(read));
      EXPECT_EQ(wrong(r), std::vector<std::string>());
      EXPECT_TRUE(r.bytes_agree());
      EXPECT_EQ(r.dropped() > 0, capacity_factor > 0);
    }
  }
}

// Room for a quarter of the tokens: all that was asked for is done, in further rounds, and said.
TEST(Rehearsal, MoreTokensThanThePlanHasRoomFor_TakeFurtherRounds) {
  const Plan plan = plan_for({"tp=2", "ep=8", "etp=1"}, "sliced", 2);
  RehearsalRequest request = small(plan);
  EXPECT_EQ(memory_of_plan(plan, request.size).tokens, 24);
  EXPECT_EQ(run(plan, request).overflow_rounds, 0);
  request.memory = LayerOptions{6, 1};
  const RehearsalReport r = run(plan, request);
  EXPECT_GT(r.overflow_rounds, 0);
  EXPECT_EQ(wrong(r), std::vector<std::string>());
}

// Both ranks of a TP group inject all 24 tokens of it: 48 choices of 8 experts a group, of which each expert keeps at
// most ceil(0.5 x 48 / 8) = 3, so that 24 or more are dropped, and fewer than all.
TEST(Rehearsal, ChoicesDroppedOnEachRankOfATpGroup_CountOnce) {
  Plan plan = plan_for({"tp=2", "ep=8", "etp=1"}, "replicated", 1);
  plan.job.capacity_factor = 0.5;
  const RehearsalReport r = run(plan, small(plan));
  const int groups = plan.layout.world / plan.layout.tp;
  EXPECT_GE(r.dropped(), 24 * groups);
  EXPECT_LT(r.dropped(), 48 * groups);
}

TEST(Rehearsal, OneWrongNumberOnTheWay_IsFound) {
  const Plan plan = plan_for({"tp=2", "ep=8", "etp=1"}, "sliced", 1);
  const auto corrupt = [](const char* step) {
    return [step](Communicator& c) { return std::make_unique<Corrupting>(c, step); };
  };
  const auto dispatched = wrong(run(plan, small(plan), corrupt("dispatch.0")));
  EXPECT_NE(std::find(dispatched.begin(), dispatched.end(), "output"), dispatched.end());
  // A wrong gradient leaves the output alone.
  const auto returned = wrong(run(plan, small(plan), corrupt("b return.0")));
  EXPECT_EQ(returned, std::vector<std::string>{"token gradients"});
}

TEST(Rehearsal, OtherSeed_DrawsOtherTokens) {
  const Plan plan = plan_for({"tp=1", "ep=8"});
  RehearsalRequest one = small(plan), two = one;
  two.seed = 2;
  EXPECT_EQ(run(plan, one).counted_payload, run(plan, one).counted_payload);
  EXPECT_FALSE(run(plan, one).counted_payload == run(plan, two).counted_payload);
}

TEST(Rehearsal, OtherRankCount_IsRefused) {
  const Plan plan = plan_for({"tp=1", "ep=8"});
  const auto refused = [&] {
    run_inproc(2, [&](Communicator& c) { rehearse(plan, small(plan), c, *make_cpu_device()); });
  };
  EXPECT_THROW(refused(), InvalidInput);
}

TEST(ChooseSize, Auto_KeepsTheBudgetAndThePlansShape) {
  const Plan plan = plan_for({"tp=8", "ep=2", "etp=8"}, "sliced", 4);
  const RehearsalSize size = choose_size(plan, {}, {});
  EXPECT_LE(size.flops, Budget{}.flops);
  EXPECT_LE(size.memory_bytes, Budget{}.memory_bytes);
  EXPECT_EQ(size.shape.ffn % 8, 0);
  EXPECT_GE(size.shape.hidden, 16);
  EXPECT_GE(size.tokens, 4 * 8);  // one for each chunk and TP rank
  EXPECT_EQ(size.shape.experts, 8);
  EXPECT_EQ(size.shape.top_k, 2);
  EXPECT_NE(size.note.find("hidden 4096 -> "), std::string::npos);
}

TEST(ChooseSize, TinyBudget_StopsAtTheLeastSizes) {
  const Plan plan = plan_for({"tp=8", "ep=2", "etp=8"}, "sliced", 4);
  const RehearsalSize size = choose_size(plan, {}, {.memory_bytes = 1e9, .flops = 1});
  EXPECT_EQ(size.shape.hidden, 16);
  EXPECT_EQ(size.tokens, 32);
}

TEST(ChooseSize, SizesGiven_AreKeptAndTheRestFollows) {
  const Plan plan = plan_for({"tp=1", "ep=8"});
  EXPECT_EQ(choose_size(plan, size_request_from("hidden=48", "--shrink"), {}).shape.hidden, 48);
  EXPECT_EQ(choose_size(plan, size_request_from("tokens=7", "--shrink"), {}).tokens, 7);
}

TEST(ChooseSize, WhatCannotRun_NamesTheWayOut) {
  const Plan plan = plan_for({"tp=8", "ep=2", "etp=8"});
  const auto message = [&](const std::string& text) -> std::string {
    try {
      choose_size(plan, size_request_from(text, "--shrink"), {});
    } catch (const InvalidInput& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message("ffn=12").find("a multiple of ETP = 8"), std::string::npos);
  EXPECT_NE(message("none").find("--shrink auto"), std::string::npos);
  for (const char* text : {"", "hidden", "hidden=", "hidden=x", "hidden=-1", "hidden=1,", "depth=3"})
    EXPECT_NE(message(text), "") << text;
}

}  // namespace
}  // namespace topomoe
