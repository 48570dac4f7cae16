// Parameter and FLOP counts by hand arithmetic, and JSON of models and jobs.
#include "topomoe/model.hpp"

#include <gtest/gtest.h>

#include "planner/plan/json.hpp"
#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

// Small enough to count by hand: layer 0 dense, layer 1 MoE with 4 experts, top-2, one shared expert.
Model tiny() {
  Model m;
  m.name = "tiny", m.model_type = "test";
  m.hidden = 8, m.layers = 2, m.heads = 4, m.kv_heads = 2, m.head_dim = 2, m.vocab = 10;
  m.experts = 4, m.top_k = 2, m.expert_ffn = 3, m.shared_ffn = 5, m.dense_ffn = 6, m.is_moe = {0, 1};
  return m;
}
Model tiny_mla() {
  Model m = tiny();
  m.kv_heads = 4, m.head_dim = 5;
  m.q_lora_rank = 6, m.kv_lora_rank = 4, m.qk_nope_head_dim = 3, m.qk_rope_head_dim = 2, m.v_head_dim = 7;
  return m;
}

TEST(Model, Parameters_ByHand) {
  const Model m = tiny();
  EXPECT_EQ(attention_parameters(m), 8 * 8 + 2 * 8 * 4 + 8 * 8);  // Q, K and V of 2 heads x 2, O: 192
  EXPECT_EQ(expert_parameters(m), 3 * 8 * 3);                     // 72
  EXPECT_EQ(shared_parameters(m), 3 * 8 * 5);                     // 120
  EXPECT_EQ(dense_parameters(m), 3 * 8 * 6);                      // 144
  EXPECT_EQ(router_parameters(m), 8 * 4);                         // 32
  EXPECT_EQ(layer_parameters(m, 0), 192 + 144);
  EXPECT_EQ(layer_parameters(m, 1), 192 + 32 + 120 + 4 * 72);
  EXPECT_EQ(total_parameters(m), 336 + 632 + 2 * 80);
  EXPECT_EQ(active_parameters(m), 336 + 632 - 2 * 72 + 2 * 80);
}

TEST(Model, Parameters_TiedUngatedEncoder_ByHand) {
  Model m = tiny();
  m.gated_ffn = false;
  EXPECT_EQ(expert_parameters(m), 2 * 8 * 3);
  m.tie_embeddings = true;
  EXPECT_EQ(logits_parameters(m), 0);
  m.tie_embeddings = false, m.encoder_only = true;
  EXPECT_EQ(logits_parameters(m), 0);
}

TEST(Model, MlaParameters_ByHand) {
  // q: 8*6 + 6*4*5 = 168; kv: 8*(4+2) + 4*4*(3+7) = 208; o: 4*7*8 = 224
  EXPECT_EQ(attention_parameters(tiny_mla()), 168 + 208 + 224);
  Model direct = tiny_mla();
  direct.q_lora_rank = 0;  // q: 8*4*5 = 160
  EXPECT_EQ(attention_parameters(direct), 160 + 208 + 224);
}

TEST(Model, FlopsPerToken_ByHand) {
  // Linear: layers 336 + 632 - 144 = 824, logits 80. Attention: 6 L s h = 6 * 2 * 16 * 8.
  EXPECT_EQ(model_flops_per_token(tiny(), 16), 6 * (824 + 80) + 6 * 2 * 16 * 8);
  Model encoder = tiny();
  encoder.encoder_only = true;
  EXPECT_EQ(model_flops_per_token(encoder, 16), 6 * 824 + 12 * 2 * 16 * 8);
  Model mtp = tiny();  // one more MoE layer (632 - 144), its projection 2*8*8, logits again, attention again
  mtp.mtp_layers = 1;
  EXPECT_EQ(model_flops_per_token(mtp, 16), 6 * (824 + 488 + 128 + 160) + 6 * 3 * 16 * 8);
  EXPECT_EQ(mtp_layer_parameters(mtp), 632 + 128);
}

