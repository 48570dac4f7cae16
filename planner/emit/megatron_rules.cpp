// What Megatron-LM demands of a layout (megatron/training/arguments.py, core/transformer/transformer_config.py,
// core/transformer/moe, core/pipeline_parallel/schedules.py).

#include <fmt/format.h>

#include "planner/emit/emit.hpp"

namespace topomoe {

std::vector<Infeasible> megatron_refuses(const Model& m, const Job& job, const Layout& l) {
  std::vector<Infeasible> why;
  const auto no = [&](std::string constraint, std::string fix) { why.push_back({std::move(constraint), fix}); };
  const auto divides = [&](const char* what, int value, const char* of, int parts) {
    if (parts > 1 && value % parts != 0)
      no(fmt::format("{} = {} is not a multiple of {} = {}", what, value, of, parts),
         fmt::format("plan with --fix {} that divides it", of));
  };
  if (job.phase != Phase::train)
    no(fmt::format("the plan is for {}, Megatron-LM's arguments are for training", to_string(job.phase)),
       "plan with --phase train");
  if (job.dispatch_dtype == DispatchDType::fp8)
    no("tokens travel to experts as fp8, Megatron-LM's dispatchers send them in the job's dtype",
       "plan without --dispatch-dtype");
  if (moe_kind_count(m) > 1)
    no(fmt::format("{} and {}: Megatron-LM gives all MoE layers the same experts", kind_name(m, 0), kind_name(m, 1)),
       "no plan helps");
  if (m.encoder_only) no("the model is an encoder, pretrain_gpt.py builds decoders", "no plan helps");
  if (l.expert_order == ExpertOrder::edp_inner && l.ep > 1 && l.edp > 1)
    no("expert groups are strided (EDP inner), Megatron-LM's rank order is tp-cp-ep-dp-pp",
       "plan with ep_inner expert groups");
  if (l.tp > 1 && !l.sequence_parallel)
    no(fmt::format("TP = {} without sequence parallelism, which Megatron-LM demands of MoE layers", l.tp),
       "plan with --sequence-parallel on");
  if (l.zero > 1)
    no(fmt::format("ZeRO {}: Megatron-LM's distributed optimizer shards the optimizer only", l.zero),
       "plan with --max zero=1");
  divides("heads", m.heads, "tp", l.tp);
  if (!is_mla(m)) divides("kv_heads", m.kv_heads, "tp", l.tp);
  if (m.dense_ffn > 0) divides("dense FFN width", m.dense_ffn, "tp", l.tp);
  if (m.shared_ffn > 0) divides("shared expert width", m.shared_ffn, "tp", l.tp);
  divides("experts", m.experts, "ep", l.ep);
  divides("expert width", m.expert_ffn, "etp", l.etp);
  if (l.cp > 1 && job.sequence % (2 * l.cp) != 0)
    no(fmt::format("sequence = {} is not a multiple of 2 x CP = {}", job.sequence, 2 * l.cp),
       fmt::format("sequence {}", job.sequence / (2 * l.cp) * 2 * l.cp));
  else if (l.sequence_parallel)
    divides("tokens of a CP rank", job.sequence / l.cp, "tp", l.tp);
  if (m.layers < l.pp * l.vpp)
    no(fmt::format("{} layers are fewer than PP x VPP = {}", m.layers, l.pp * l.vpp), "fewer stages");
  if (l.vpp > 1 && l.pp == 1) no("virtual stages without pipeline stages", "plan with vpp=1");
  const int batch = job.micro_batch * l.dp;
  if (job.global_batch % batch != 0)
    no(fmt::format("global_batch = {} is not a multiple of micro_batch x DP = {}", job.global_batch, batch),
       fmt::format("global_batch {}", (job.global_batch / batch + 1) * batch));
  else if (l.vpp > 1 && job.global_batch / batch % l.pp != 0)
    no(fmt::format("interleaved stages take micro-batches in groups of PP = {}, there are {}", l.pp,
                   job.global_batch / batch),
       fmt::format("global_batch {}", (job.global_batch / batch / l.pp + 1) * l.pp * batch));
  return why;
}

}  // namespace topomoe
