// A Model: the shape of a Mixture-of-Experts transformer, as far as parallelism, traffic and memory care.
//
// A plain value; planner/hf_config reads one from config.json. A layer is attention followed by either
// a dense FFN or a MoE FFN (router, routed experts, shared experts), and MoE layers may be of several kinds
// (pyramids: PR-MoE, arXiv 2201.05596, whose residual MLP is a shared expert here). Attention is GQA/MHA, or
// multi-latent attention (MLA) where kv_lora_rank > 0. Ignored: norms, biases, position tables (below 0.01 % of
// parameters), sliding windows, sparse attention.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "topomoe/router_options.hpp"

namespace topomoe {

// How a shared expert's output joins that of the routed ones, a token at a time.
enum class SharedGate : std::uint8_t {
  none,      // routed + shared (DeepSeek)
  sigmoid,   // routed + sigmoid(w . x) shared (Qwen2-MoE)
  residual,  // a routed + b shared, (a, b) = softmax(w0 . x, w1 . x) (PR-MoE, as DeepSpeed has it)
};

// The experts of a MoE layer.
struct MoeKind {
  int experts = 0;  // routed ones
  int top_k = 0;
  int expert_ffn = 0;  // width of one routed expert
  int shared_ffn = 0;  // total width of shared experts, 0 if there are none
  bool operator==(const MoeKind&) const = default;
};
inline constexpr int kMaxMoeKinds = 8;
using KindLayers = std::array<int, kMaxMoeKinds>;  // MoE layers by kind

struct Model {
  std::string name;        // for people, e.g. "mixtral-8x7b"
  std::string model_type;  // the family as config.json spells it, e.g. "qwen3_moe"
  int hidden = 0;
  int layers = 0;  // without MTP layers
  int heads = 0;
  int kv_heads = 0;  // equal to heads under MLA
  int head_dim = 0;  // under MLA: qk_nope_head_dim + qk_rope_head_dim
  int vocab = 0;
  bool tie_embeddings = false;
  bool gated_ffn = true;      // SwiGLU and kin: 3 matrices an FFN; otherwise 2
  bool encoder_only = false;  // attention is not causal and there is no logits layer

  int experts = 0;  // as in MoeKind; of the first kind where MoE layers differ
  int top_k = 0;
  int expert_ffn = 0;
  int shared_ffn = 0;
  int dense_ffn = 0;                 // width of dense layers, 0 if there are none
  std::vector<std::uint8_t> is_moe;  // [layers], 0 where the layer is dense, otherwise 1 + its kind
  std::vector<MoeKind> moe_kinds;    // empty where all MoE layers are alike; the first is as the fields above
  int mtp_layers = 0;  // multi-token-prediction layers beyond `layers`: of the last MoE layer's kind, with a projection
                       // 2h -> h each

  Scoring scoring = Scoring::softmax;
  bool renormalize = false;   // weights of the chosen k sum to 1 (norm_topk_prob)
  double routed_scaling = 1;  // of the weights of routed experts, after renormalizing (routed_scaling_factor)
  SharedGate shared_gate = SharedGate::none;
  int router_groups = 1;       // group-limited routing: experts in equal groups,
  int router_topk_groups = 1;  // of which a token may reach this many

  int q_lora_rank = 0;  // MLA; 0 with kv_lora_rank > 0: queries are not compressed
  int kv_lora_rank = 0;
  int qk_nope_head_dim = 0;
  int qk_rope_head_dim = 0;
  int v_head_dim = 0;

  // Bytes of a weight in the checkpoint where it is quantised (fp8: 1), 0 where the job's dtype decides.
  // Used for inference only, which keeps and reads them so and computes in the job's dtype: training keeps bf16 or fp32
  // weights.
  double quantized_weight_bytes = 0;

  bool operator==(const Model&) const = default;
};

inline bool is_mla(const Model& m) { return m.kv_lora_rank > 0; }
inline bool moe_layer(const Model& m, int layer) { return m.is_moe[static_cast<std::size_t>(layer)] != 0; }
int moe_layers(const Model&);
int moe_kind_count(const Model&);  // 1 where all MoE layers are alike
MoeKind moe_kind(const Model&, int kind);
int moe_layers(const Model&, int kind);
int mtp_kind(const Model&);
std::string kind_name(const Model&, int kind);  // "MoE kind 2 (64 experts in 2 layers)", for people
int value_head_dim(const Model&);               // head_dim, or v_head_dim under MLA

// Parameter counts, as doubles since they are multiplied by bytes and rates.
double attention_parameters(const Model&);             // projections of one layer
double ffn_parameters(const Model&, double width);     // 2 or 3 matrices of hidden x width
double expert_parameters(const Model&, int kind = 0);  // one routed expert
double shared_parameters(const Model&, int kind = 0);  // shared experts of one MoE layer
double dense_parameters(const Model&);                 // FFN of one dense layer
double router_parameters(const Model&, int kind = 0);
double layer_parameters(const Model&, int layer);  // everything in it
double mtp_layer_parameters(const Model&);         // one MTP layer; embedding and logits are shared with the model
double embedding_parameters(const Model&);         // token table
double logits_parameters(const Model&);            // output matrix of its own: 0 if tied or encoder_only
double total_parameters(const Model&);             // without MTP layers
double active_parameters(const Model&);            // that one token uses, both embeddings counted, without MTP

// Floating-point operations of forward and backward for one token of a sequence (Megatron's convention):
// 6 x active parameters of linear layers (router, attention, chosen and shared experts, dense FFN, logits,
// MTP layers) + 6 L s h for causal attention scores and values (12 where not causal). Forward only is a third.
double model_flops_per_token(const Model&, int sequence);

// Throws InvalidInput("<where>: <field>", ...) unless the shape is consistent and has a MoE layer.
void check(const Model&, std::string_view where = "model");

}  // namespace topomoe
