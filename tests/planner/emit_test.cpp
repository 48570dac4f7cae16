// Every emitted file is read by a parser of its format; what a target cannot say is refused or listed.

#include "planner/emit/emit.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "planner/emit/hosts.hpp"
#include "tests/planner/published_arguments.hpp"
#include "tests/planner/sample_plan.hpp"

namespace topomoe {
namespace {

using test::Parsed;

// A plan of a layout as make_plan would leave it: sequence parallel where TP > 1, experts in order.
Plan plan_for(const std::string& model, Layout layout, const std::string& transport = "flat", int chunks = 1) {
  static const Plan sample = sample_plan(1);
  static std::map<std::string, Model> models;
  Plan p = sample;
  if (models.count(model) == 0) models[model] = shipped(model);
  p.model = models[model];
  p.topology.gpus = layout.world, p.topology.hosts = (layout.world + 7) / 8;
  p.ranks.clear();
  for (int rank = 0; rank < layout.world; ++rank)
    p.ranks.push_back({"host" + std::to_string(rank / 8), rank % 8 == 7 ? "" : "0000:1b:00.0"});
  layout.sequence_parallel = layout.tp > 1;
  p.layout = layout;
  p.schedule.transport = transport;
  p.schedule.chunks = chunks;
  p.schedule.name = "sliced " + transport + " n=" + std::to_string(chunks);
  p.schedule.intake = Intake::as_held;
  p.expert_owners.clear();
  for (int e = 0; e < p.model.experts; ++e) p.expert_owners.push_back({e * layout.ep / p.model.experts});
  return p;
}

std::string reasons(const Expected<Emitted, Refused>& result) {
  if (result) return "";
  std::string text;
  for (const Infeasible& why : result.error().why) text += why.message() + "\n";
  return text;
}
bool says(const Emitted& emitted, const std::string& words) {
  return std::any_of(emitted.not_expressed.begin(), emitted.not_expressed.end(),
                     [&](const std::string& note) { return note.find(words) != std::string::npos; });
}

Parsed megatron_arguments(const Plan& plan) {
  const auto result = emit_megatron(plan, {});
  EXPECT_TRUE(result) << reasons(result);
  if (!result) return {};
  Parsed parsed =
      test::parse_megatron(test::bash_array(result->text, "MEGATRON_ARGS"), plan.layout.world, result->text);
  for (const std::string& wrong : parsed.wrong) ADD_FAILURE() << wrong << "\n" << result->text;
  return parsed;
}

TEST(EmitMegatron, Mixtral_SaysTheLayoutTheJobAndTheModel) {
  Plan plan = plan_for("mixtral-8x22b", make_layout(128, 2, 1, 8, 1, 8));
  plan.layout.vpp = 7;  // 56 layers = 8 x 7
  const Parsed p = megatron_arguments(plan);
  EXPECT_EQ(p.integer("tensor-model-parallel-size"), 2);
  EXPECT_EQ(p.integer("pipeline-model-parallel-size"), 8);
  EXPECT_EQ(p.integer("num-virtual-stages-per-pipeline-rank"), 7);
  EXPECT_FALSE(p.has("pipeline-model-parallel-layout"));
  EXPECT_EQ(p.integer("expert-model-parallel-size"), 8);
  EXPECT_EQ(p.integer("expert-tensor-parallel-size"), 1);
  EXPECT_TRUE(p.has("sequence-parallel"));
  EXPECT_TRUE(p.has("use-distributed-optimizer"));
  EXPECT_EQ(p.integer("num-layers"), 56);
  EXPECT_EQ(p.integer("num-query-groups"), 8);
  EXPECT_EQ(p.integer("moe-ffn-hidden-size"), 16384);
  EXPECT_EQ(p.integer("moe-router-topk"), 2);
  EXPECT_FALSE(p.has("moe-layer-freq")) << "all layers are MoE";
  EXPECT_EQ(p.text("moe-token-dispatcher-type"), "alltoall");
  EXPECT_TRUE(p.has("moe-grouped-gemm"));
  EXPECT_FALSE(p.has("recompute-granularity"));
}

TEST(EmitMegatron, DeepseekV3_SaysLatentAttentionDenseLayersGroupsAndMtp) {
  Plan plan = plan_for("deepseek-v3", make_layout(256, 1, 1, 4, 1, 64), "node_dedup");
  plan.job.recompute = Recompute::selective;
  const Parsed p = megatron_arguments(plan);
  EXPECT_TRUE(p.has("multi-latent-attention"));
  EXPECT_EQ(p.integer("kv-lora-rank"), 512);
  EXPECT_EQ(p.integer("qk-head-dim"), 128);
  EXPECT_EQ(p.integer("qk-pos-emb-head-dim"), 64);
  EXPECT_EQ(p.text("moe-layer-freq"), "([0]*3+[1]*58)");
  EXPECT_EQ(p.integer("ffn-hidden-size"), 18432);
  EXPECT_EQ(p.integer("moe-shared-expert-intermediate-size"), 2048);
  EXPECT_EQ(p.integer("moe-router-num-groups"), 8);
  EXPECT_EQ(p.integer("moe-router-group-topk"), 4);
  EXPECT_EQ(p.text("moe-router-score-function"), "sigmoid");
  EXPECT_EQ(p.integer("mtp-num-layers"), 1);
  EXPECT_EQ(p.text("moe-token-dispatcher-type"), "flex");
  EXPECT_EQ(p.text("moe-flex-dispatcher-backend"), "deepep");
  EXPECT_EQ(p.values.at("recompute-modules"), (std::vector<std::string>{"layernorm", "moe_act", "mla_up_proj"}));
  // 61 layers on 4 stages: 16 15 15 15, the MTP layer on the last.
  EXPECT_EQ(p.text("pipeline-model-parallel-layout"), "Et*16|t*15|t*15|t*15m*1L");
}

TEST(EmitMegatron, UnevenStages_AreThoseOfTheLayout) {
  for (const auto& [pp, vpp] : {std::pair{4, 1}, {4, 3}, {8, 2}, {16, 3}}) {
    Plan plan = plan_for("deepseek-v3", make_layout(256, 1, 1, pp, 1, 4));
    plan.layout.vpp = vpp;
    const Parsed p = megatron_arguments(plan);
    std::vector<std::string> wrong;
    const auto chunks = test::decoder_layers_of(p.text("pipeline-model-parallel-layout"), wrong);
    ASSERT_EQ(chunks.size(), static_cast<std::size_t>(pp * vpp));
    for (int stage = 0; stage < pp; ++stage) {
      int layers = 0;
      for (std::size_t chunk = static_cast<std::size_t>(stage); chunk < chunks.size();
           chunk += static_cast<std::size_t>(pp))
        layers += chunks[chunk];
      EXPECT_EQ(layers, static_cast<int>(layers_of_stage(plan.layout, 61, stage).size()));
    }
  }
}

TEST(EmitMegatron, Connections_AreOneWithTpOrCpOnly) {
  const auto text = [](int tp, int cp) {
    return emit_megatron(plan_for("mixtral-8x7b", make_layout(16, tp, cp, 1, 1, 8)), {})->text;
  };
  for (const auto& [tp, cp] : {std::pair{2, 1}, {1, 2}, {2, 2}})
    EXPECT_NE(text(tp, cp).find("export CUDA_DEVICE_MAX_CONNECTIONS=1\n"), std::string::npos);
  EXPECT_EQ(text(1, 1).find("export CUDA_DEVICE_MAX_CONNECTIONS"), std::string::npos);
}

TEST(EmitMegatron, WhatItCannotSay_IsListedWithItsPrice) {
  const auto notes = [](const Plan& p) { return *emit_megatron(p, {}); };
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8), "flat", 4);
  plan.forward.time_us = 123.4;
  EXPECT_TRUE(says(notes(plan), "n=4 chunks"));
  EXPECT_TRUE(says(notes(plan), "123.4 us forward"));
  EXPECT_NE(notes(plan).text.find("# not expressed: n=4 chunks"), std::string::npos) << "in the file too";
  plan.schedule.intake = Intake::tp_gather;
  EXPECT_TRUE(says(notes(plan), "replicated token split"));
  EXPECT_TRUE(says(notes(plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8), "two_level")), "two_level"));
  EXPECT_TRUE(says(notes(plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8), "node_dedup")), "DeepEP"));
  EXPECT_FALSE(says(notes(plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8))), "chunks"));
}

