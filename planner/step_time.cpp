#include "planner/step_time.hpp"

#include <algorithm>

namespace topomoe {
namespace {

double sent_between_stages_s(const Model& m, const Job& job, const Layout& l, const Machine& machine) {
  if (l.pp == 1) return 0;
  const double bytes = tokens_per_micro_batch(job, l.cp) / (l.sequence_parallel ? l.tp : 1) * m.hidden *
                       static_cast<double>(size_of(job.dtype));
  const int pair[] = {0, l.world / l.pp};  // the second: the first rank of the next stage
  return machine.collective_s(Collective::send_recv, bytes, pair);
}

// Reduce-scatter of fp32 gradients and all-gather of weights over the group.
double reduction_s(std::span<const int> group, double parameters, double element_bytes, const Machine& machine) {
  return machine.collective_s(Collective::reduce_scatter, parameters * 4, group) +
         machine.collective_s(Collective::all_gather, parameters * element_bytes / static_cast<double>(group.size()),
                              group);
}

double passes(const PassCost& c, const Job& job) {
  if (job.phase != Phase::train) return c.forward_s;
  return c.forward_s + c.backward_s +
         (job.recompute == Recompute::full        ? c.forward_s
          : job.recompute == Recompute::selective ? c.again_s
                                                  : 0);
}

}  // namespace

StepCosts step_costs(const Model& m, const Job& job, const Layout& l, std::span<const StageClass> stages,
                     const LayerCosts& layers, const Machine& machine, int gpus_per_node) {
  const bool train = job.phase == Phase::train;
  StepCosts c;
  c.moe_forwards = train && job.recompute == Recompute::full ? 2 : 1;
  c.micro_batches = micro_batches(job, l.dp);
  c.fill = l.pp == 1 ? 0 : 1.0 / (train ? l.vpp : 1);
  const double attention = passes(layers.attention, job), dense = passes(layers.dense, job),
               shared = passes(layers.shared, job);
  const double logits = layers.logits.forward_s + (train ? layers.logits.backward_s : 0);
  RankParameters most;  // of the stage that reduces most
  for (const StageClass& stage : stages) {
    const int mtp = stage.last && train ? m.mtp_layers : 0, moe = stage.moe + mtp;
    c.stages.push_back(
        {stage.count, moe,
         (moe + stage.dense) * attention + moe * shared + stage.dense * dense + (stage.last ? (1 + mtp) * logits : 0)});
    if (!train) continue;
    const RankParameters p = rank_parameters(m, l, stage);
    if (p.dense() + p.routed <= most.dense() + most.routed) continue;
    most = p;
    c.reducing_layers = moe;
    c.hideable_s = (moe + stage.dense) * layers.attention.backward_s;
  }
  const double hop = sent_between_stages_s(m, job, l, machine), both = train ? 2 : 1;
  // Interleaved: the passes of the first stage's warm-up and drain, 2 (pp-1) + (vpp-1) pp of m vpp.
  const double exposed = train && l.vpp > 1 ? std::min(2.0 * (l.pp - 1) + (l.vpp - 1.0) * l.pp, c.micro_batches * l.vpp)
                                            : l.pp - 1 + c.micro_batches;
  c.between_stages_s = both * hop * exposed;
  if (train) {
    const RankGroups groups(l, gpus_per_node);
    const double b = static_cast<double>(size_of(job.dtype));
    // Dense gradients are summed over DP and CP; the group of the outer of them carries the bytes.
    c.gradients_s = reduction_s(groups.members(l.dp > 1 ? Role::dp : Role::cp, 0), most.dense(), b, machine) +
                    reduction_s(groups.members(Role::edp, 0), most.routed, b, machine);
    // Adam reads gradient, two moments and master weight and writes the last three and the weight: 30 B.
    const double sharded = most.dense() / (l.dp * l.cp) + most.routed / l.edp;
    c.optimizer_s = 30 * sharded / (machine.hbm.value * machine.efficiency.memory);
  }
  return c;
}

TimeBreakdown step_time(const StepCosts& c, const MoeTimes& moe) {
  const double layer = c.moe_forwards * moe.forward_s + moe.backward_s;
  const StepCosts::Stage* slowest = nullptr;
  double most = 0, all = 0;
  for (const auto& s : c.stages) {
    const double time = s.moe_layers * layer + s.rest_s;
    all += s.count * time;
    if (slowest == nullptr || time > most) slowest = &s, most = time;
  }
  TimeBreakdown t;
  t.moe_ms = 1e3 * c.micro_batches * slowest->moe_layers * layer;
  t.attention_ms = 1e3 * c.micro_batches * slowest->rest_s;
  t.bubble_ms = 1e3 * (c.fill * (all - most) + c.between_stages_s);
  t.gradients_ms = 1e3 * std::max(0.0, c.gradients_s - c.hideable_s - c.reducing_layers * moe.idle_s);
  t.other_ms = 1e3 * c.optimizer_s;
  return t;
}

}  // namespace topomoe
