#include "planner/step_time.hpp"

#include <algorithm>

namespace topomoe {
namespace {

double passes(const PassCost& c, const Job& job) {
  if (job.phase != Phase::train) return c.forward_s;
  return c.forward_s + c.backward_s +
         (job.recompute == Recompute::full        ? c.forward_s
          : job.recompute == Recompute::selective ? c.again_s
                                                  : 0);
}

// What of a backward is not the MoE layer's schedule: recomputed forward, then backward.
LayerBeside beside(const PassCost& c, const Job& job) {
  return {job.recompute == Recompute::full        ? c.forward_s
          : job.recompute == Recompute::selective ? c.again_s
                                                  : 0,
          c.backward_s};
}
LayerBeside operator+(const LayerBeside& a, const LayerBeside& b) {
  return {a.before_s + b.before_s, a.after_s + b.after_s};
}

LayerParameters parameters_of(const Model& m, const Layout& l, const StageClass& one, const StepCurves& curves,
                              double element_bytes) {
  const RankParameters p = rank_parameters(m, l, one);
  LayerParameters out{p.tensor_sharded + p.replicated, p.routed, 0};
  out.gather_s = (curves.dense.gather.time_us(out.dense * element_bytes / curves.dense.ranks) +
                  curves.experts.gather.time_us(out.routed * element_bytes / curves.experts.ranks)) *
                 1e-6;
  return out;
}

// In collectives, as passes(); none is in what selective recomputation does again.
void add_links(LinkTimes& sum, const PassCost& c, double layers, const Job& job) {
  const bool train = job.phase == Phase::train;
  const double forwards = train && job.recompute == Recompute::full ? 2 : 1, backwards = train ? 1 : 0;
  sum.node_s += layers * (forwards * c.forward_links.node_s + backwards * c.backward_links.node_s);
  sum.between_s += layers * (forwards * c.forward_links.between_s + backwards * c.backward_links.between_s);
}

}  // namespace

StepCurves step_curves(const Layout& l, const Machine& machine, int gpus_per_node) {
  const RankGroups groups(l, gpus_per_node);
  const auto curve = [&](Collective op, std::span<const int> ranks) {
    return ranks.size() < 2 ? CollectiveCurve() : machine.curve(op, group_on_nodes(ranks, gpus_per_node));
  };
  const auto reduction = [&](Role role) {
    const auto ranks = groups.members(role, 0);
    const int size = static_cast<int>(ranks.size());
    if (l.zero == 0) return StepCurves::Reduction{curve(Collective::all_reduce, ranks), {}, size};
    return StepCurves::Reduction{curve(Collective::reduce_scatter, ranks), curve(Collective::all_gather, ranks), size};
  };
  StepCurves out{reduction(l.dp > 1 ? Role::dp : Role::cp), reduction(Role::edp), {}};
  const int neighbours[] = {0, l.world / std::max(2, l.pp)};  // the first ranks of two stages
  if (l.pp > 1) out.stage_to_stage = curve(Collective::send_recv, neighbours);
  return out;
}

StepCosts step_costs(const Model& m, const Job& job, const Layout& l, std::span<const StageClass> stages,
                     const LayerCosts& layers, const StepCurves& curves, const Machine& machine) {
  const bool train = job.phase == Phase::train;
  StepCosts c;
  c.moe_forwards = train && job.recompute == Recompute::full ? 2 : 1;
  c.micro_batches = micro_batches(job, l.dp);
  c.fill = l.pp == 1 ? 0 : 1.0 / (train ? l.vpp : 1);
  const double attention = passes(layers.attention, job), dense = passes(layers.dense, job);
  const double logits = layers.logits.forward_s + (train ? layers.logits.backward_s : 0);
  RankParameters most;  // of the stage that reduces most
  StageClass reducing;
  if (train) {
    for (int kind = 0; kind < moe_kind_count(m); ++kind)
      c.beside_moe[static_cast<std::size_t>(kind)] =
          beside(layers.attention, job) + beside(layers.shared_of(kind), job);
    c.beside_dense = beside(layers.attention, job) + beside(layers.dense, job);
  }
  for (const StageClass& stage : stages) {
    const int mtp = stage.last && train ? m.mtp_layers : 0, moe = stage.moe + mtp;
    KindLayers by_kind{};
    double shared = 0;
    for (int kind = 0; kind < moe_kind_count(m); ++kind) {
      const int mine = by_kind[static_cast<std::size_t>(kind)] = moe_layers(m, stage, kind, mtp);
      shared += mine * passes(layers.shared_of(kind), job);
    }
    c.stages.push_back(
        {stage.count, moe,
         (moe + stage.dense) * attention + shared + stage.dense * dense + (stage.last ? (1 + mtp) * logits : 0),
         by_kind});
    LinkTimes& links = c.stages.back().links;
    add_links(links, layers.attention, moe + stage.dense, job);
    for (int kind = 0; kind < moe_kind_count(m); ++kind)
      add_links(links, layers.shared_of(kind), by_kind[static_cast<std::size_t>(kind)], job);
    add_links(links, layers.dense, stage.dense, job);
    if (!train) continue;
    const RankParameters p = rank_parameters(m, l, stage);
    if (p.dense() + p.routed <= most.dense() + most.routed) continue;
    most = p, reducing = stage;
    c.reducing_layers = by_kind, c.reducing_stage = stage.stage;
    c.hideable_s = stage.dense * (c.beside_dense.before_s + c.beside_dense.after_s);
    for (std::size_t kind = 0; kind < c.beside_moe.size(); ++kind)
      c.hideable_s += by_kind[kind] * (c.beside_moe[kind].before_s + c.beside_moe[kind].after_s);
  }
  const double b = static_cast<double>(size_of(job.dtype));
  const double sent = tokens_per_micro_batch(job, l.cp) / (l.sequence_parallel ? l.tp : 1) * m.hidden * b;
  const double hop = l.pp > 1 ? curves.stage_to_stage.time_us(sent) * 1e-6 : 0, both = train ? 2 : 1;
  // Interleaved: the passes of the first stage's warm-up and drain, 2 (pp-1) + (vpp-1) pp of m vpp.
  const double exposed = train && l.vpp > 1 ? std::min(2.0 * (l.pp - 1) + (l.vpp - 1.0) * l.pp, c.micro_batches * l.vpp)
                                            : l.pp - 1 + c.micro_batches;
  c.between_stages_s = both * hop * exposed;
  if (train) {
    c.gradients_s =
        (curves.dense.scatter.time_us(most.dense() * 4) + curves.experts.scatter.time_us(most.routed * 4)) * 1e-6;
    const double gather_s = (curves.dense.gather.time_us(most.dense() * b / curves.dense.ranks) +
                             curves.experts.gather.time_us(most.routed * b / curves.experts.ranks)) *
                            1e-6;
    const auto over_kinds = [&](auto of_layer) {
      double all = 0;
      for (std::size_t kind = 0; kind < c.moe_layer.size(); ++kind)
        if (c.reducing_layers[kind] > 0) all += c.reducing_layers[kind] * of_layer(kind);
      return all;
    };
    const double moe = over_kinds([](std::size_t) { return 1.0; });
    const double hides = layers.attention.forward_s;  // of one layer
    c.gather_s = std::max(0.0, gather_s - (moe + reducing.dense) * hides);
    for (int kind = 0; kind < moe_kind_count(m); ++kind) {
      StageClass one{.moe = 1};
      if (kind > 0) one.later[static_cast<std::size_t>(kind)] = 1;
      c.moe_layer[static_cast<std::size_t>(kind)] = parameters_of(m, l, one, curves, b);
    }
    c.dense_layer = parameters_of(m, l, {.dense = 1}, curves, b);
    c.mtp_layer = c.moe_layer[static_cast<std::size_t>(mtp_kind(m))];
    const double projection = 2.0 * m.hidden * m.hidden;
    c.mtp_layer.dense += projection;
    c.mtp_layer.gather_s += curves.dense.gather.time_us(projection * b / curves.dense.ranks) * 1e-6;
    if (l.zero >= 2) c.gradient_passes = c.micro_batches;
    if (l.zero == 3) {
      const double tables = curves.dense.gather.time_us(most.embedding * b / curves.dense.ranks) * 1e-6;
      const double ahead =
          over_kinds([&](std::size_t kind) { return std::max(0.0, c.moe_layer[kind].gather_s - hides); }) +
          reducing.dense * std::max(0.0, c.dense_layer.gather_s - hides) + tables;
      c.gather_s = c.micro_batches * std::max(c.gather_s, ahead);
      c.gather_again_s = over_kinds([&](std::size_t kind) { return c.moe_layer[kind].gather_s; }) +
                         reducing.dense * c.dense_layer.gather_s;
    }
    // Adam reads gradient, two moments and master weight and writes the last three and the weight: 30 B.
    const double sharded =
        l.zero == 0 ? most.dense() + most.routed : most.dense() / (l.dp * l.cp) + most.routed / l.edp;
    c.optimizer_s = 30 * sharded / (machine.hbm.value * machine.efficiency.memory * machine.efficiency.in_step);
  }
  return c;
}

namespace {

template <class OfLayer>
double sum(const KindLayers& layers, std::span<const MoeTimes> moe, OfLayer of_layer, double times = 1) {
  double all = 0;
  for (std::size_t kind = 0; kind < moe.size(); ++kind)
    if (layers[kind] > 0) all += times * layers[kind] * of_layer(moe[kind]);
  return all;
}
double moe_s(const StepCosts& c, const StepCosts::Stage& s, std::span<const MoeTimes> moe, double times = 1) {
  const auto layer_s = [&](const MoeTimes& kind) { return c.moe_forwards * kind.forward_s + kind.backward_s; };
  return sum(s.by_kind, moe, layer_s, times);
}
double stage_s(const StepCosts& c, const StepCosts::Stage& s, std::span<const MoeTimes> moe) {
  return moe_s(c, s, moe) + s.rest_s;
}

}  // namespace

LinkTimes links_beside_moe(const StepCosts& c, std::span<const MoeTimes> moe, bool stages_on_other_nodes) {
  const auto slowest = std::max_element(c.stages.begin(), c.stages.end(), [&](const auto& a, const auto& b) {
    return stage_s(c, a, moe) < stage_s(c, b, moe);
  });
  LinkTimes out{c.micro_batches * slowest->links.node_s, c.micro_batches * slowest->links.between_s};
  (stages_on_other_nodes ? out.between_s : out.node_s) += c.between_stages_s;
  return out;
}

TimeBreakdown step_time(const StepCosts& c, std::span<const MoeTimes> moe) {
  const StepCosts::Stage* slowest = nullptr;
  double most = 0, all = 0;
  for (const auto& s : c.stages) {
    const double time = stage_s(c, s, moe);
    all += s.count * time;
    if (slowest == nullptr || time > most) slowest = &s, most = time;
  }
  TimeBreakdown t;
  t.moe_ms = moe_s(c, *slowest, moe, 1e3 * c.micro_batches);
  t.attention_ms = 1e3 * c.micro_batches * slowest->rest_s;
  t.bubble_ms = 1e3 * (c.fill * (all - most) + c.between_stages_s);
  const double idle = sum(c.reducing_layers, moe, [](const MoeTimes& kind) { return kind.idle_s; });
  const double exposed_s = std::max(0.0, c.gradients_s + c.gather_again_s - c.hideable_s - idle);
  t.gradients_ms = 1e3 * (c.gradient_passes * exposed_s + c.gather_s);
  t.other_ms = 1e3 * c.optimizer_s;
  return t;
}

}  // namespace topomoe