TEST(EmitMegatron, Gradients_GoInBucketsOfTheLargestOperationPlanned) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  EXPECT_EQ(megatron_arguments(plan).integer("ddp-bucket-size"), 25'000'000);  // 1e8 B of fp32 in the sample
  EXPECT_TRUE(says(*emit_megatron(plan, {}), "gradients in idle spans"));
  plan.gradients = {};
  EXPECT_FALSE(megatron_arguments(plan).has("ddp-bucket-size"));
  EXPECT_FALSE(says(*emit_megatron(plan, {}), "gradients in idle spans"));
}

TEST(EmitMegatron, Zero_IsTheDistributedOptimizerOrNone) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  plan.layout.zero = 0;
  EXPECT_FALSE(megatron_arguments(plan).has("use-distributed-optimizer"));
  plan.layout.zero = 2;
  EXPECT_HAS(reasons(emit_megatron(plan, {})), "ZeRO 2: Megatron-LM's distributed optimizer");
}

TEST(EmitMegatron, CapacityFactor_DropsByPositionAndWithAlltoallOnly) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  plan.job.capacity_factor = 1.25;
  const Parsed p = megatron_arguments(plan);
  EXPECT_EQ(p.text("moe-expert-capacity-factor"), "1.25");
  EXPECT_EQ(p.text("moe-token-drop-policy"), "position");
  plan.schedule.transport = "gather";
  EXPECT_HAS(reasons(emit_megatron(plan, {})), "capacity factor");
  plan.job.capacity_factor = 0;
  EXPECT_EQ(megatron_arguments(plan).text("moe-token-dispatcher-type"), "allgather");
}

