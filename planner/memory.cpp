#include "planner/memory.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

namespace topomoe {

namespace {

// Attention parameters that TP does not cut: the MLA down-projections (Megatron duplicates them).
double replicated_attention(const Model& m) {
  return is_mla(m) ? 1.0 * m.hidden * (m.q_lora_rank + m.kv_lora_rank + m.qk_rope_head_dim) : 0;
}

// KV heads on one TP rank: with more ranks than heads, each head is held several times.
double kv_heads_per_rank(const Model& m, int tp) { return std::max(1.0, 1.0 * m.kv_heads / tp); }

double sharded_attention_per_rank(const Model& m, int tp) {
  if (is_mla(m)) return (attention_parameters(m) - replicated_attention(m)) / tp;
  return 2.0 * m.hidden * m.head_dim * (1.0 * m.heads / tp + kv_heads_per_rank(m, tp));
}

bool last_stage(const Layout& l, int stage) { return stage == l.pp - 1; }

StageClass stage_class(const Model& m, const Layout& l, int stage) {
  StageClass c{.stage = stage, .first = stage == 0, .last = last_stage(l, stage)};
  for (const int layer : layers_of_stage(l, m.layers, stage)) {
    (moe_layer(m, layer) ? c.moe : c.dense) += 1;
    if (const auto kind = m.is_moe[static_cast<std::size_t>(layer)]; kind > 1) ++c.later[kind - 1U];
  }
  return c;
}

// What a layer's forward pass keeps for backward, in bytes on one rank, for one micro-batch.
struct LayerActivations {
  double input = 0;  // kept under any recomputation
  double kept = 0;   // the rest that `selective` keeps
  double cheap = 0;  // what `selective` recomputes
  double bytes(Recompute r) const {
    return input + (r == Recompute::full ? 0 : kept) + (r == Recompute::none ? cheap : 0);
  }
};

// A per-token count after Korthikanti et al. (arXiv 2205.05198, section 4), redone for GQA/MLA, gated FFN,
// no dropout and flash attention; MoE rows after Megatron-LM#6782. kDense: of a dense layer.
constexpr int kDense = -1;
LayerActivations layer_activations(const Model& m, const Job& job, const Layout& l, int kind,
                                   const MemoryOptions& options) {
  const double e = static_cast<double>(size_of(job.dtype));
  const double tokens = tokens_per_micro_batch(job, l.cp);
  const double around = tokens / (l.sequence_parallel ? l.tp : 1);  // tokens outside attention and FFN
  const double h = m.hidden, heads = 1.0 * m.heads / l.tp;
  LayerActivations a;
  a.input = around * h * e;
  // Attention: output of the norm, Q K V, output of attention and its softmax statistics (fp32).
  a.cheap += around * h * e;
  const double qkv = is_mla(m) ? heads * (2.0 * m.head_dim + m.v_head_dim) * e
                               : (heads + 2 * kv_heads_per_rank(m, l.tp)) * m.head_dim * e;
  (is_mla(m) ? a.cheap : a.kept) += tokens * qkv;
  a.kept += around * (m.q_lora_rank + m.kv_lora_rank + (is_mla(m) ? m.qk_rope_head_dim : 0)) * e;
  a.kept += tokens * heads * (value_head_dim(m) * e + 4);
  // FFN: residual stream, output of the norm, and for every matrix's output of width w: gate and up are
  // kept, their product is cheap.
  a.kept += around * h * e;
  a.cheap += around * h * e;
  const double up = m.gated_ffn ? 2 : 1;
  const auto ffn = [&](double rows, double width) {
    a.kept += rows * up * width * e;
    a.cheap += rows * width * e;
  };
  if (kind == kDense) {
    ffn(tokens, 1.0 * m.dense_ffn / l.tp);
    return a;
  }
  const MoeKind moe = moe_kind(m, kind);
  a.kept += around * moe.experts * 4;  // router scores, fp32
  ffn(tokens, 1.0 * moe.shared_ffn / l.tp);
  // Expert inputs and outputs of the rows routed here. EP does not reduce them: it spreads experts, not
  // tokens. rows = top_k s b etp / tp, times the skew of the busiest rank; without EP there is no skew.
  const double skew = l.ep > 1 ? options.skew : 1;
  const double rows = skew * options.token_copies * moe.top_k * tokens * l.etp / l.tp;
  a.kept += 2 * rows * h * e;
  ffn(rows, 1.0 * moe.expert_ffn / l.etp);
  return a;
}

// Micro-batches whose activations a stage holds at once, in units of all its layers. 1F1B: pp - stage.
// Interleaved: Megatron's warm-up, 2 (pp - stage - 1) + (vpp - 1) pp chunks and the one running.
double micro_batches_in_flight(const Job& job, const Layout& l, int stage) {
  const int all = std::max(1, micro_batches(job, l.dp));
  if (l.vpp == 1) return std::min(all, l.pp - stage);
  const int chunks = 2 * (l.pp - stage - 1) + (l.vpp - 1) * l.pp + 1;
  return std::min(1.0 * all, 1.0 * chunks / l.vpp);
}

// A rule of thumb, for candidates; of the choice a buffer plan says (plan/capacity.hpp).
// Layers share buffers: those of the kind that routes to most experts are as large as any.
double dispatch_buffer_bytes(const Model& m, const Job& job, const Layout& l, const StageClass& c,
                             const MemoryOptions& options) {
  int top_k = 0;
  for (int kind = 0; kind < moe_kind_count(m); ++kind)
    if (moe_layers(m, c, kind, c.last ? m.mtp_layers : 0) > 0) top_k = std::max(top_k, moe_kind(m, kind).top_k);
  // ETP ranks gather their rows: one copy sent (top_k s b / tp rows), one received (etp times as many).
  const double sent = options.token_copies * top_k * tokens_per_micro_batch(job, l.cp) / l.tp;
  return sent * (1 + (l.ep > 1 ? options.skew : 1) * l.etp) * m.hidden * static_cast<double>(size_of(job.dtype));
}

void add_training(MemoryBreakdown& out, const Model& m, const Job& job, const Layout& l, const StageClass& c,
                  const RankParameters& p, const MemoryOptions& options) {
  // bf16: weights 2 B, fp32 gradients 4 B (Megatron accumulates in fp32), optimizer 12 B: fp32 master
  // weight and two Adam moments. fp32: the weight is its own master.
  const bool half = job.dtype == DType::bf16;
  const double all = p.dense() + p.routed, sharded = p.dense() / (1.0 * l.dp * l.cp) + p.routed / l.edp;
  // What is in full at one time under ZeRO 2 and 3: a layer, or a table.
  double whole = std::max(c.first ? embedding_parameters(m) : 0, c.last ? logits_parameters(m) : 0) / l.tp;
  const auto in_full = [&](const StageClass& one) {
    const RankParameters layer = rank_parameters(m, l, one);
    whole = std::max(whole, layer.dense() + layer.routed);
  };
  if (l.zero >= 2 && c.dense > 0) in_full({.dense = 1});
  for (int kind = 0; l.zero >= 2 && kind < moe_kind_count(m); ++kind) {
    if (moe_layers(m, c, kind, c.last ? m.mtp_layers : 0) == 0) continue;
    StageClass one{.moe = 1};
    if (kind > 0) one.later[static_cast<std::size_t>(kind)] = 1;
    in_full(one);
  }
  out.weights = bytes((half ? 2 : 4) * (l.zero < 3 ? all : std::min(all, sharded + 2 * whole)));
  out.gradients = bytes(4 * (l.zero < 2 ? all : std::min(all, sharded + whole)));
  out.optimizer = bytes((half ? 12 : 8) * (l.zero < 1 ? all : sharded));
  double layers = 0, largest = 0;
  const int mtp = c.last ? m.mtp_layers : 0;
  const auto add_layers = [&](double count, int kind) {
    if (count == 0) return;
    const LayerActivations a = layer_activations(m, job, l, kind, options);
    layers += count * a.bytes(job.recompute);
    // The layer in backward has everything again that was not kept.
    largest = std::max(largest, a.bytes(Recompute::none) - a.bytes(job.recompute));
  };
  for (int kind = 0; kind < moe_kind_count(m); ++kind) add_layers(moe_layers(m, c, kind, mtp), kind);
  add_layers(c.dense, kDense);
  out.activations = bytes(layers * micro_batches_in_flight(job, l, out.stage) + largest);
  // Logits in the job's dtype and their softmax in fp32, of one micro-batch; MTP layers make their own.
  if (c.last && !m.encoder_only)
    out.logits = bytes((1 + mtp) * tokens_per_micro_batch(job, l.cp) * m.vocab / l.tp *
                       (static_cast<double>(size_of(job.dtype)) + 4));
}

void add_inference(MemoryBreakdown& out, const Model& m, const Job& job, const Layout& l, const StageClass& c,
                   const RankParameters& p, const MemoryOptions& options) {
  const double e = static_cast<double>(size_of(job.dtype));
  out.weights = bytes((p.dense() + p.routed) * (m.quantized_weight_bytes > 0 ? m.quantized_weight_bytes : e));
  // All sequences of the batch stay resident, whichever micro-batch runs.
  const double per_token = kv_elements_per_token(m, l.tp);
  const double sequences = 1.0 * std::max(1, micro_batches(job, l.dp)) * job.micro_batch;
  if (!m.encoder_only) out.kv_cache = bytes(sequences * job.sequence / l.cp * per_token * e * (c.moe + c.dense));
  double largest = 0;  // nothing is kept from layer to layer
  for (int kind = kDense; kind < moe_kind_count(m); ++kind)
    if ((kind == kDense ? c.dense : moe_layers(m, c, kind, 0)) > 0)
      largest = std::max(largest, layer_activations(m, job, l, kind, options).bytes(Recompute::none));
  out.activations = bytes(largest);
  if (c.last && !m.encoder_only)  // of the last token of each sequence
    out.logits = bytes(1.0 * job.micro_batch * m.vocab / l.tp * 4);
}

}  // namespace

std::vector<StageClass> stage_classes(const Model& m, const Layout& l) {
  std::vector<StageClass> out;
  for (int stage = 0; stage < l.pp; ++stage) {
    const StageClass c = stage_class(m, l, stage);
    const auto same = std::find_if(out.begin(), out.end(), [&](const StageClass& o) {
      return o.moe == c.moe && o.dense == c.dense && o.first == c.first && o.last == c.last && o.later == c.later;
    });
    if (same != out.end())
      ++same->count;
    else
      out.push_back(c);
  }
  return out;
}

int moe_layers(const Model& m, const StageClass& c, int kind, int mtp) {
  const int mine =
      kind > 0 ? c.later[static_cast<std::size_t>(kind)] : c.moe - std::accumulate(c.later.begin(), c.later.end(), 0);
  return mine + (mtp > 0 && kind == mtp_kind(m) ? mtp : 0);
}

RankParameters rank_parameters(const Model& m, const Layout& l, const StageClass& c) {
  const int mtp = c.last ? m.mtp_layers : 0;
  const double moe = c.moe + mtp;
  double shared = 0, routers = 0, routed = 0;
  for (int kind = 0; kind < moe_kind_count(m); ++kind) {
    const double layers = moe_layers(m, c, kind, mtp);
    shared += layers * shared_parameters(m, kind), routers += layers * router_parameters(m, kind);
    routed += layers * moe_kind(m, kind).experts * expert_parameters(m, kind);
  }
  RankParameters p;
  p.tensor_sharded =
      (moe + c.dense) * sharded_attention_per_rank(m, l.tp) + (shared + c.dense * dense_parameters(m)) / l.tp;
  p.replicated = (moe + c.dense) * replicated_attention(m) + routers + mtp * 2.0 * m.hidden * m.hidden;
  p.routed = routed / (1.0 * l.etp * l.ep);
  // The last stage needs the token table again where it is tied, or embeds for MTP, unless it is stage 0 too.
  const bool table = c.first || (c.last && !m.encoder_only && (m.tie_embeddings || m.mtp_layers > 0));
  p.embedding = ((table ? embedding_parameters(m) : 0) + (c.last ? logits_parameters(m) : 0)) / l.tp;
  return p;
}
RankParameters rank_parameters(const Model& m, const Layout& l, int stage) {
  return rank_parameters(m, l, stage_class(m, l, stage));
}

Bytes MemoryBreakdown::total() const {
  Bytes sum;
  for (const auto& [name, amount] : buckets()) sum += amount;
  return sum;
}

std::vector<std::pair<std::string, Bytes>> MemoryBreakdown::buckets() const {
  return {{"weights", weights},
          {"gradients", gradients},
          {"optimizer", optimizer},
          {"kv_cache", kv_cache},
          {"activations", activations},
          {"logits", logits},
          {"dispatch_buffers", dispatch_buffers},
          {"comm_buffers", comm_buffers}};
}

double kv_elements_per_token(const Model& m, int tp) {
  return is_mla(m) ? m.kv_lora_rank + m.qk_rope_head_dim : 2 * kv_heads_per_rank(m, tp) * m.head_dim;
}

namespace {

MemoryBreakdown memory_of(const Model& m, const Job& job, const Layout& l, const StageClass& c,
                          const MemoryOptions& options) {
  MemoryBreakdown out;
  out.stage = c.stage;
  const RankParameters parameters = rank_parameters(m, l, c);
  if (job.phase == Phase::train)
    add_training(out, m, job, l, c, parameters, options);
  else
    add_inference(out, m, job, l, c, parameters, options);
  if (parameters.routed > 0 && l.ep * l.etp > 1)
    out.dispatch_buffers = bytes(options.dispatch_scale * dispatch_buffer_bytes(m, job, l, c, options));
  if (l.world > 1) out.comm_buffers = options.comm_buffers;
  return out;
}

}  // namespace

MemoryBreakdown estimate_stage_memory(const Model& m, const Job& job, const Layout& l, int stage,
                                      const MemoryOptions& options) {
  return memory_of(m, job, l, stage_class(m, l, stage), options);
}

MemoryBreakdown estimate_memory(const Model& m, const Job& job, const Layout& l, const MemoryOptions& options) {
  return estimate_memory(m, job, l, stage_classes(m, l), options);
}

MemoryBreakdown estimate_memory(const Model& m, const Job& job, const Layout& l, std::span<const StageClass> classes,
                                const MemoryOptions& options) {
  std::optional<MemoryBreakdown> worst;
  for (const StageClass& c : classes) {
    const MemoryBreakdown other = memory_of(m, job, l, c, options);
    if (!worst || other.total() > worst->total()) worst = other;
  }
  return *worst;
}

}  // namespace topomoe
