// Reading models: the shipped files against published totals, the traps of config.json, and broken input.
#include "planner/hf_config.hpp"

#include <gtest/gtest.h>

#include <random>

#include "planner/plan/json.hpp"
#include "tests/planner/helpers.hpp"

namespace topomoe {
namespace {

std::string message_for(const std::string& text) {
  return message_of([&] { read_hf_config(text, "x.json"); });
}
std::string message_after(const std::string& file, const char* key, const ordered_json& value) {
  ordered_json json = ordered_json::parse(shipped_text(file));
  json[key] = value;
  return message_for(json.dump());
}
std::string message_without(const std::string& file, const char* key) {
  ordered_json json = ordered_json::parse(shipped_text(file));
  json.erase(key);
  return message_for(json.dump());
}

TEST(HfConfig, ShippedModels_Totals_MatchPublished) {
  struct Row {
    const char* file;
    double total, active, active_tolerance;
  };
  // Qwen's "3.3B" is 3.35e9 cut, not rounded.
  for (const Row& row : {Row{"mixtral-8x7b", 46.7e9, 12.9e9, 0.015}, Row{"mixtral-8x22b", 141e9, 39e9, 0.015},
                         Row{"qwen3-30b-a3b", 30.5e9, 3.3e9, 0.02}, Row{"qwen3-235b-a22b", 235e9, 22e9, 0.015},
                         Row{"deepseek-v3", 671e9, 37e9, 0.015}, Row{"hunyuan-a13b", 80e9, 13e9, 0.02}}) {
    const Model m = shipped(row.file);
    EXPECT_EQ(m.name, row.file);
    EXPECT_NEAR(total_parameters(m) / row.total, 1, 0.015) << row.file << ' ' << total_parameters(m);
    EXPECT_NEAR(active_parameters(m) / row.active, 1, row.active_tolerance) << row.file << ' ' << active_parameters(m);
  }
}

TEST(HfConfig, Mixtral_HeadDimMissingOrNull_IsHiddenOverHeads) {
  EXPECT_EQ(shipped("mixtral-8x7b").head_dim, 128);
  ordered_json json = ordered_json::parse(shipped_text("mixtral-8x7b"));
  json["head_dim"] = nullptr;
  EXPECT_EQ(read_hf_config(json.dump(), "x").head_dim, 128);
  json["head_dim"] = 64;
  EXPECT_EQ(read_hf_config(json.dump(), "x").head_dim, 64);
}

TEST(HfConfig, Qwen3_HeadDimMissing_IsNotGuessed) {
  EXPECT_EQ(shipped("qwen3-30b-a3b").head_dim, 128);  // hidden / heads would be 64
  EXPECT_HAS(message_without("qwen3-30b-a3b", "head_dim"), "x.json: head_dim: missing");
  EXPECT_HAS(message_after("qwen3-30b-a3b", "head_dim", nullptr), "x.json: head_dim: missing");
}

TEST(HfConfig, Qwen3_SparseStepAndMlpOnly_SayWhichLayersAreDense) {
  ordered_json json = ordered_json::parse(shipped_text("qwen3-30b-a3b"));
  json["decoder_sparse_step"] = 2;  // layers 1, 3, 5, ... are MoE
  json["mlp_only_layers"] = {1};    // but for layer 1
  const Model m = read_hf_config(json.dump(), "x");
  EXPECT_FALSE(moe_layer(m, 0));
  EXPECT_FALSE(moe_layer(m, 1));
  EXPECT_FALSE(moe_layer(m, 2));
  EXPECT_TRUE(moe_layer(m, 3));
  EXPECT_EQ(moe_layers(m), 23);
  EXPECT_EQ(m.dense_ffn, 6144);
  EXPECT_HAS(message_after("qwen3-30b-a3b", "mlp_only_layers", {48}), "mlp_only_layers: 48");
}

TEST(HfConfig, DeepSeekV3_MlaMtpGroupsAndPrecision_AreRead) {
  const Model m = shipped("deepseek-v3");
  EXPECT_TRUE(is_mla(m));
  EXPECT_EQ(m.head_dim, 192);
  EXPECT_EQ(m.shared_ffn, 2048);
  EXPECT_EQ(moe_layers(m), 58);
  EXPECT_FALSE(moe_layer(m, 2));
  EXPECT_TRUE(moe_layer(m, 3));
  EXPECT_EQ(m.mtp_layers, 1);
  EXPECT_EQ(m.router_groups, 8);
  EXPECT_EQ(m.router_topk_groups, 4);
  EXPECT_EQ(m.scoring, Scoring::sigmoid);
  EXPECT_EQ(m.routed_scaling, 2.5);
  EXPECT_EQ(m.quantized_weight_bytes, 1);
  EXPECT_HAS(message_after("deepseek-v3", "routed_scaling_factor", "2"),
             "routed_scaling_factor: \"2\": must be a number");
  EXPECT_HAS(message_after("deepseek-v3", "routed_scaling_factor", -1), "routed_scaling_factor: -1: must lie in [0");
}

TEST(HfConfig, OwnFormat_MontaAndSwitch_AreRead) {
  const Model monta = shipped("monta-2x70b");
  EXPECT_EQ(monta.experts, 2);
  EXPECT_EQ(moe_layers(monta), 80);
  // 80 * (8192*128*(2*64 + 2*8) + 2*8192 + 2*3*8192*28672) + 2*128256*8192 = 127e9
  EXPECT_NEAR(total_parameters(monta), 126.9e9, 0.1e9);
  const Model encoder = shipped("switch-base-16");
  EXPECT_EQ(moe_layers(encoder), 6);
  EXPECT_FALSE(encoder.gated_ffn);
  // 12*4*768*768 + 6*(768*16 + 16*2*768*3072) + 6*2*768*3072 + 32128*768 = 5.3e8
  EXPECT_NEAR(total_parameters(encoder), 534.4e6, 0.5e6);
}

// Pyramid-residual: 10 MoE layers of 32 experts and 2 of 64, every other layer dense. "4B" in the paper's table:
// (10*32 + 2*64) * 8.39e6 + 12 residual MLPs and 12 dense FFNs of 8.39e6 + 24 * 4.19e6 + 50257*1024 = 4.11e9.
TEST(HfConfig, OwnFormat_PyramidResidual_IsRead) {
  const Model m = shipped("pr-moe-350m-32-64");
  EXPECT_EQ(moe_kind_count(m), 2);
  EXPECT_EQ(moe_layers(m, 0), 10);
  EXPECT_EQ(moe_layers(m, 1), 2);
  EXPECT_EQ(moe_kind(m, 1), (MoeKind{64, 1, 4096, 4096}));
  EXPECT_EQ(m.is_moe[19], 1);
  EXPECT_EQ(m.is_moe[21], 2);
  EXPECT_EQ(m.shared_gate, SharedGate::residual);
  EXPECT_NEAR(total_parameters(m), 4.11e9, 0.01e9);
}

// Hunyuan-A13B's config.json lists what others give once: 64 experts of which 8, width 3072, one shared, in 32 layers.
// 32 * (65 * 3*4096*3072 + 4096*64 + 4096*128*80) + 128167*4096 = 80.4e9; 9 instead of 65: 12.75e9 active.
ordered_json hunyuan() { return ordered_json::parse(shipped_text("hunyuan-a13b")); }

TEST(HfConfig, HunyuanListsOfEqualFigures_AreOneKind) {
  const Model m = read_hf_config(hunyuan().dump(), "x");
  EXPECT_TRUE(m.moe_kinds.empty());
  EXPECT_EQ(m.top_k, 8);
  EXPECT_EQ(m.shared_ffn, 3072);
  EXPECT_NEAR(total_parameters(m), 80.4e9, 0.1e9);
  EXPECT_NEAR(active_parameters(m), 12.75e9, 0.05e9);
}

TEST(HfConfig, HunyuanListsThatDiffer_AreKinds) {
  ordered_json json = hunyuan();
  for (std::size_t layer = 20; layer < 32; ++layer) json["moe_topk"][layer] = 4, json["num_shared_expert"][layer] = 2;
  const Model m = read_hf_config(json.dump(), "x");
  ASSERT_EQ(moe_kind_count(m), 2);
  EXPECT_EQ(moe_kind(m, 1), (MoeKind{64, 4, 3072, 6144}));
  EXPECT_EQ(moe_layers(m, 0), 20);
  EXPECT_EQ(moe_layers(m, 1), 12);
  json["moe_topk"].erase(0);
  EXPECT_HAS(message_for(json.dump()), "moe_topk: 31 figures: must be one number, or one for each of the 32 layers");
  json = hunyuan();
  json["moe_topk"][3] = 0;
  EXPECT_HAS(message_for(json.dump()), "moe_topk[3]: 0");
  json = hunyuan();
  for (std::size_t layer = 0; layer < 9; ++layer) json["moe_intermediate_size"][layer] = 1024 + layer;
  EXPECT_HAS(message_for(json.dump()), "more than 8 kinds of layers");
}

TEST(HfConfig, TextConfig_IsLookedUpFirst) {
  ordered_json inner = ordered_json::parse(shipped_text("mixtral-8x7b"));
  ordered_json outer = {{"model_type", "wrapper"}, {"hidden_size", 1}, {"text_config", inner}};
  EXPECT_EQ(read_hf_config(outer.dump(), "x").hidden, 4096);
  outer["text_config"]["hidden_size"] = -1;
  EXPECT_HAS(message_for(outer.dump()), "text_config.hidden_size: -1");
}

TEST(HfConfig, ExpertKeySpellings_AreAliases) {
  ordered_json json = ordered_json::parse(shipped_text("mixtral-8x7b"));
  json.erase("num_local_experts");
  json["num_experts"] = 8;
  EXPECT_EQ(read_hf_config(json.dump(), "x").experts, 8);
}

TEST(HfConfig, UnknownFamily_ListsKnownOnes) {
  const std::string message = message_after("mixtral-8x7b", "model_type", "phantom_moe");
  EXPECT_HAS(message, "x.json: model_type: phantom_moe: unknown family");
  for (const auto& name : known_model_types()) EXPECT_HAS(message, name);
}

TEST(HfConfig, NoExperts_SaysDense) {
  EXPECT_HAS(message_for(R"({"model_type":"llama","hidden_size":4096})"), "dense model");
  EXPECT_HAS(message_after("mixtral-8x7b", "num_local_experts", 0), "dense model");
  EXPECT_HAS(message_without("mixtral-8x7b", "num_local_experts"), "dense model");
}

TEST(HfConfig, BadNumbers_AreRejectedByName) {
  for (const ordered_json& bad : {ordered_json(-1), ordered_json(0), ordered_json(2.5), ordered_json(1e300),
                                  ordered_json(18446744073709551615u), ordered_json("4096"), ordered_json::array()})
    EXPECT_HAS(message_after("mixtral-8x7b", "hidden_size", bad), "x.json: hidden_size: ");
  EXPECT_EQ(message_after("mixtral-8x7b", "hidden_size", 4096.0), "no error");
  EXPECT_HAS(message_after("mixtral-8x7b", "num_experts_per_tok", 9), "top_k: 9");
  EXPECT_HAS(message_after("deepseek-v3", "n_group", 7), "router_groups: 7: must divide experts = 256");
  EXPECT_HAS(message_after("deepseek-v3", "scoring_func", "sqrtsoftplus"), "scoring_func");
}

TEST(HfConfig, EachRemovedKey_IsMissedByName) {
  for (const char* key :
       {"hidden_size", "moe_intermediate_size", "num_hidden_layers", "num_attention_heads", "kv_lora_rank",
        "v_head_dim", "vocab_size", "tie_word_embeddings", "n_shared_experts", "num_experts_per_tok",
        "first_k_dense_replace", "intermediate_size", "n_group", "norm_topk_prob"})
    EXPECT_HAS(message_without("deepseek-v3", key), std::string("x.json: ") + key + ": missing");
}

TEST(HfConfig, Truncated_NamesFileLineAndByte) {
  EXPECT_HAS(message_for("{\n\"model_type\": \"mixtral\",\n\"hidden"), "x.json: line 3, byte 3");
  EXPECT_HAS(message_for("{\n\"model_type\": \"mixtral\",\n\"hidden"), "ends early");
  EXPECT_HAS(message_for("{\n\"model_type\": mixtral}"), "x.json: line 2, byte 17: not JSON");
  EXPECT_HAS(message_for(""), "line 1");
  EXPECT_HAS(message_for("[]"), "must be a JSON object");
}

TEST(HfConfig, DeeplyNested_IsRefusedWithoutRecursion) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_HAS(message_for(deep), "nested more than 200 deep");
  EXPECT_HAS(message_for(R"({"model_type":"mixtral","num_experts":)" + deep + "}"), "nested more than 200 deep");
}

// Any cut or damaged text either reads as a consistent model or throws InvalidInput; nothing else.
TEST(HfConfig, RandomDamage_NeverEscapes) {
  std::mt19937 random(7);
  for (const char* file : {"deepseek-v3", "qwen3-30b-a3b", "switch-base-16"}) {
    const std::string whole = shipped_text(file);
    for (int round = 0; round < 400; ++round) {
      std::string text = whole;
      for (unsigned flips = random() % 4 + 1; flips > 0; --flips)
        text[random() % text.size()] = static_cast<char>(random());
      if (round % 3 == 0) text.resize(random() % text.size());
      try {
        check(read_hf_config(text, "x"));
      } catch (const InvalidInput&) {
      }
    }
  }
  for (int round = 0; round < 400; ++round) {
    std::string noise(random() % 64, ' ');
    for (char& c : noise) c = static_cast<char>(random());
    EXPECT_THROW(read_hf_config(noise, "x"), InvalidInput);
  }
}

}  // namespace
}  // namespace topomoe