TEST(EmitMegatron, WhatItCannotRun_IsRefusedByName) {
  const auto refused = [](const char* model, Layout layout, auto change) {
    Plan plan = plan_for(model, layout);
    change(plan);
    return reasons(emit_megatron(plan, {}));
  };
  const Layout two = make_layout(16, 2, 1, 1, 1, 4);
  EXPECT_EQ(refused("mixtral-8x7b", two, [](Plan&) {}), "");
  EXPECT_HAS(refused("mixtral-8x7b", two, [](Plan& p) { p.job.phase = Phase::decode; }), "decode");
  EXPECT_HAS(refused("mixtral-8x7b", two, [](Plan& p) { p.layout.sequence_parallel = false; }),
             "without sequence parallelism");
  EXPECT_HAS(refused("mixtral-8x7b", two, [](Plan& p) { p.layout.expert_order = ExpertOrder::edp_inner; }),
             "EDP inner");
  EXPECT_HAS(refused("qwen3-235b-a22b", make_layout(64, 8, 1, 1, 1, 8), [](Plan&) {}),
             "kv_heads = 4 is not a multiple of tp = 8");
  EXPECT_HAS(refused("mixtral-8x7b", make_layout(16, 1, 4, 1, 1, 4), [](Plan& p) { p.job.sequence = 4100; }),
             "sequence = 4100 is not a multiple of 2 x CP = 8; sequence 4096");
  EXPECT_HAS(refused("mixtral-8x7b", make_layout(16, 1, 1, 4, 1, 4),
                     [](Plan& p) { p.layout.vpp = 2, p.job.global_batch = 24; }),  // 24 / 4 = 6 micro-batches
             "groups of PP = 4, there are 6; global_batch 32");
  EXPECT_HAS(refused("mixtral-8x7b", make_layout(16, 1, 1, 4, 1, 4), [](Plan& p) { p.layout.vpp = 9; }),
             "32 layers are fewer than PP x VPP = 36");
  EXPECT_HAS(refused("mixtral-8x7b", two, [](Plan& p) { std::swap(p.expert_owners[0], p.expert_owners[7]); }),
             "expert 0 is on EP rank 3");
  EXPECT_HAS(refused("mixtral-8x7b", two, [](Plan& p) { p.schedule.transport = "pigeon"; }), "pigeon");
  EXPECT_HAS(refused("mixtral-8x7b", two, [](Plan& p) { p.job.global_batch = 9; }), "global_batch = 9");
  EXPECT_HAS(refused("mixtral-8x7b", two, [](Plan& p) { p.job.dispatch_dtype = DispatchDType::fp8; }),
             "as fp8, Megatron-LM's dispatchers send them in the job's dtype; plan without --dispatch-dtype");
  EXPECT_HAS(refused("switch-base-16", two, [](Plan& p) { p.model.encoder_only = true; }), "encoder");
}