TEST(Model, Check_Inconsistent_NamesField) {
  const auto broken = [](auto change) {
    Model m = tiny();
    change(m);
    return message_of([&] { check(m); });
  };
  EXPECT_EQ(broken([](Model&) {}), "no error");
  EXPECT_HAS(broken([](Model& m) { m.kv_heads = 3; }), "model: kv_heads: 3: must divide heads = 4");
  EXPECT_HAS(broken([](Model& m) { m.top_k = 5; }), "top_k: 5");
  EXPECT_HAS(broken([](Model& m) { m.is_moe = {1}; }), "layer_kinds");
  EXPECT_HAS(broken([](Model& m) { m.is_moe = {0, 0}; }), "dense model");
  EXPECT_HAS(broken([](Model& m) { m.experts = 0; }), "dense model");
  EXPECT_HAS(broken([](Model& m) { m.dense_ffn = 0; }), "dense_ffn");
  EXPECT_HAS(broken([](Model& m) { m.router_groups = 4, m.router_topk_groups = 1; }), "fewer experts than top_k");
}

// tiny() with two more MoE layers: one of a second kind with 8 experts of width 2, top-1, none shared, and one more of
// the first.
Model tiny_pyramid() {
  Model m = tiny();
  m.layers = 4, m.is_moe = {0, 1, 2, 1};
  m.moe_kinds = {{4, 2, 3, 5}, {8, 1, 2, 0}};
  return m;
}

TEST(ModelKinds, Parameters_ByHand) {
  const Model m = tiny_pyramid();
  EXPECT_EQ(moe_layers(m), 3);
  EXPECT_EQ(moe_layers(m, 0), 2);
  EXPECT_EQ(moe_layers(m, 1), 1);
  EXPECT_EQ(mtp_kind(m), 0);
  const double second = 192 + 8 * 8 + 8 * (3 * 8 * 2);  // attention, router, experts of 48
  EXPECT_EQ(layer_parameters(m, 2), second);
  EXPECT_EQ(layer_parameters(m, 3), 632);
  double sum = embedding_parameters(m) + logits_parameters(m);
  for (int layer = 0; layer < 4; ++layer) sum += layer_parameters(m, layer);
  EXPECT_EQ(total_parameters(m), sum);
  EXPECT_EQ(active_parameters(m), sum - 2 * 2 * 72 - 7 * 48);  // 2 of 4 twice, 1 of 8
  EXPECT_EQ(kind_name(m, 1), "MoE kind 2 (8 experts in 1 layers)");
  EXPECT_EQ(model_flops_per_token(m, 16), 6 * (active_parameters(m) - 80) + 6 * 4 * 16 * 8);
}

TEST(ModelKinds, Json_ListsRunsInOrderOfLayers) {
  const Model m = tiny_pyramid();
  const ordered_json json = to_json(m);
  ASSERT_EQ(json["moe_kinds"].size(), 3U);
  EXPECT_EQ(json["moe_kinds"][1]["experts"], 8);
  EXPECT_EQ(json["layer_kinds"], "dmmm");
  EXPECT_EQ(model_from_json(json), m);
  EXPECT_FALSE(to_json(tiny()).contains("moe_kinds"));
}

TEST(ModelKinds, AllRunsAlike_AreTheModelWithout) {
  ordered_json json = to_json(tiny());
  json["layers"] = 4, json["layer_kinds"] = "dmmm";
  const Model plain = model_from_json(json);
  json["moe_kinds"] = {{{"layers", 1}, {"experts", 4}}, {{"layers", 2}, {"experts", 4}, {"top_k", 2}}};
  EXPECT_EQ(model_from_json(json), plain);
}

TEST(ModelKinds, Inconsistent_NamesTheKind) {
  const auto broken = [](auto change) {
    Model m = tiny_pyramid();
    change(m);
    return message_of([&] { check(m); });
  };
  EXPECT_EQ(broken([](Model&) {}), "no error");
  EXPECT_HAS(broken([](Model& m) { m.moe_kinds[1].top_k = 9; }), "moe_kinds[1].top_k: 9: must be at most experts = 8");
  EXPECT_HAS(broken([](Model& m) { m.experts = 6; }), "moe_kinds[0]: 4 experts: the first kind must be what");
  EXPECT_HAS(broken([](Model& m) { m.moe_kinds[1] = m.moe_kinds[0]; }), "moe_kinds[1].experts: 4: is as kind 0");
  EXPECT_HAS(broken([](Model& m) { m.is_moe = {0, 2, 1, 1}; }), "layer_kinds: 2: kinds must be numbered");
  EXPECT_HAS(broken([](Model& m) { m.is_moe = {0, 1, 1, 1}; }), "moe_kinds[1].layers: 0");
  EXPECT_HAS(broken([](Model& m) { m.is_moe = {0, 1, 2, 3}; }), "layer_kinds: 3");
  EXPECT_HAS(broken([](Model& m) { m.router_groups = 4, m.router_topk_groups = 2, m.moe_kinds[1].experts = 6; }),
             "router_groups: 4: must divide moe_kinds[1].experts = 6");
  ordered_json json = to_json(tiny_pyramid());
  json["moe_kinds"][1]["layers"] = 2;
  EXPECT_HAS(message_of([&] { model_from_json(json); }), "moe_kinds: 4 layers: must be the 3 MoE layers");
  json["moe_kinds"] = 3;
  EXPECT_HAS(message_of([&] { model_from_json(json); }), "moe_kinds: 3: must be an array");
  json["moe_kinds"] = {{{"layers", 3}, {"experts", 8}}};
  EXPECT_HAS(message_of([&] { model_from_json(json); }), "moe_kinds[0]: 8 experts: the first kind must be");
}

