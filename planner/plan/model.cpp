#include "topomoe/model.hpp"

#include <algorithm>

#include "planner/plan/json.hpp"
#include "planner/plan/names.hpp"

namespace topomoe {
namespace {

constexpr NameTable<SharedGate, 3> kSharedGates = {
    {{SharedGate::none, "none"}, {SharedGate::sigmoid, "sigmoid"}, {SharedGate::residual, "residual"}}};

}  // namespace

int moe_layers(const Model& m) {
  return static_cast<int>(std::count_if(m.is_moe.begin(), m.is_moe.end(), [](std::uint8_t kind) { return kind != 0; }));
}
int moe_layers(const Model& m, int kind) {
  return static_cast<int>(std::count(m.is_moe.begin(), m.is_moe.end(), static_cast<std::uint8_t>(kind + 1)));
}

int moe_kind_count(const Model& m) { return std::max(1, static_cast<int>(m.moe_kinds.size())); }

MoeKind moe_kind(const Model& m, int kind) {
  return m.moe_kinds.empty() ? MoeKind{m.experts, m.top_k, m.expert_ffn, m.shared_ffn}
                             : m.moe_kinds[static_cast<std::size_t>(kind)];
}

int mtp_kind(const Model& m) {
  const auto last = std::find_if(m.is_moe.rbegin(), m.is_moe.rend(), [](std::uint8_t kind) { return kind != 0; });
  return last == m.is_moe.rend() ? 0 : *last - 1;
}

std::string kind_name(const Model& m, int kind) {
  return "MoE kind " + std::to_string(kind + 1) + " (" + std::to_string(moe_kind(m, kind).experts) + " experts in " +
         std::to_string(moe_layers(m, kind)) + " layers)";
}

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
double expert_parameters(const Model& m, int kind) { return ffn_parameters(m, moe_kind(m, kind).expert_ffn); }
double shared_parameters(const Model& m, int kind) { return ffn_parameters(m, moe_kind(m, kind).shared_ffn); }
double dense_parameters(const Model& m) { return ffn_parameters(m, m.dense_ffn); }
double router_parameters(const Model& m, int kind) { return 1.0 * m.hidden * moe_kind(m, kind).experts; }

namespace {

enum class Experts : std::uint8_t { all, of_a_token };

double moe_layer_parameters(const Model& m, int kind, Experts which) {
  const MoeKind k = moe_kind(m, kind);
  return attention_parameters(m) + router_parameters(m, kind) + shared_parameters(m, kind) +
         (which == Experts::all ? k.experts : k.top_k) * expert_parameters(m, kind);
}

// All layers; no embeddings, no MTP.
double body_parameters(const Model& m, Experts which) {
  double sum = (m.layers - moe_layers(m)) * (attention_parameters(m) + dense_parameters(m));
  for (int kind = 0; kind < moe_kind_count(m); ++kind)
    sum += moe_layers(m, kind) * moe_layer_parameters(m, kind, which);
  return sum;
}

double mtp_projection(const Model& m) { return 2.0 * m.hidden * m.hidden; }

}  // namespace

double layer_parameters(const Model& m, int layer) {
  const int kind = m.is_moe[static_cast<std::size_t>(layer)] - 1;
  return kind >= 0 ? moe_layer_parameters(m, kind, Experts::all) : attention_parameters(m) + dense_parameters(m);
}
double mtp_layer_parameters(const Model& m) {
  return moe_layer_parameters(m, mtp_kind(m), Experts::all) + mtp_projection(m);
}

double embedding_parameters(const Model& m) { return 1.0 * m.vocab * m.hidden; }
double logits_parameters(const Model& m) { return m.tie_embeddings || m.encoder_only ? 0 : embedding_parameters(m); }
double total_parameters(const Model& m) {
  return body_parameters(m, Experts::all) + embedding_parameters(m) + logits_parameters(m);
}
double active_parameters(const Model& m) {
  return body_parameters(m, Experts::of_a_token) + embedding_parameters(m) + logits_parameters(m);
}

double model_flops_per_token(const Model& m, int sequence) {
  // Looking a token up costs nothing, computing logits does, tied or not; each MTP layer computes them again.
  const double logits = m.encoder_only ? 0 : embedding_parameters(m) * (1 + m.mtp_layers);
  const double linear = body_parameters(m, Experts::of_a_token) +
                        m.mtp_layers * (moe_layer_parameters(m, mtp_kind(m), Experts::of_a_token) + mtp_projection(m)) +
                        logits;
  // Scores: 2 s h over queries and keys, values: 2 s h; three times with backward; half of it where causal.
  const double score_width = 1.0 * m.heads * (m.head_dim + value_head_dim(m)) / 2;
  const double attention = (m.encoder_only ? 12.0 : 6.0) * (m.layers + m.mtp_layers) * sequence * score_width;
  return 6 * linear + attention;
}

namespace {

template <class Fail>
void check_kind(const Model& m, int kind, const Fail& fail) {
  const MoeKind k = moe_kind(m, kind);
  const std::string where = m.moe_kinds.empty() ? "" : "moe_kinds[" + std::to_string(kind) + "].";
  const auto bad = [&](const std::string& field, int value, const std::string& hint) {
    fail((where + field).c_str(), std::to_string(value), hint);
  };
  if (k.experts <= 0) bad("experts", k.experts, "must be positive");
  if (k.top_k <= 0) bad("top_k", k.top_k, "must be positive");
  if (k.expert_ffn <= 0) bad("expert_ffn", k.expert_ffn, "must be positive");
  if (k.top_k > k.experts) bad("top_k", k.top_k, "must be at most experts = " + std::to_string(k.experts));
  if (k.shared_ffn < 0) bad("shared_ffn", k.shared_ffn, "must not be negative");
  if (m.router_groups < 1 || k.experts % m.router_groups != 0)
    fail("router_groups", std::to_string(m.router_groups),
         "must divide " + where + "experts = " + std::to_string(k.experts));
  if (m.router_topk_groups < 1 || m.router_topk_groups > m.router_groups)
    fail("router_topk_groups", std::to_string(m.router_topk_groups), "must be 1 to router_groups");
  if (1LL * m.router_topk_groups * (k.experts / m.router_groups) < k.top_k)
    fail("router_topk_groups", std::to_string(m.router_topk_groups),
         "these groups hold fewer experts than " + where + "top_k");
  if (const int layers = moe_layers(m, kind); layers == 0) bad("layers", 0, "a kind must have layers");
  for (int other = 0; other < kind; ++other)
    if (moe_kind(m, other) == k)
      bad("experts", k.experts, "is as kind " + std::to_string(other) + ": they are one kind");
}

}  // namespace

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
  if (m.heads % m.kv_heads != 0)
    fail("kv_heads", std::to_string(m.kv_heads), "must divide heads = " + std::to_string(m.heads));
  if (m.mtp_layers < 0) fail("mtp_layers", std::to_string(m.mtp_layers), "must not be negative");
  if (m.is_moe.size() != static_cast<std::size_t>(m.layers))
    fail("layer_kinds", std::to_string(m.is_moe.size()) + " layers", "must name all " + std::to_string(m.layers));
  for (const auto kind : m.is_moe)
    if (kind > moe_kind_count(m))
      fail("layer_kinds", std::to_string(kind), "a layer is 0 (dense) or 1 (MoE), or 1 + its kind of several");
  int kinds = 0;  // that the layers so far have
  for (const auto kind : m.is_moe)
    if (kind > kinds && kind != ++kinds)
      fail("layer_kinds", std::to_string(kind), "kinds must be numbered in order of their first layers");
  if (moe_layers(m) == 0) fail("layer_kinds", "all dense", "this is a dense model, topomoe plans MoE models");
  if (moe_layers(m) < m.layers && m.dense_ffn <= 0)
    fail("dense_ffn", std::to_string(m.dense_ffn), "must be positive, since some layers are dense");
  if (m.moe_kinds.size() > kMaxMoeKinds)
    fail("moe_kinds", std::to_string(m.moe_kinds.size()) + " kinds", "at most " + std::to_string(kMaxMoeKinds));
  if (!m.moe_kinds.empty() && m.moe_kinds[0] != MoeKind{m.experts, m.top_k, m.expert_ffn, m.shared_ffn})
    fail("moe_kinds[0]", std::to_string(m.moe_kinds[0].experts) + " experts",
         "the first kind must be what the model's own experts, top_k, expert_ffn and shared_ffn say");
  for (int kind = 0; kind < moe_kind_count(m); ++kind) check_kind(m, kind, fail);
  if (!(m.routed_scaling > 0)) fail("routed_scaling_factor", std::to_string(m.routed_scaling), "must be positive");
  if (!(m.quantized_weight_bytes >= 0 && m.quantized_weight_bytes <= 4))
    fail("quantized_weight_bytes", std::to_string(m.quantized_weight_bytes), "must lie in [0, 4]");
  if (!is_mla(m)) return;
  positive("mla.v_head_dim", m.v_head_dim);
  if (m.q_lora_rank < 0) fail("mla.q_lora_rank", std::to_string(m.q_lora_rank), "must not be negative");
  if (m.qk_nope_head_dim < 0 || m.qk_rope_head_dim < 0 || m.head_dim != m.qk_nope_head_dim + m.qk_rope_head_dim)
    fail("head_dim", std::to_string(m.head_dim), "under MLA must be qk_nope_head_dim + qk_rope_head_dim");
}