TEST(EmitMegatron, AnyLayout_IsRefusedOrPassesItsAssertions) {
  std::mt19937 random(1);
  const auto one_of = [&](std::vector<int> values) { return values[random() % values.size()]; };
  int accepted = 0, refused = 0;
  for (int round = 0; round < 800; ++round) {
    const char* models[] = {"mixtral-8x7b", "qwen3-235b-a22b", "deepseek-v3", "qwen3-30b-a3b"};
    Layout layout;
    try {
      layout = make_layout(64, one_of({1, 2, 4, 8}), one_of({1, 2, 4}), one_of({1, 2, 4, 8}), one_of({1, 1, 2}),
                           one_of({1, 2, 4, 8, 16}));
    } catch (const InvalidInput&) {
      continue;
    }
    layout.vpp = one_of({1, 1, 2, 3});
    Plan plan = plan_for(models[random() % 4], layout,
                         std::vector{"flat", "two_level", "gather", "node_dedup"}[random() % 4], one_of({1, 2, 4}));
    if (random() % 8 == 0) plan.layout.sequence_parallel = !plan.layout.sequence_parallel;
    if (random() % 8 == 0) plan.layout.expert_order = ExpertOrder::edp_inner;
    plan.job.sequence = one_of({4096, 4096, 8192, 4098, 1000});
    plan.job.micro_batch = one_of({1, 2});
    plan.job.global_batch = one_of({256, 256, 128, 96, 60});
    plan.job.recompute = static_cast<Recompute>(random() % 3);
    plan.job.dtype = random() % 4 ? DType::bf16 : DType::f32;
    if (plan.layout.tp == 1) plan.layout.sequence_parallel = false;
    const auto result = emit_megatron(plan, {});
    if (!result) {
      ++refused;
      EXPECT_FALSE(result.error().why.empty());
      continue;
    }
    ++accepted;
    const Parsed p =
        test::parse_megatron(test::bash_array(result->text, "MEGATRON_ARGS"), plan.layout.world, result->text);
    EXPECT_TRUE(p.wrong.empty()) << p.wrong.front() << "\n" << result->text;
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 50);
}

