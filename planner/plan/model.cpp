#include "topomoe/model.hpp"

#include <numeric>

#include "planner/plan/json.hpp"

namespace topomoe {

int moe_layers(const Model& m) { return std::accumulate(m.is_moe.begin(), m.is_moe.end(), 0); }

int value_head_dim(const Model& m) { return is_mla(m) ? m.v_head_dim : m.head_dim; }

double attention_parameters(const Model& m) {
  const double h = m.hidden, heads = m.heads;
  if (!is_mla(m)) return h * m.head_dim * (2 * heads + 2.0 * m.kv_heads);  // Q and O, K and V
  const double qk = m.qk_nope_head_dim + m.qk_rope_head_dim;
  // Queries through their latent where there is one; keys and values through theirs, to which the shared
  // rotary key is joined; then the output (DeepSeek-V2, arXiv 2405.04434, section 2.1).
  const double q = m.q_lora_rank > 0 ? m.q_lora_rank * (h + heads * qk) : h * heads * qk;
  const double kv =
      h * (m.kv_lora_rank + m.qk_rope_head_dim) + 1.0 * m.kv_lora_rank * heads * (m.qk_nope_head_dim + m.v_head_dim);
  return q + kv + heads * m.v_head_dim * h;
}

double ffn_parameters(const Model& m, double width) { return (m.gated_ffn ? 3.0 : 2.0) * m.hidden * width; }
double expert_parameters(const Model& m) { return ffn_parameters(m, m.expert_ffn); }
double shared_parameters(const Model& m) { return ffn_parameters(m, m.shared_ffn); }
double dense_parameters(const Model& m) { return ffn_parameters(m, m.dense_ffn); }
double router_parameters(const Model& m) { return 1.0 * m.hidden * m.experts; }

namespace {

// A MoE layer in which `experts` of the routed experts count.
double moe_layer_parameters(const Model& m, int experts) {
  return attention_parameters(m) + router_parameters(m) + shared_parameters(m) + experts * expert_parameters(m);
}

// All layers, `experts` of each MoE layer counted; no embeddings, no MTP.
double body_parameters(const Model& m, int experts) {
  const double moe = moe_layers(m);
  return moe * moe_layer_parameters(m, experts) + (m.layers - moe) * (attention_parameters(m) + dense_parameters(m));
}

double mtp_projection(const Model& m) { return 2.0 * m.hidden * m.hidden; }

}  // namespace

double layer_parameters(const Model& m, int layer) {
  return moe_layer(m, layer) ? moe_layer_parameters(m, m.experts) : attention_parameters(m) + dense_parameters(m);
}
double mtp_layer_parameters(const Model& m) { return moe_layer_parameters(m, m.experts) + mtp_projection(m); }

double embedding_parameters(const Model& m) { return 1.0 * m.vocab * m.hidden; }
double logits_parameters(const Model& m) { return m.tie_embeddings || m.encoder_only ? 0 : embedding_parameters(m); }
double total_parameters(const Model& m) {
  return body_parameters(m, m.experts) + embedding_parameters(m) + logits_parameters(m);
}
double active_parameters(const Model& m) {
  return body_parameters(m, m.top_k) + embedding_parameters(m) + logits_parameters(m);
}

double model_flops_per_token(const Model& m, int sequence) {
  // Looking a token up costs nothing, computing logits does, tied or not; each MTP layer computes them again.
  const double logits = m.encoder_only ? 0 : embedding_parameters(m) * (1 + m.mtp_layers);
  const double linear =
      body_parameters(m, m.top_k) + m.mtp_layers * (moe_layer_parameters(m, m.top_k) + mtp_projection(m)) + logits;
  // Scores: 2 s h over queries and keys, values: 2 s h; three times with backward; half of it where causal.
  const double score_width = 1.0 * m.heads * (m.head_dim + value_head_dim(m)) / 2;
  const double attention = (m.encoder_only ? 12.0 : 6.0) * (m.layers + m.mtp_layers) * sequence * score_width;
  return 6 * linear + attention;
}

void check(const Model& m, std::string_view where) {
  const auto fail = [&](const char* field, const std::string& value, const std::string& hint) {
    throw InvalidInput(std::string(where) + ": " + field, value, hint);
  };
  const auto positive = [&](const char* field, int value) {
    if (value <= 0) fail(field, std::to_string(value), "must be positive");
  };
  positive("hidden", m.hidden);
  positive("layers", m.layers);
  positive("heads", m.heads);
  positive("kv_heads", m.kv_heads);
  positive("head_dim", m.head_dim);
  positive("vocab", m.vocab);
  if (m.experts <= 0)
    fail("experts", std::to_string(m.experts), "no experts: this is a dense model, topomoe plans MoE models");
  positive("top_k", m.top_k);
  positive("expert_ffn", m.expert_ffn);
  if (m.heads % m.kv_heads != 0)
    fail("kv_heads", std::to_string(m.kv_heads), "must divide heads = " + std::to_string(m.heads));
  if (m.top_k > m.experts)
    fail("top_k", std::to_string(m.top_k), "must be at most experts = " + std::to_string(m.experts));
  if (m.shared_ffn < 0) fail("shared_ffn", std::to_string(m.shared_ffn), "must not be negative");
  if (m.mtp_layers < 0) fail("mtp_layers", std::to_string(m.mtp_layers), "must not be negative");
  if (m.is_moe.size() != static_cast<std::size_t>(m.layers))
    fail("layer_kinds", std::to_string(m.is_moe.size()) + " layers", "must name all " + std::to_string(m.layers));
  for (const auto kind : m.is_moe)
    if (kind > 1) fail("layer_kinds", std::to_string(kind), "a layer is 0 (dense) or 1 (MoE)");
  if (moe_layers(m) == 0) fail("layer_kinds", "all dense", "this is a dense model, topomoe plans MoE models");
  if (moe_layers(m) < m.layers && m.dense_ffn <= 0)
    fail("dense_ffn", std::to_string(m.dense_ffn), "must be positive, since some layers are dense");
  if (m.router_groups < 1 || m.experts % m.router_groups != 0)
    fail("router_groups", std::to_string(m.router_groups), "must divide experts = " + std::to_string(m.experts));
  if (m.router_topk_groups < 1 || m.router_topk_groups > m.router_groups)
    fail("router_topk_groups", std::to_string(m.router_topk_groups), "must be 1 to router_groups");
  if (1LL * m.router_topk_groups * (m.experts / m.router_groups) < m.top_k)
    fail("router_topk_groups", std::to_string(m.router_topk_groups), "these groups hold fewer experts than top_k");
  if (!(m.quantized_weight_bytes >= 0 && m.quantized_weight_bytes <= 4))
    fail("quantized_weight_bytes", std::to_string(m.quantized_weight_bytes), "must lie in [0, 4]");
  if (!is_mla(m)) return;
  positive("mla.v_head_dim", m.v_head_dim);
  if (m.q_lora_rank < 0) fail("mla.q_lora_rank", std::to_string(m.q_lora_rank), "must not be negative");
  if (m.qk_nope_head_dim < 0 || m.qk_rope_head_dim < 0 || m.head_dim != m.qk_nope_head_dim + m.qk_rope_head_dim)
    fail("head_dim", std::to_string(m.head_dim), "under MLA must be qk_nope_head_dim + qk_rope_head_dim");
}

// One character a layer, d(ense) or m(oE): short, and as easy to read as to write by hand.
ordered_json to_json(const Model& m) {
  std::string kinds;
  for (const auto moe : m.is_moe) kinds += moe ? 'm' : 'd';
  ordered_json j = {{"schema", "topomoe.model/1"},
                    {"name", m.name},
                    {"model_type", m.model_type},
                    {"hidden", m.hidden},
                    {"layers", m.layers},
                    {"layer_kinds", kinds},
                    {"mtp_layers", m.mtp_layers},
                    {"heads", m.heads},
                    {"kv_heads", m.kv_heads},
                    {"head_dim", m.head_dim},
                    {"vocab", m.vocab},
                    {"tie_embeddings", m.tie_embeddings},
                    {"encoder_only", m.encoder_only},
                    {"gated_ffn", m.gated_ffn},
                    {"experts", m.experts},
                    {"top_k", m.top_k},
                    {"expert_ffn", m.expert_ffn},
                    {"shared_ffn", m.shared_ffn},
                    {"dense_ffn", m.dense_ffn},
                    {"scoring", m.scoring == Scoring::softmax ? "softmax" : "sigmoid"},
                    {"renormalize", m.renormalize},
                    {"router_groups", m.router_groups},
                    {"router_topk_groups", m.router_topk_groups},
                    {"quantized_weight_bytes", m.quantized_weight_bytes}};
  if (is_mla(m))
    j["mla"] = {{"q_lora_rank", m.q_lora_rank},
                {"kv_lora_rank", m.kv_lora_rank},
                {"qk_nope_head_dim", m.qk_nope_head_dim},
                {"qk_rope_head_dim", m.qk_rope_head_dim},
                {"v_head_dim", m.v_head_dim}};
  return j;
}

Model model_from_json(const ordered_json& json, const std::string& where) {
  ObjectReader in(json, where);
  Model m;
  if (const std::string schema = in.text("schema"); schema != "topomoe.model/1")
    throw InvalidInput(in.field("schema"), schema, "must be topomoe.model/1");
  m.name = in.text("name");
  m.model_type = in.text("model_type");
  m.hidden = in.integer("hidden", 1, kMaxWidth);
  m.layers = in.integer("layers", 1, kMaxLayers);
  const std::string kinds = in.text("layer_kinds");
  if (kinds.find_first_not_of("dm") != std::string::npos)
    throw InvalidInput(in.field("layer_kinds"), preview(kinds), "must be one letter a layer, d(ense) or m(oE)");
  for (const char kind : kinds) m.is_moe.push_back(kind == 'm');
  m.mtp_layers = in.integer("mtp_layers", 0, kMaxLayers);
  m.heads = in.integer("heads", 1, kMaxWidth);
  m.kv_heads = in.integer("kv_heads", 1, kMaxWidth);
  m.head_dim = in.integer("head_dim", 1, kMaxWidth);
  m.vocab = in.integer("vocab", 1, kMaxVocab);
  m.tie_embeddings = in.boolean("tie_embeddings");
  m.encoder_only = in.boolean("encoder_only");
  m.gated_ffn = in.boolean("gated_ffn");
  m.experts = in.integer("experts", 0, kMaxExperts);
  m.top_k = in.integer("top_k", 1, kMaxExperts);
  m.expert_ffn = in.integer("expert_ffn", 1, kMaxWidth);
  m.shared_ffn = in.integer("shared_ffn", 0, kMaxWidth);
  m.dense_ffn = in.integer("dense_ffn", 0, kMaxWidth);
  if (const std::string scoring = in.text("scoring"); scoring == "sigmoid")
    m.scoring = Scoring::sigmoid;
  else if (scoring != "softmax")
    throw InvalidInput(in.field("scoring"), scoring, "must be softmax or sigmoid");
  m.renormalize = in.boolean("renormalize");
  m.router_groups = in.integer("router_groups", 1, kMaxExperts);
  m.router_topk_groups = in.integer("router_topk_groups", 1, kMaxExperts);
  m.quantized_weight_bytes = in.number("quantized_weight_bytes", 0, 4);
  if (in.has("mla")) {
    ObjectReader mla(in.at("mla"), in.field("mla"));
    m.q_lora_rank = mla.integer("q_lora_rank", 0, kMaxWidth);
    m.kv_lora_rank = mla.integer("kv_lora_rank", 1, kMaxWidth);
    m.qk_nope_head_dim = mla.integer("qk_nope_head_dim", 0, kMaxWidth);
    m.qk_rope_head_dim = mla.integer("qk_rope_head_dim", 0, kMaxWidth);
    m.v_head_dim = mla.integer("v_head_dim", 1, kMaxWidth);
    mla.finish();
  }
  in.finish();
  check(m, where);
  return m;
}

}  // namespace topomoe
