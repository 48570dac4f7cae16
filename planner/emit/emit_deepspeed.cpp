// ds_config.json for DeepSpeed (head edaa722, 2026-08) with its AutoEP section. JSON has no comments: what it does
// not say is in `not_expressed` only.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "planner/emit/hosts.hpp"

namespace topomoe {
namespace {

// Families that AutoEP detects by itself.
constexpr std::array kPresets{"mixtral", "qwen3_moe", "qwen3_5_moe", "deepseek_v2", "deepseek_v3"};

std::vector<Infeasible> refuses(const Plan& p) {
  const Layout& l = p.layout;
  std::vector<Infeasible> why;
  if (p.job.phase != Phase::train)
    why.push_back({fmt::format("the plan is for {}, this config is for training", to_string(p.job.phase)),
                   "plan with --phase train"});
  if (l.pp > 1)
    why.push_back(
        {fmt::format("PP = {}: DeepSpeed's pipeline is model code (PipelineModule), no config makes it", l.pp),
         "plan with --fix pp=1"});
  if (l.cp > 1)
    why.push_back({fmt::format("CP = {}: DeepSpeed cuts sequences by all-to-all over heads (Ulysses), which is not how "
                               "it was priced",
                               l.cp),
                   "plan with --fix cp=1"});
  if (l.zero == 3 && l.tp > 1)
    why.push_back({"ZeRO 3 beside tensor parallelism: DeepSpeed's autotp takes stages up to 2",
                   "plan with --fix tp=1, or --max zero=2"});
  if (l.etp > 1)
    why.push_back(
        {fmt::format("ETP = {}: AutoEP takes expert_tensor_parallel_size 1 only", l.etp), "plan with --fix etp=1"});
  if (p.schedule.transport == "gather")
    why.push_back(
        {"the gather transport: AutoEP exchanges tokens, it does not gather them", "plan with the transport flat"});
  if (moe_kind_count(p.model) > 1)
    why.push_back({kind_name(p.model, 0) + " and " + kind_name(p.model, 1) +
                       ": AutoEP's section gives all MoE layers one top_k and one size",
                   "give model code deepspeed.moe.layer.MoE with num_experts layer by layer"});
  if (p.job.dispatch_dtype == DispatchDType::fp8)
    why.push_back(
        {"tokens travel to experts as fp8: AutoEP sends them in the job's dtype", "plan without --dispatch-dtype"});
  if (p.job.capacity_factor > 0)
    why.push_back({"a capacity factor: AutoEP drops no tokens", "plan without --capacity-factor"});
  if (p.job.global_batch % (p.job.micro_batch * l.dp) != 0)
    why.push_back({fmt::format("global_batch = {} is not a multiple of micro_batch x DP = {}", p.job.global_batch,
                               p.job.micro_batch * l.dp),
                   "another global batch"});
  if (const std::string displaced = out_of_order(p); !displaced.empty())
    why.push_back({displaced + ", AutoEP places experts in order", "plan with consecutive placement"});
  return why;
}

}  // namespace

Expected<Emitted, Refused> emit_deepspeed(const Plan& p, const EmitOptions&) {
  if (Refused no{refuses(p)}; !no.why.empty()) return no;
  const Layout& l = p.layout;
  const Model& m = p.model;
  nlohmann::ordered_json expert{{"enabled", true},
                                {"autoep_size", l.ep},
                                {"expert_tensor_parallel_size", l.etp},
                                {"use_grouped_mm", true},
                                {"top_k", m.top_k},
                                {"score_func", m.scoring == Scoring::sigmoid ? "sigmoid" : "softmax"}};
  Emitted out;
  if (std::find(kPresets.begin(), kPresets.end(), m.model_type) != kPresets.end())
    expert["preset_model"] = m.model_type;
  else
    out.not_expressed.push_back(
        fmt::format("where the MoE layers of \"{}\" are: AutoEP has no preset for it; add moe_layer_pattern, "
                    "router_pattern and expert_pattern",
                    m.model_type));
  nlohmann::ordered_json config{
      {"train_batch_size", p.job.global_batch},
      {"train_micro_batch_size_per_gpu", p.job.micro_batch},
      {"gradient_accumulation_steps", micro_batches(p.job, l.dp)},
      {"bf16", {{"enabled", p.job.dtype == DType::bf16}}},
      {"zero_optimization", {{"stage", l.zero}, {"overlap_comm", true}}},
      {"tensor_parallel", {{"autotp_size", l.tp}}},
      {"expert_parallel", expert},
      // D + E: an EP group is strided over the data-parallel ranks; E + D: it is packed.
      {"use_data_before_expert_parallelism", l.expert_order == ExpertOrder::edp_inner && l.ep > 1 && l.edp > 1}};
  if (l.tp == 1) config.erase("tensor_parallel");
  if (const long long bucket = gradient_bucket(p); bucket > 0) {
    config["zero_optimization"]["reduce_bucket_size"] = bucket;
    out.not_expressed.push_back(fmt::format(
        "gradients in idle spans of the inter-node lane: a bucket is reduced as soon as it is full, beside whatever "
        "runs; reduce_bucket_size is that of the largest operation planned; priced with {:.1f} ms exposed",
        p.gradients.exposed_us * 1e-3));
  }
  out.text = config.dump(2) + "\n";

  const Schedule& s = p.schedule;
  const std::string priced = fmt::format("priced as \"{}\": {:.1f} us forward, {:.1f} us backward a MoE layer", s.name,
                                         p.forward.time_us, p.backward.time_us);
  if (s.chunks > 1 || s.pieces > 1)
    out.not_expressed.push_back(
        fmt::format("n={} chunks, r={} pieces: AutoEP sends all tokens at once; {}", s.chunks, s.pieces, priced));
  if (s.transport != "flat")
    out.not_expressed.push_back(
        fmt::format("the {} transport: one all-to-all over the EP group is used instead; {}", s.transport, priced));
  if (l.tp > 1)
    out.not_expressed.push_back("sequence parallelism and the token split over TP: AutoEP's folding decides; " +
                                priced);
  if (p.job.recompute != Recompute::none)
    out.not_expressed.push_back(
        fmt::format("recompute {}: activation checkpointing is called by model code", to_string(p.job.recompute)));
  if (l.zero == 3)
    out.not_expressed.push_back(
        "ZeRO 3 with deepspeed.moe.layer.MoE, which has none (DeepSpeed#1392): AutoEP, or --max zero=2");
  out.not_expressed.push_back(
      fmt::format("model code that uses deepspeed.moe.layer.MoE instead of AutoEP: ep_size={}, k={}{}, "
                  "drop_tokens=False, use_rts=False; the config has no section for it",
                  l.ep, m.top_k, m.top_k > 2 ? " (that layer takes 1 or 2 only)" : ""));
  out.not_expressed.push_back("optimizer, learning rate and load balancing: no part of a plan");
  return out;
}

}  // namespace topomoe