TEST(EmitMegatron, TheParserItself_RefusesWhatMegatronWould) {
  const auto good = test::bash_array(emit_megatron(plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8)), {})->text,
                                     "MEGATRON_ARGS");
  const std::string environment = "export CUDA_DEVICE_MAX_CONNECTIONS=1\n";
  EXPECT_TRUE(test::parse_megatron(good, 16, environment).wrong.empty());
  EXPECT_FALSE(test::parse_megatron(good, 16, "").wrong.empty());
  EXPECT_FALSE(test::parse_megatron(good, 15, environment).wrong.empty());
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--tensor-parallel", "2"},
                                               {"--num-layers"},
                                               {"--num-layers", "many"},
                                               {"--recompute-granularity", "some"},
                                               {"--moe-layer-freq", "[0]*3"},
                                               {"stray"}}) {
    auto words = good;
    words.insert(words.end(), more.begin(), more.end());
    EXPECT_FALSE(test::parse_megatron(words, 16, environment).wrong.empty()) << more[0];
  }
}

TEST(EmitDeepspeed, Config_IsJsonWithBatchesAndExperts) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  plan.job.micro_batch = 2;
  const auto emitted = emit_deepspeed(plan, {});
  ASSERT_TRUE(emitted) << reasons(emitted);
  const auto config = nlohmann::json::parse(emitted->text);
  EXPECT_EQ(config["train_batch_size"], 256);
  EXPECT_EQ(config["train_micro_batch_size_per_gpu"], 2);
  EXPECT_EQ(config["gradient_accumulation_steps"], 16);  // 256 / (2 x 8)
  EXPECT_EQ(config["zero_optimization"]["stage"], 1);
  EXPECT_EQ(config["tensor_parallel"]["autotp_size"], 2);
  EXPECT_EQ(config["expert_parallel"]["autoep_size"], 8);
  EXPECT_EQ(config["expert_parallel"]["preset_model"], "mixtral");
  EXPECT_EQ(config["use_data_before_expert_parallelism"], false);
  EXPECT_TRUE(says(*emitted, "deepspeed.moe.layer.MoE"));
  EXPECT_TRUE(says(*emitted, "optimizer"));
  plan.model.model_type = "olmoe";
  EXPECT_TRUE(says(*emit_deepspeed(plan, {}), "moe_layer_pattern"));
}

TEST(EmitDeepspeed, Zero_IsTheStageWithTheBucketPlanned) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 1, 1, 1, 1, 8));
  for (const int zero : {0, 1, 2, 3}) {
    plan.layout.zero = zero;
    const auto config = nlohmann::json::parse(emit_deepspeed(plan, {})->text)["zero_optimization"];
    EXPECT_EQ(config["stage"], zero);
    EXPECT_EQ(config["reduce_bucket_size"], 25'000'000);
    EXPECT_EQ(says(*emit_deepspeed(plan, {}), "which has none"), zero == 3);
  }
}

TEST(EmitDeepspeed, StridedExpertGroups_AreDataBeforeExpert) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 1, 1, 1, 1, 4, ExpertOrder::edp_inner));
  EXPECT_EQ(nlohmann::json::parse(emit_deepspeed(plan, {})->text)["use_data_before_expert_parallelism"], true);
}

TEST(EmitDeepspeed, WhatNoConfigCanSay_IsRefusedByName) {
  const auto refused = [](Layout l) { return reasons(emit_deepspeed(plan_for("mixtral-8x7b", l), {})); };
  EXPECT_HAS(refused(make_layout(16, 1, 1, 2, 1, 8)), "PP = 2");
  EXPECT_HAS(refused(make_layout(16, 1, 2, 1, 1, 8)), "CP = 2");
  EXPECT_HAS(refused(make_layout(16, 2, 1, 1, 2, 8)), "ETP = 2");
  Layout whole = make_layout(16, 2, 1, 1, 1, 8);
  whole.zero = 3;
  EXPECT_HAS(refused(whole), "ZeRO 3 beside tensor parallelism");
  Plan displaced = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  displaced.expert_owners[3] = {3, 5};
  displaced.job.dispatch_dtype = DispatchDType::fp8;
  EXPECT_HAS(reasons(emit_deepspeed(displaced, {})), "tokens travel to experts as fp8");
  EXPECT_HAS(reasons(emit_deepspeed(displaced, {})), "expert 3 is on EP rank 3 and 5");
}

