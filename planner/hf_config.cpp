#include "planner/hf_config.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "planner/plan/json.hpp"

namespace topomoe {

namespace {

enum class DenseRule : std::uint8_t {
  none,           // all layers are MoE
  first_k_dense,  // layer i is MoE from first_k_dense_replace on, at every moe_layer_freq-th
  sparse_step,    // every decoder_sparse_step-th layer is MoE, apart from mlp_only_layers
};

// What a family calls things. A new family that fits these rules is one row (README of configs/models:
// and one file there). Empty: the family has no such key.
struct Family {
  std::string_view model_type;
  const char* top_k;
  const char* expert_width;
  const char* dense_width;
  const char* shared_count;  // n_shared_experts: of expert width each
  DenseRule dense_rule;
  bool mla;
  bool head_dim_is_quotient;  // without head_dim it is hidden / heads, by the family's definition
  bool always_renormalizes;   // otherwise norm_topk_prob says
  const char* mtp_layers;
  Scoring scoring;     // where scoring_func does not say
  bool group_limited;  // n_group, topk_group
};
constexpr std::array kFamilies = {
    Family{"mixtral", "num_experts_per_tok", "intermediate_size", "", "", DenseRule::none, false, true, true, "",
           Scoring::softmax, false},
    Family{"qwen3_moe", "num_experts_per_tok", "moe_intermediate_size", "intermediate_size", "", DenseRule::sparse_step,
           false, false, false, "", Scoring::softmax, false},
    Family{"deepseek_v3", "num_experts_per_tok", "moe_intermediate_size", "intermediate_size", "n_shared_experts",
           DenseRule::first_k_dense, true, false, false, "num_nextn_predict_layers", Scoring::sigmoid, true},
    // Lists, one figure a layer, where others have one number.
    Family{"hunyuan_v1_moe", "moe_topk", "moe_intermediate_size", "", "num_shared_expert", DenseRule::none, false, true,
           true, "", Scoring::softmax, false},
};

// transformers saves the same model under any of these spellings (its attribute_map).
constexpr std::array kExpertKeys = {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"};

// Keys of text_config where there is one (multimodal wrappers), then of the root.
class Config {
 public:
  Config(const ordered_json& root, std::string where) : root_(root), inner_(&root), where_(std::move(where)) {
    if (!root.is_object()) throw InvalidInput(where_, preview(root), "must be a JSON object");
    if (root.contains("text_config") && root.at("text_config").is_object()) inner_ = &root.at("text_config");
  }
  std::string field(const char* key) const {
    return where_ + ": " + (inner_ != &root_ && inner_->contains(key) ? "text_config." : "") + key;
  }
  // Null where missing or null: HF writes null for "not set".
  const ordered_json* find(const char* key) const {
    for (const ordered_json* object : {inner_, &root_}) {
      if (const auto it = object->find(key); it != object->end()) return it->is_null() ? nullptr : &*it;
    }
    return nullptr;
  }
  const ordered_json& at(const char* key) const {
    if (const ordered_json* value = find(key)) return *value;
    throw InvalidInput(field(key), "missing", "this key is required: defaults of the family's class are not the model");
  }
  int integer(const char* key, int low, int high) const {
    return ObjectReader::as_integer(at(key), field(key), low, high);
  }
  // One for each of `count` layers: the file has a list, or one number for all.
  std::vector<int> integers(const char* key, int low, int high, int count) const {
    const ordered_json& value = at(key);
    if (!value.is_array()) return std::vector<int>(static_cast<std::size_t>(count), integer(key, low, high));
    if (value.size() != static_cast<std::size_t>(count))
      throw InvalidInput(field(key), std::to_string(value.size()) + " figures",
                         "must be one number, or one for each of the " + std::to_string(count) + " layers");
    std::vector<int> out;
    for (std::size_t i = 0; i < value.size(); ++i)
      out.push_back(ObjectReader::as_integer(value[i], field(key) + "[" + std::to_string(i) + "]", low, high));
    return out;
  }
  int integer_or(const char* key, int low, int high, int otherwise) const {
    return find(key) != nullptr ? integer(key, low, high) : otherwise;
  }
  double number(const char* key, double low, double high) const {
    const ordered_json& value = at(key);
    if (!value.is_number()) throw InvalidInput(field(key), preview(value), "must be a number");
    const double number = value.get<double>();
    if (!(number >= low && number <= high))
      throw InvalidInput(field(key), preview(value),
                         "must lie in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
    return number;
  }
  bool boolean(const char* key) const {
    const ordered_json& value = at(key);
    if (!value.is_boolean()) throw InvalidInput(field(key), preview(value), "must be true or false");
    return value.get<bool>();
  }
  std::string text(const char* key) const {
    const ordered_json& value = at(key);
    if (!value.is_string()) throw InvalidInput(field(key), preview(value), "must be a string");
    return value.get<std::string>();
  }

 private:
  const ordered_json& root_;
  const ordered_json* inner_;
  std::string where_;
};

// "configs/models/x.json" -> "x"; ".../DeepSeek-V3/config.json" -> "DeepSeek-V3".
std::string name_from_path(std::string path) {
  const auto cut_last = [&path] {
    const auto slash = path.find_last_of("/\\");
    std::string last = slash == std::string::npos ? path : path.substr(slash + 1);
    path.resize(slash == std::string::npos ? 0 : slash);
    return last;
  };
  std::string last = cut_last();
  if (last == "config.json" && !path.empty()) return cut_last();
  if (last.size() > 5 && last.ends_with(".json")) last.resize(last.size() - 5);
  return last;
}

// The key that counts experts, under whichever spelling.
const char* experts_key(const Config& in, const std::string& model_type) {
  for (const char* key : kExpertKeys) {
    if (in.find(key) == nullptr) continue;
    const ordered_json& value = in.at(key);
    const bool listed = value.is_array() && !value.empty() && value[0].is_number();
    if (listed || in.integer(key, 0, kMaxExperts) > 0) return key;
    throw InvalidInput(in.field(key), "0", "no experts: this is a dense model, topomoe plans MoE models");
  }
  throw InvalidInput(in.field("model_type"), model_type,
                     "no key counts experts (num_experts, num_local_experts, n_routed_experts): this is a dense model, "
                     "topomoe plans MoE models");
}

void read_layer_kinds(const Config& in, DenseRule rule, Model& m) {
  m.is_moe.assign(static_cast<std::size_t>(m.layers), 1);
  if (rule == DenseRule::first_k_dense) {
    const int first = in.integer("first_k_dense_replace", 0, kMaxLayers);
    const int frequency = in.integer_or("moe_layer_freq", 1, kMaxLayers, 1);  // absent in newer files, where it means 1
    for (int i = 0; i < m.layers; ++i) m.is_moe[static_cast<std::size_t>(i)] = i >= first && i % frequency == 0;
  } else if (rule == DenseRule::sparse_step) {
    const int step = in.integer("decoder_sparse_step", 1, kMaxLayers);
    for (int i = 0; i < m.layers; ++i) m.is_moe[static_cast<std::size_t>(i)] = (i + 1) % step == 0;
    const ordered_json& dense = in.at("mlp_only_layers");
    if (!dense.is_array())
      throw InvalidInput(in.field("mlp_only_layers"), preview(dense), "must be an array of layers");
    for (const auto& layer : dense)
      m.is_moe[static_cast<std::size_t>(
          ObjectReader::as_integer(layer, in.field("mlp_only_layers"), 0, m.layers - 1))] = 0;
  }
}

// Experts of each layer that is_moe calls MoE. Layers that are alike are one kind, and one kind is none.
void read_experts(const Config& in, const Family& family, Model& m) {
  const auto experts = in.integers(experts_key(in, m.model_type), 1, kMaxExperts, m.layers),
             top_k = in.integers(family.top_k, 1, kMaxExperts, m.layers),
             width = in.integers(family.expert_width, 1, kMaxWidth, m.layers);
  const auto shared = *family.shared_count == '\0' ? std::vector<int>(experts.size(), 0)
                                                   : in.integers(family.shared_count, 0, kMaxExperts, m.layers);
  for (std::size_t layer = 0; layer < experts.size(); ++layer) {
    if (m.is_moe[layer] == 0) continue;
    const double shared_width = 1.0 * shared[layer] * width[layer];
    if (shared_width > kMaxWidth)
      throw InvalidInput(in.field(family.shared_count), std::to_string(shared[layer]), "shared experts too wide");
    const MoeKind kind{experts[layer], top_k[layer], width[layer], static_cast<int>(shared_width)};
    const auto known = std::find(m.moe_kinds.begin(), m.moe_kinds.end(), kind);
    m.is_moe[layer] = static_cast<std::uint8_t>(known - m.moe_kinds.begin() + 1);
    if (known != m.moe_kinds.end()) continue;
    if (m.moe_kinds.size() == kMaxMoeKinds)
      throw InvalidInput(in.field(family.expert_width),
                         "more than " + std::to_string(kMaxMoeKinds) + " kinds of layers",
                         "not so many differ in any model");
    m.moe_kinds.push_back(kind);
  }
  if (m.moe_kinds.empty()) return;  // check() says that all are dense
  const MoeKind first = m.moe_kinds[0];
  m.experts = first.experts, m.top_k = first.top_k, m.expert_ffn = first.expert_ffn, m.shared_ffn = first.shared_ffn;
  if (m.moe_kinds.size() == 1) m.moe_kinds.clear();
}

void read_attention(const Config& in, const Family& family, Model& m) {
  m.heads = in.integer("num_attention_heads", 1, kMaxWidth);
  if (family.mla) {
    m.q_lora_rank = in.integer_or("q_lora_rank", 0, kMaxWidth, 0);  // null: queries are not compressed
    m.kv_lora_rank = in.integer("kv_lora_rank", 1, kMaxWidth);
    m.qk_nope_head_dim = in.integer("qk_nope_head_dim", 0, kMaxWidth);
    m.qk_rope_head_dim = in.integer("qk_rope_head_dim", 0, kMaxWidth);
    m.v_head_dim = in.integer("v_head_dim", 1, kMaxWidth);
    m.kv_heads = m.heads;
    m.head_dim = m.qk_nope_head_dim + m.qk_rope_head_dim;  // what files call head_dim varies here
    return;
  }
  m.kv_heads = in.integer("num_key_value_heads", 1, kMaxWidth);
  if (!family.head_dim_is_quotient || in.find("head_dim") != nullptr) {
    m.head_dim = in.integer("head_dim", 1, kMaxWidth);
  } else {
    if (m.hidden % m.heads != 0)
      throw InvalidInput(in.field("num_attention_heads"), std::to_string(m.heads),
                         "without head_dim must divide hidden_size = " + std::to_string(m.hidden));
    m.head_dim = m.hidden / m.heads;
  }
}

// Quantised checkpoints store fewer bytes a weight than torch_dtype says.
double read_quantized_bytes(const Config& in, const std::string& where) {
  const ordered_json* quantization = in.find("quantization_config");
  if (quantization == nullptr) return 0;
  ObjectReader keys(*quantization, where + ": quantization_config");
  const std::string method = keys.text("quant_method");
  if (method == "fp8") return 1;
  if (method == "mxfp4") return 0.53125;  // 4 bits, and a scale of 8 bits for each 32 weights
  if (method == "gptq" || method == "awq") return keys.integer("bits", 2, 8) / 8.0;
  throw InvalidInput(keys.field("quant_method"), method,
                     "must be one of fp8, mxfp4, gptq, awq; without quantization_config the job's dtype counts");
}

Model read_family(const Config& in, const Family& family, const std::string& where) {
  Model m;
  m.name = name_from_path(where);
  m.model_type = family.model_type;
  experts_key(in, m.model_type);  // a dense model is told so before anything else is missed
  m.hidden = in.integer("hidden_size", 1, kMaxWidth);
  m.layers = in.integer("num_hidden_layers", 1, kMaxLayers);
  m.vocab = in.integer("vocab_size", 1, kMaxVocab);
  m.tie_embeddings = in.boolean("tie_word_embeddings");
  read_attention(in, family, m);
  read_layer_kinds(in, family.dense_rule, m);
  read_experts(in, family, m);
  if (moe_layers(m) < m.layers) m.dense_ffn = in.integer(family.dense_width, 1, kMaxWidth);
  if (*family.mtp_layers != '\0') m.mtp_layers = in.integer_or(family.mtp_layers, 0, kMaxLayers, 0);
  m.renormalize = family.always_renormalizes || in.boolean("norm_topk_prob");
  m.scoring = family.scoring;
  if (in.find("scoring_func") != nullptr) {
    const std::string scoring = in.text("scoring_func");
    if (scoring != "softmax" && scoring != "sigmoid")
      throw InvalidInput(in.field("scoring_func"), scoring, "must be softmax or sigmoid");
    m.scoring = scoring == "softmax" ? Scoring::softmax : Scoring::sigmoid;
  }
  if (family.group_limited) {
    m.router_groups = in.integer("n_group", 1, kMaxExperts);
    m.router_topk_groups = in.integer("topk_group", 1, kMaxExperts);
  }
  // Older files of other families lack it, and mean 1.
  if (in.find("routed_scaling_factor") != nullptr) m.routed_scaling = in.number("routed_scaling_factor", 0, 1e6);
  m.quantized_weight_bytes = read_quantized_bytes(in, where);
  check(m, where);
  return m;
}

}  // namespace

std::vector<std::string> known_model_types() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.model_type);
  return names;
}

Model read_hf_config(std::string_view text, const std::string& where) {
  const ordered_json json = parse_json(text, where);
  if (json.is_object() && json.contains("schema")) return model_from_json(json, where);
  const Config in(json, where);
  const std::string model_type = in.text("model_type");
  for (const Family& family : kFamilies)
    if (family.model_type == model_type) return read_family(in, family, where);
  experts_key(in, model_type);  // says so if it is a dense model
  std::string known;
  for (const std::string& name : known_model_types()) known += name + ", ";
  throw InvalidInput(
      in.field("model_type"), model_type,
      "unknown family; known: " + known + "or our own schema topomoe.model/1 (configs/models/README.md)");
}

}  // namespace topomoe
