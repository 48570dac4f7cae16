// Megatron-LM's arguments as a bash array to source: pretrain_gpt.py "${MEGATRON_ARGS[@]}" and what no plan knows.
// Names as of Megatron-LM d98e8a6 (2026-08).

#include <fmt/format.h>

#include <algorithm>

#include "planner/emit/hosts.hpp"
#include "planner/layout_space.hpp"

namespace topomoe {
namespace {

class Arguments {
 public:
  void flag(std::string_view name) { text_ += fmt::format("  --{}\n", name); }
  template <class Value>
  void add(std::string_view name, const Value& value) {
    text_ += fmt::format("  --{} {}\n", name, value);
  }
  void section(std::string_view title) { text_ += fmt::format("  # {}\n", title); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// '([0]*3+[1]*58)': which layers are MoE.
std::string layer_pattern(const Model& m) {
  std::string text = "'(";
  for (std::size_t i = 0; i < m.is_moe.size();) {
    std::size_t end = i;
    while (end < m.is_moe.size() && m.is_moe[end] == m.is_moe[i]) ++end;
    text += fmt::format("{}[{}]*{}", i > 0 ? "+" : "", m.is_moe[i] ? 1 : 0, end - i);
    i = end;
  }
  return text + ")'";
}

// 'Et*4|t*3|t*3m*1L': the decoder layers of each virtual stage, in the order of the model.
std::string stage_layout(const Model& m, const Layout& l) {
  const int chunks = l.pp * l.vpp;
  std::string text = "'E";
  for (int chunk = 0; chunk < chunks; ++chunk)
    text += fmt::format("{}t*{}", chunk > 0 ? "|" : "", m.layers / chunks + (chunk < m.layers % chunks ? 1 : 0));
  if (m.mtp_layers > 0) text += fmt::format("m*{}", m.mtp_layers);
  return text + "L'";
}

struct Dispatcher {
  std::string_view transport, type, backend;
};
constexpr Dispatcher kDispatchers[] = {
    {"flat", "alltoall", ""},
    {"two_level", "alltoall", ""},
    {"gather", "allgather", ""},
    {"node_dedup", "flex", "deepep"},
};

const Dispatcher* dispatcher_of(std::string_view transport) {
  const auto it = std::find_if(std::begin(kDispatchers), std::end(kDispatchers),
                               [&](const Dispatcher& d) { return d.transport == transport; });
  return it == std::end(kDispatchers) ? nullptr : it;
}

void model_arguments(Arguments& a, const Model& m, const Job& job) {
  a.section("model");
  a.add("num-layers", m.layers);
  a.add("hidden-size", m.hidden);
  a.add("ffn-hidden-size", m.dense_ffn > 0 ? m.dense_ffn : m.expert_ffn);
  a.add("num-attention-heads", m.heads);
  if (is_mla(m)) {
    a.flag("multi-latent-attention");
    if (m.q_lora_rank > 0) a.add("q-lora-rank", m.q_lora_rank);
    a.add("kv-lora-rank", m.kv_lora_rank);
    a.add("qk-head-dim", m.qk_nope_head_dim);
    a.add("qk-pos-emb-head-dim", m.qk_rope_head_dim);
    a.add("v-head-dim", m.v_head_dim);
  } else {
    a.add("kv-channels", m.head_dim);
    if (m.kv_heads != m.heads) a.flag("group-query-attention"), a.add("num-query-groups", m.kv_heads);
  }
  a.add("vocab-size", m.vocab);
  if (m.gated_ffn) a.flag("swiglu");
  if (!m.tie_embeddings) a.flag("untie-embeddings-and-output-weights");
  if (m.mtp_layers > 0) a.add("mtp-num-layers", m.mtp_layers);
  a.add("seq-length", job.sequence);
  a.add("max-position-embeddings", job.sequence);
}

void moe_arguments(Arguments& a, const Plan& p, const Dispatcher& d) {
  const Model& m = p.model;
  a.section("experts");
  a.add("num-experts", m.experts);
  a.add("moe-ffn-hidden-size", m.expert_ffn);
  if (moe_layers(m) < m.layers) a.add("moe-layer-freq", layer_pattern(m));
  if (m.shared_ffn > 0) a.add("moe-shared-expert-intermediate-size", m.shared_ffn);
  a.add("moe-router-topk", m.top_k);
  a.add("moe-router-score-function", m.scoring == Scoring::sigmoid ? "sigmoid" : "softmax");
  // Softmax before the choice: weights that do not sum to 1. With k = 1 Megatron-LM allows nothing else.
  if (m.scoring == Scoring::softmax && (!m.renormalize || m.top_k == 1)) a.flag("moe-router-pre-softmax");
  if (m.router_groups > 1) {
    a.add("moe-router-num-groups", m.router_groups);
    a.add("moe-router-group-topk", m.router_topk_groups);
  }
  a.add("moe-router-dtype", "fp32");
  a.add("moe-token-dispatcher-type", d.type);
  if (!d.backend.empty()) a.add("moe-flex-dispatcher-backend", d.backend);
  if (p.job.dtype == DType::bf16) a.flag("moe-grouped-gemm");
  a.flag("moe-permute-fusion");
  if (p.job.capacity_factor > 0) {
    a.add("moe-expert-capacity-factor", p.job.capacity_factor);
    a.add("moe-token-drop-policy", "position");  // GShard drops the last tokens, not the least likely ones
  }
}

void parallel_arguments(Arguments& a, const Plan& p) {
  const Layout& l = p.layout;
  a.section("layout");
  a.add("tensor-model-parallel-size", l.tp);
  a.add("context-parallel-size", l.cp);
  a.add("pipeline-model-parallel-size", l.pp);
  if (p.model.layers % (l.pp * l.vpp) != 0)
    a.add("pipeline-model-parallel-layout", stage_layout(p.model, l));
  else if (l.vpp > 1)
    a.add("num-virtual-stages-per-pipeline-rank", l.vpp);
  a.add("expert-model-parallel-size", l.ep);
  a.add("expert-tensor-parallel-size", l.etp);
  if (l.sequence_parallel) a.flag("sequence-parallel");
  if (l.zero == 1) a.flag("use-distributed-optimizer");
  a.flag("overlap-grad-reduce");
  if (const long long bucket = gradient_bucket(p); bucket > 0) a.add("ddp-bucket-size", bucket);
  if (l.zero == 1) a.flag("overlap-param-gather");  // of the distributed optimizer
}

void job_arguments(Arguments& a, const Plan& p) {
  a.section("job");
  a.add("micro-batch-size", p.job.micro_batch);
  a.add("global-batch-size", p.job.global_batch);
  if (p.job.dtype == DType::bf16) a.flag("bf16");
  if (p.job.recompute == Recompute::full) {
    a.add("recompute-granularity", "full");
    a.add("recompute-method", "uniform");
    a.add("recompute-num-layers", 1);
  } else if (p.job.recompute == Recompute::selective) {
    a.add("recompute-granularity", "selective");
    a.add("recompute-modules", is_mla(p.model) ? "layernorm moe_act mla_up_proj" : "layernorm moe_act");
  }
}

std::vector<std::string> not_expressed(const Plan& p, const Dispatcher& d) {
  std::vector<std::string> notes;
  const Schedule& s = p.schedule;
  const std::string priced = fmt::format("priced as \"{}\": {:.1f} us forward, {:.1f} us backward a MoE layer", s.name,
                                         p.forward.time_us, p.backward.time_us);
  if (s.chunks > 1 || s.pieces > 1)
    notes.push_back(fmt::format("n={} chunks, r={} pieces: the {} dispatcher sends all tokens at once; {}", s.chunks,
                                s.pieces, d.type, priced));
  if (s.transport == "two_level")
    notes.push_back("the two_level transport: one alltoall over the EP group is used instead; " + priced);
  if (s.transport == "node_dedup")
    notes.push_back("the node_dedup transport: DeepEP is its nearest kin (a token once a node); " + priced);
  if (s.intake == Intake::tp_gather)
    notes.push_back("the replicated token split: under sequence parallelism each token is sent once; " + priced);
  if (!p.gradients.layers.empty())
    notes.push_back(fmt::format(
        "gradients in idle spans of the inter-node lane: a bucket is reduced as soon as it is full, beside whatever "
        "runs{}; priced with {:.1f} ms exposed",
        gradient_bucket(p) > 0 ? "; --ddp-bucket-size is that of the largest operation planned" : "",
        p.gradients.exposed_us * 1e-3));
  if (p.job.recompute == Recompute::selective && p.model.dense_ffn > 0)
    notes.push_back("selective recompute of the activations of dense layers: moe_act covers experts only");
  if (p.job.dtype == DType::f32) notes.push_back("grouped GEMM: Megatron-LM has it for bf16 only");
  notes.push_back(
      fmt::format("load balancing: priced with {} routing; choose --moe-router-load-balancing-type yourself",
                  p.routing.name.empty() ? "uniform" : p.routing.name));
  notes.push_back("norms, biases, position embeddings, tokenizer, data and optimizer settings: no part of a plan");
  return notes;
}

}  // namespace

Expected<Emitted, Refused> emit_megatron(const Plan& p, const EmitOptions&) {
  Refused no{megatron_refuses(p.model, p.job, p.layout)};
  const Dispatcher* d = dispatcher_of(p.schedule.transport);
  if (d == nullptr)
    no.why.push_back(
        {"no Megatron-LM dispatcher resembles the transport " + p.schedule.transport, "plan with the transport flat"});
  else if (p.job.capacity_factor > 0 && d->type != "alltoall")
    no.why.push_back({fmt::format("a capacity factor works with the alltoall dispatcher only, not with {}", d->type),
                      "plan with the transport flat, or without --capacity-factor"});
  if (d != nullptr && d->backend == "deepep" && p.layout.ep > kMostDeepEpRanks)
    no.why.push_back({fmt::format("EP = {}: DeepEP takes at most {} ranks", p.layout.ep, kMostDeepEpRanks),
                      "plan with --target megatron, or with the transport flat"});
  if (const std::string why = out_of_order(p); !why.empty())
    no.why.push_back({why + ", Megatron-LM places experts in order", "plan with consecutive placement"});
  if (!no.why.empty()) return no;

  Arguments a;
  parallel_arguments(a, p);
  job_arguments(a, p);
  model_arguments(a, p.model, p.job);
  moe_arguments(a, p, *d);
  Emitted out;
  out.not_expressed = not_expressed(p, *d);
  out.text = comment_header(p, out.not_expressed);
  out.text += "# source this file, then: pretrain_gpt.py \"${MEGATRON_ARGS[@]}\" and your data arguments\n";
  if (p.layout.tp > 1 || p.layout.cp > 1)
    out.text +=
        "# TP or CP above 1: before Blackwell, Megatron-LM demands 1, so that communication is issued before the GEMM "
        "that\n# it overlaps. It excludes --overlap-moe-expert-parallel-comm and FSDP, which want more; neither is "
        "used "
        "here.\nexport CUDA_DEVICE_MAX_CONNECTIONS=1\n";
  else
    out.text +=
        "# TP and CP are 1: Megatron-LM does not ask for CUDA_DEVICE_MAX_CONNECTIONS=1, and several connections let\n"
        "# the EP exchange run beside kernels.\nunset CUDA_DEVICE_MAX_CONNECTIONS\n";
  out.text += "MEGATRON_ARGS=(\n" + a.text() + ")\n";
  return out;
}

}  // namespace topomoe