TEST(EmitNcclEnv, Variables_HaveAReasonEach) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  std::istringstream lines(emit_nccl_env(plan, {})->text);
  std::string before;
  int variables = 0;
  for (std::string line; std::getline(lines, line); before = line) {
    if (line[0] == '#') continue;
    EXPECT_EQ(line.rfind("export NCCL_", 0), 0u) << line;
    EXPECT_EQ(before[0], '#') << line;
    EXPECT_EQ(line.find("ALGO"), std::string::npos);
    EXPECT_EQ(line.find("PROTO"), std::string::npos);
    ++variables;
  }
  EXPECT_GE(variables, 2);
  EXPECT_LE(variables, 8);
}

TEST(EmitNcclEnv, Variables_FollowThePlan) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  plan.loads = {{"nic_out", "host0/nic0", 50, 1e9, 2e4}};
  EXPECT_HAS(emit_nccl_env(plan, {})->text, "NCCL_CROSS_NIC=0");
  plan.loads.push_back({"leaf_up", "leaf0", 400, 1e9, 2e4});
  EXPECT_EQ(emit_nccl_env(plan, {})->text.find("NCCL_CROSS_NIC"), std::string::npos) << "traffic crosses the spine";
  EXPECT_EQ(emit_nccl_env(plan, {})->text.find("MNNVL"), std::string::npos);
  plan.topology.gpus_per_node = 16;  // both hosts in one NVLink domain
  EXPECT_HAS(emit_nccl_env(plan, {})->text, "NCCL_MNNVL_ENABLE=1");
  const Plan one = plan_for("mixtral-8x7b", make_layout(8, 2, 1, 1, 1, 4));
  EXPECT_EQ(emit_nccl_env(one, {})->text.find("PXN"), std::string::npos) << "one host";
}

TEST(EmitRankfile, Ranks_StandOnTheirHosts) {
  const Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  std::istringstream lines(emit_rankfile(plan, {{"b7", "a1"}, 1})->text);
  int ranks = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line[0] == '#') continue;
    EXPECT_EQ(line, "rank " + std::to_string(ranks) + "=" + (ranks < 8 ? "b7" : "a1") + " slot=0:*");
    ++ranks;
  }
  EXPECT_EQ(ranks, 16);
  EXPECT_HAS(emit_rankfile(plan, {})->text, "rank 8=host1 ");
  EXPECT_HAS(message_of([&] { emit_rankfile(plan, {{"only_one"}, 1}); }), "--hosts");
  const std::string two = emit_rankfile(plan, {{}, 2})->text;
  EXPECT_HAS(two, "rank 3=host0 slot=0:*\nrank 4=host0 slot=1:*\n");
  EXPECT_HAS(two, "rank 11=host1 slot=0:*\nrank 12=host1 slot=1:*\n");
  EXPECT_HAS(emit_rankfile(plan, {})->not_expressed.front(), "--cluster");
  // GPUs 1 and 3 of four on the second socket, and so on.
  const std::string by_gpu = emit_rankfile(plan, {{}, 1, {0, 1, 0, 1, 0, 1, 0, 1}})->text;
  EXPECT_HAS(by_gpu, "rank 8=host1 slot=0:*\nrank 9=host1 slot=1:*\nrank 10=host1 slot=0:*\n");
  EXPECT_HAS(message_of([&] { emit_rankfile(plan, {{}, 1, {0, 1}}); }), "2 GPUs on a host");
  EXPECT_HAS(message_of([&] { emit_rankfile(plan, {{}, 2, {0, 0, 0, 0, 1, 1, 1, 1}}); }), "--sockets 2");
  for (const int sockets : {0, -1, 9}) EXPECT_HAS(message_of([&] { emit_rankfile(plan, {{}, sockets}); }), "--sockets");
}