namespace {

// Runs of MoE layers of one kind, in order of layers.
ordered_json kinds_json(const Model& m) {
  ordered_json runs = ordered_json::array();
  int last = 0;
  for (const int kind : m.is_moe) {
    if (kind == 0) continue;
    const MoeKind k = moe_kind(m, kind - 1);
    if (kind != last)
      runs.push_back({{"layers", 0},
                      {"experts", k.experts},
                      {"top_k", k.top_k},
                      {"expert_ffn", k.expert_ffn},
                      {"shared_ffn", k.shared_ffn}});
    runs.back()["layers"] = runs.back()["layers"].get<int>() + 1;
    last = kind;
  }
  return runs;
}

// Equal runs are one kind, and one kind is none.
void read_kinds(const ordered_json& runs, const std::string& at, Model& m) {
  if (!runs.is_array() || runs.empty())
    throw InvalidInput(at, preview(runs), "must be an array of kinds of MoE layers");
  std::vector<int> kinds;  // by MoE layer
  for (std::size_t i = 0; i < runs.size(); ++i) {
    ObjectReader in(runs[i], at + "[" + std::to_string(i) + "]");
    const auto or_model = [&](const char* key, int low, int high, int otherwise) {
      return in.has(key) ? in.integer(key, low, high) : otherwise;
    };
    const int layers = in.integer("layers", 1, kMaxLayers);
    const MoeKind k{in.integer("experts", 1, kMaxExperts), or_model("top_k", 1, kMaxExperts, m.top_k),
                    or_model("expert_ffn", 1, kMaxWidth, m.expert_ffn),
                    or_model("shared_ffn", 0, kMaxWidth, m.shared_ffn)};
    in.finish();
    const auto known = std::find(m.moe_kinds.begin(), m.moe_kinds.end(), k);
    kinds.insert(kinds.end(), static_cast<std::size_t>(layers), static_cast<int>(known - m.moe_kinds.begin()));
    if (known == m.moe_kinds.end()) m.moe_kinds.push_back(k);
    if (m.moe_kinds.size() > kMaxMoeKinds)
      throw InvalidInput(at, "more than " + std::to_string(kMaxMoeKinds) + " kinds", "not so many differ in any model");
  }
  if (static_cast<int>(kinds.size()) != moe_layers(m))
    throw InvalidInput(at, std::to_string(kinds.size()) + " layers",
                       "must be the " + std::to_string(moe_layers(m)) + " MoE layers of layer_kinds");
  auto next = kinds.begin();
  for (auto& kind : m.is_moe)
    if (kind != 0) kind = static_cast<std::uint8_t>(*next++ + 1);
  if (m.moe_kinds.size() == 1 && m.moe_kinds[0] == MoeKind{m.experts, m.top_k, m.expert_ffn, m.shared_ffn})
    m.moe_kinds.clear();
}

}  // namespace

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
  if (m.routed_scaling != 1) j["routed_scaling_factor"] = m.routed_scaling;
  if (m.shared_gate != SharedGate::none) j["shared_gate"] = name_of(kSharedGates, m.shared_gate);
  if (!m.moe_kinds.empty()) j["moe_kinds"] = kinds_json(m);
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
  if (in.has("routed_scaling_factor")) m.routed_scaling = in.number("routed_scaling_factor", 0, 1e6);
  if (in.has("shared_gate")) m.shared_gate = value_of(kSharedGates, in.text("shared_gate"), in.field("shared_gate"));
  if (in.has("moe_kinds")) {
    const ordered_json& runs = in.at("moe_kinds");
    if (moe_layers(m) != 0 && m.is_moe.size() == static_cast<std::size_t>(m.layers))  // check() says it otherwise
      read_kinds(runs, in.field("moe_kinds"), m);
  }
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
