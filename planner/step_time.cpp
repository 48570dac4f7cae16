#include "planner/step_time.hpp"

#include <algorithm>

namespace topomoe {
namespace {

// Ring reduce-scatter or all-gather of `bytes` over a group of n: (n-1)/n of them cross each hop, and the rings
// of neighbouring ranks share links.
double ring_s(const RankGroups& groups, Role role, double bytes, const Machine& machine, TrafficModel& traffic) {
  const int n = groups.size(role);
  if (n < 2 || bytes <= 0) return 0;
  const Efficiency& e = machine.efficiency;
  const GroupLoad& load = traffic.ring(groups, role, 0);
  double slowest = 0;
  for (const auto& c : load.classes)
    slowest = std::max(slowest, bytes * (n - 1) / n * c.units / (c.raw_GBps * 1e9 * efficiency_of(e, c.name)));
  return (load.outside > 0 ? e.inter_latency : e.intra_latency).value + slowest;
}

}  // namespace

LayoutCosts layout_costs(const Model& model, const Job& job, const Layout& layout, const Machine& machine,
                         TrafficModel& traffic) {
  const RankGroups groups(layout, traffic.router().topology().gpus_per_node());
  const Efficiency& e = machine.efficiency;
  const bool train = job.phase == Phase::train;
  const double T = tokens_per_micro_batch(job, layout.cp), b = static_cast<double>(size_of(job.dtype)), tp = layout.tp;
  // GEMMs and their weights: forward 1x, backward 2x, full recompute 1x more.
  const double passes = train ? (job.recompute == Recompute::full ? 4 : 3) : 1;
  const auto roofline = [&](double flops, double bytes) {
    return std::max(flops / (machine.flops.value * e.gemm), bytes / (machine.hbm.value * e.memory));
  };
  const auto linear = [&](double parameters) {
    return roofline(2 * T * parameters / tp, parameters / tp * b) + 4 * e.launch.value;
  };
  // A sub-layer under TP: all-gather before and reduce-scatter after, or one all-reduce; as many bytes either way.
  const double collective = 2 * ring_s(groups, Role::tp, T * model.hidden * b, machine, traffic);
  const double collectives = train ? (job.recompute == Recompute::full ? 3 : 2) : 1;

  LayoutCosts c;
  const double attended = job.sequence * (model.encoder_only || job.phase == Phase::decode ? 1.0 : 0.5);
  const double width = static_cast<double>(model.heads) * (model.head_dim + value_head_dim(model)) / tp;
  const double kv_bytes =
      job.phase == Phase::decode ? T * job.sequence * kv_elements_per_token(model, layout.tp) * b : 0;
  const double scores = roofline(2 * T * attended * width, kv_bytes);
  const double norms = 12 * T * model.hidden * b / (layout.sequence_parallel ? tp : 1) / (machine.hbm.value * e.memory);
  c.attention_s = passes * (linear(attention_parameters(model)) + scores + norms) + collectives * collective;
  c.dense_s = passes * linear(dense_parameters(model)) + collectives * collective;
  if (model.shared_ffn > 0) c.shared_s = passes * linear(shared_parameters(model)) + collectives * collective;
  if (!model.encoder_only) {
    const double tokens = job.phase == Phase::train ? T : static_cast<double>(job.micro_batch);
    const double parameters = static_cast<double>(model.hidden) * model.vocab;
    c.logits_s = (train ? 3 : 1) * roofline(2 * tokens * parameters / tp, parameters / tp * b);
  }
  // Every stage in turn; the slowest is the one with most layers, MoE layers first.
  for (int stage = 0; stage < layout.pp; ++stage) {
    int moe = 0, dense = 0;
    for (const int layer : layers_of_stage(layout, model.layers, stage)) (moe_layer(model, layer) ? moe : dense) += 1;
    if (train && stage == layout.pp - 1) moe += model.mtp_layers;
    if (moe + dense > c.moe_layers + c.dense_layers ||
        (moe + dense == c.moe_layers + c.dense_layers && moe > c.moe_layers))
      c.moe_layers = moe, c.dense_layers = dense;
  }
  c.micro_batches = micro_batches(job, layout.dp);
  c.parallel_micro_batches = c.micro_batches + (layout.pp - 1.0) / (train ? layout.vpp : 1);
  if (train) {
    RankParameters p;  // of the stage that reduces most
    for (int stage = 0; stage < layout.pp; ++stage) {
      const RankParameters q = rank_parameters(model, layout, stage);
      if (q.dense() + q.routed > p.dense() + p.routed) p = q;
    }
    // fp32 gradients: reduce-scatter, then all-gather of updated weights (distributed optimizer).
    c.gradients_s = ring_s(groups, Role::dp, p.dense() * 4, machine, traffic) +
                    ring_s(groups, Role::dp, p.dense() * b, machine, traffic) +
                    ring_s(groups, Role::edp, p.routed * 4, machine, traffic) +
                    ring_s(groups, Role::edp, p.routed * b, machine, traffic);
    // Adam reads gradient, two moments and master weight and writes the last three and the weight: 30 B.
    const double sharded = p.dense() / (layout.dp * layout.cp) + p.routed / layout.edp;
    c.optimizer_s = 30 * sharded / (machine.hbm.value * e.memory);
  }
  return c;
}

TimeBreakdown step_time(const LayoutCosts& c, double moe_s, double idle_s) {
  TimeBreakdown t;
  const double moe = c.moe_layers * moe_s;
  const double rest =
      (c.moe_layers + c.dense_layers) * c.attention_s + c.dense_layers * c.dense_s + c.moe_layers * c.shared_s;
  t.moe_ms = 1e3 * c.micro_batches * moe;
  t.attention_ms = 1e3 * c.micro_batches * rest;
  t.bubble_ms = 1e3 * (c.parallel_micro_batches - c.micro_batches) * (moe + rest);
  t.gradients_ms = 1e3 * std::max(0.0, c.gradients_s - c.moe_layers * idle_s);
  t.other_ms = 1e3 * (c.micro_batches * c.logits_s + c.optimizer_s);
  return t;
}

}  // namespace topomoe