TEST(EmitRankfile, Sockets_AreThoseOfTheTopology) {
  const std::string clusters = TOPOMOE_SOURCE_DIR "/configs/clusters/";
  EXPECT_EQ(socket_of_gpus(read_topology_file(clusters + "dgx-h100.json")), (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1}));
  Topology unknown = read_topology_file(clusters + "dgx-h100.json");
  for (HostTemplate& host : unknown.templates)
    for (HostDevice& device : host.devices) device.numa = -1;
  EXPECT_HAS(message_of([&] { socket_of_gpus(unknown); }), "--sockets");
}

TEST(EmitTorchrun, Command_FixesRanks) {
  const Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  const std::string text = emit_torchrun(plan, {{"n3", "n1"}, 1})->text;
  const auto at = text.find("exec torchrun ");
  ASSERT_NE(at, std::string::npos);
  std::string command = text.substr(at + 14, text.find(" \"$@\"", at) - at - 14);
  const std::string node_rank = "\"${NODE_RANK:?number of this host}\"";
  ASSERT_NE(command.find(node_rank), std::string::npos);
  command.replace(command.find(node_rank), node_rank.size(), "0");
  std::istringstream in(command);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  const Parsed p = test::parse_torchrun(words);
  EXPECT_TRUE(p.wrong.empty()) << p.wrong.front();
  EXPECT_EQ(p.integer("nnodes"), 2);
  EXPECT_EQ(p.integer("nproc-per-node"), 8);
  EXPECT_EQ(p.text("rdzv-backend"), "static");
  EXPECT_EQ(p.text("master-addr"), "n3");
}

TEST(EmitTorchrun, DevicesOutOfBusOrder_AreMadeVisibleInThePlansOrder) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(4, 1, 1, 1, 1, 4));
  const char* bus[] = {"0000:8a:00.0", "0000:1b:00.0", "0000:4c:00.0", "0000:2d:00.0"};  // places 3 0 2 1
  for (std::size_t i = 0; i < 4; ++i) plan.ranks[i].bus_id = bus[i];
  EXPECT_HAS(emit_torchrun(plan, {})->text, "CUDA_VISIBLE_DEVICES=3,0,2,1 ");
  std::sort(std::begin(bus), std::end(bus), [](const std::string& a, const std::string& b) { return a < b; });
  for (std::size_t i = 0; i < 4; ++i) plan.ranks[i].bus_id = bus[i];
  EXPECT_EQ(emit_torchrun(plan, {})->text.find("CUDA_VISIBLE_DEVICES"), std::string::npos);
  plan.ranks[2].bus_id = "";
  EXPECT_TRUE(says(*emit_torchrun(plan, {}), "bus ids"));
}

TEST(EmitTorchrun, UnevenHosts_AreRefused) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  std::swap(plan.ranks[0], plan.ranks[15]);
  EXPECT_HAS(reasons(emit_torchrun(plan, {})), "consecutive");
  EXPECT_HAS(reasons(emit_slurm(plan, {})), "consecutive");
  EXPECT_HAS(emit_rankfile(plan, {})->text, "rank 0=host1 ");
}

TEST(EmitSlurm, Script_KeepsTheOrderOfHosts) {
  const Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  const std::vector<std::string> names{"node09", "node03"};
  const std::string text = emit_slurm(plan, {names, 1})->text;
  EXPECT_EQ(text.rfind("#!/bin/bash\n", 0), 0u);
  for (const char* line : {"\n#SBATCH --nodes=2\n", "\n#SBATCH --ntasks=16\n", "\n#SBATCH --ntasks-per-node=8\n"})
    EXPECT_HAS(text, line);
  const auto begin = text.find("--nodelist=") + 11;
  EXPECT_EQ(test::parse_hostlist(text.substr(begin, text.find('\n', begin) - begin)), names);
  EXPECT_HAS(text, "--distribution=arbitrary");
  EXPECT_EQ(emit_slurm(plan, {})->text.find("#SBATCH --nodelist"), std::string::npos);
  EXPECT_TRUE(says(*emit_slurm(plan, {}), "k-th node"));
}