TEST(ModelJson, RoundTrip_IsIdentical) {
  Model quantized = tiny();
  quantized.quantized_weight_bytes = 0.53125, quantized.scoring = Scoring::sigmoid, quantized.mtp_layers = 1;
  Model mixed = tiny();
  mixed.routed_scaling = 2.5, mixed.shared_gate = SharedGate::sigmoid;
  for (const Model& m : {tiny(), tiny_mla(), quantized, mixed}) {
    const std::string text = to_json(m).dump(2);
    const Model again = model_from_json(parse_json(text, "x"));
    EXPECT_EQ(again, m);
    EXPECT_EQ(to_json(again).dump(2), text);
  }
}

TEST(ModelJson, MissingUnknownOrWrong_NamesKey) {
  const ordered_json whole = to_json(tiny());
  for (const auto& item : whole.items()) {
    ordered_json missing = whole;
    missing.erase(item.key());
    EXPECT_HAS(message_of([&] { model_from_json(missing); }), "model: " + item.key() + ": missing");
    ordered_json wrong = whole;
    wrong[item.key()] = ordered_json::object();
    EXPECT_HAS(message_of([&] { model_from_json(wrong); }), "model: " + item.key() + ": {}");
  }
  ordered_json extra = to_json(tiny());
  extra["hiden"] = 3;
  EXPECT_HAS(message_of([&] { model_from_json(extra); }), "model: hiden: 3: unknown key; known: ");
}

TEST(JobJson, RoundTrip_IsIdentical) {
  Job job;
  job.phase = Phase::decode, job.sequence = 8192, job.micro_batch = 4, job.global_batch = 64, job.dtype = DType::f32;
  job.recompute = Recompute::selective, job.sequence_parallel = SequenceParallel::off, job.capacity_factor = 1.2;
  for (const Job& one : {Job{}, job}) {
    const std::string text = to_json(one).dump(2);
    EXPECT_EQ(job_from_json(parse_json(text, "x")), one);
    EXPECT_EQ(to_json(job_from_json(parse_json(text, "x"))).dump(2), text);
  }
}

TEST(JobJson, MissingUnknownOrWrong_NamesKey) {
  const ordered_json whole = to_json(Job{});
  for (const auto& item : whole.items()) {
    ordered_json missing = whole;
    missing.erase(item.key());
    EXPECT_HAS(message_of([&] { job_from_json(missing); }), "job: " + item.key() + ": missing");
    ordered_json wrong = whole;
    wrong[item.key()] = ordered_json::array();
    EXPECT_HAS(message_of([&] { job_from_json(wrong); }), "job: " + item.key() + ": []");
  }
  ordered_json phase = to_json(Job{});
  phase["phase"] = "trian";
  EXPECT_HAS(message_of([&] { job_from_json(phase); }), "job: phase: trian: must be one of train, prefill, decode");
  ordered_json batch = to_json(Job{});
  batch["micro_batch"] = 3;
  EXPECT_HAS(message_of([&] { job_from_json(batch); }),
             "global_batch: 256: must be a multiple of micro_batch = 3, e.g. 255");
}

TEST(Job, TokensAndMicroBatches_ByHand) {
  Job job;
  job.sequence = 4096, job.micro_batch = 2, job.global_batch = 64;
  EXPECT_EQ(tokens_per_micro_batch(job, 2), 4096);
  EXPECT_EQ(micro_batches(job, 8), 4);
  job.phase = Phase::decode;
  EXPECT_EQ(tokens_per_micro_batch(job, 1), 2);
}

}  // namespace
}  // namespace topomoe