TEST(Emit, NamesThatTheClusterGave_AreTheHosts) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  for (std::size_t rank = 0; rank < 16; ++rank) plan.ranks[rank].host = rank < 8 ? "n07" : "host1";
  const auto rankfile = emit_rankfile(plan, {});
  EXPECT_HAS(rankfile->text, "rank 0=n07 ");
  EXPECT_HAS(rankfile->text, "rank 8=host1 ");
  EXPECT_FALSE(says(*rankfile, "machines"));
  EXPECT_HAS(emit_slurm(plan, {})->text, "#SBATCH --nodelist=n07,host1\n");
  EXPECT_HAS(emit_slurm(plan, {{"a", "b"}, 1})->text, "#SBATCH --nodelist=a,b\n");
  for (const char* name : {"n 7", "n7;rm", "-x", ""}) {
    plan.ranks[0].host = name;
    EXPECT_HAS(message_of([&] { emit_rankfile(plan, {}); }), "--hosts: not given, and the plan calls a host");
  }
}

TEST(Hostlist, FoldedLists_ExpandToTheSameNamesInOrder) {
  EXPECT_EQ(fold_hostlist({"n01", "n02", "n03", "n07", "login"}), "n[01-03,07],login");
  EXPECT_EQ(fold_hostlist({"n9", "n10", "n11"}), "n[9-11]");
  EXPECT_EQ(fold_hostlist({"n3", "n2"}), "n[3,2]");
  std::mt19937 random(2);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::string> names;
    for (int i = static_cast<int>(random() % 12) + 1; i > 0; --i) {
      const char* heads[] = {"n", "rack1-n", "login", "x9y"};
      std::string digits = std::to_string(random() % 12);
      if (random() % 2) digits.insert(0, "0");
      names.push_back(std::string(heads[random() % 4]) + (random() % 4 ? digits : ""));
    }
    const std::string folded = fold_hostlist(names);
    EXPECT_EQ(test::parse_hostlist(folded), names) << folded;
    EXPECT_EQ(expand_hostlist(folded, "--hosts"), names) << folded;
  }
}

TEST(Hostlist, Nonsense_IsRefused) {
  for (const char* text : {"", "a,,b", "n[1-", "n[]", "n[3-1]", "n[a-b]", "a b", "a;reboot", "$(x)", "n[1-99999999]",
                           "-rf", "n[1-3", "n]1[", "n[99999999999]"})
    EXPECT_HAS(message_of([&] { expand_hostlist(text, "--hosts"); }), "--hosts: ");
}

TEST(Emit, EveryTarget_IsPureAndNamesThePlan) {
  const Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  for (const Emitter& target : emitters()) {
    const auto a = target.emit(plan, {}), b = target.emit(plan, {});
    ASSERT_TRUE(a && b) << target.name << reasons(a);
    EXPECT_EQ(a->text, b->text);
    EXPECT_EQ(a->text.back(), '\n');
    if (target.name != "deepspeed") EXPECT_HAS(a->text, plan_hash(plan));
    EXPECT_FALSE(a->not_expressed.empty()) << target.name;
  }
  EXPECT_HAS(message_of([] { find_emitter("fax"); }), "megatron, deepspeed");
}

TEST(Emit, NamesWithNewlines_StayInTheirComment) {
  Plan plan = plan_for("mixtral-8x7b", make_layout(16, 2, 1, 1, 1, 8));
  plan.topology.name = "x\nrm -rf /";
  plan.model.name = "y\r\nz";
  for (const Emitter& target : emitters())
    EXPECT_EQ(target.emit(plan, {})->text.find("\nrm"), std::string::npos) << target.name;
}

}  // namespace
}  // namespace topomoe
