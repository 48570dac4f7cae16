#include "planner/layer_costs.hpp"

#include <algorithm>

#include "planner/memory.hpp"

namespace topomoe {
namespace {

// Times of one rank's work, added up by pass.
struct Work {
  const Model& model;
  const Machine& machine;
  double element_bytes;
  PassCost cost;

  const Efficiency& e() const { return machine.efficiency; }
  double gemm(double m, double n, double k, double extra_bytes = 0) const {
    return std::max(machine.compute->gemm(m, n, k).time_us * 1e-6, extra_bytes / (machine.hbm.value * e().memory)) /
           e().in_step;
  }
  // `rows` tokens through a matrix in x out.
  void matrix(double rows, double in, double out, bool recomputed = false) {
    const double forward = gemm(rows, out, in);
    cost.forward_s += forward;
    // The weight's gradient is added to in fp32.
    cost.backward_s += gemm(rows, in, out) + gemm(in, out, rows, 8 * in * out);
    if (recomputed) cost.again_s += forward;
  }
  void ffn(double rows, double width) {
    if (width <= 0) return;
    const double up = model.gated_ffn ? 2 : 1;
    matrix(rows, model.hidden, up * width);
    stream((up + 1) * rows * width, (2 * up + 1) * rows * width, true);
    matrix(rows, width, model.hidden);
  }
  // Elements read and written.
  void stream(double forward, double backward, bool recomputed = false) {
    const double rate = machine.hbm.value * e().memory * e().in_step;
    cost.forward_s += forward * element_bytes / rate + e().launch.value;
    cost.backward_s += backward * element_bytes / rate + e().launch.value;
    if (recomputed) cost.again_s += forward * element_bytes / rate;
  }
};

// Scores and values with keys and values going round cp ranks: each attends to its own part, then to that of one other
// after another, a kernel a part. Where causal, a rank has an early and a late piece of the sequence: of each other
// part it needs the early half of the keys for all its queries, or all keys for the late half of its queries.
double ring_us(const ComputeModel& compute, AttentionShape a, int cp) {
  const double own = compute.attention(a).time_us;
  if (cp == 1) return own;
  if (!a.causal) return cp * own;
  a.causal = false;
  AttentionShape keys = a, queries = a;
  keys.keys /= 2, queries.queries /= 2;
  return own + (cp - 1) * 0.5 * (compute.attention(keys).time_us + compute.attention(queries).time_us);
}

}  // namespace

LayerCosts layer_costs(const Model& m, const Job& job, const Layout& l, const Machine& machine, int gpus_per_node) {
  const RankGroups groups(l, gpus_per_node);
  const Efficiency& e = machine.efficiency;
  const bool decode = job.phase == Phase::decode;
  const double T = tokens_per_micro_batch(job, l.cp), b = static_cast<double>(size_of(job.dtype)), tp = l.tp;
  const double around = T / (l.sequence_parallel ? tp : 1), heads = m.heads / tp;
  const auto work = [&] { return Work{m, machine, b, {}}; };
  // Around each of attention and FFN.
  const CollectiveGroup tp_group = group_on_nodes(groups.members(Role::tp, 0), gpus_per_node);
  const double gathered = machine.collective_s(Collective::all_gather, T * m.hidden * b / tp, tp_group) +
                          machine.collective_s(Collective::reduce_scatter, T * m.hidden * b, tp_group);
  const auto add_links = [](PassCost& c, const CollectiveGroup& group, double forward, double backward) {
    c.forward_s += forward, c.backward_s += backward;
    (group.nodes > 1 ? c.forward_links.between_s : c.forward_links.node_s) += forward;
    (group.nodes > 1 ? c.backward_links.between_s : c.backward_links.node_s) += backward;
  };
  const auto add_collectives = [&](PassCost& c) { add_links(c, tp_group, gathered, gathered); };

  LayerCosts out;
  {
    Work w = work();
    if (is_mla(m)) {
      if (m.q_lora_rank > 0) w.matrix(around, m.hidden, m.q_lora_rank);
      w.matrix(T, m.q_lora_rank > 0 ? m.q_lora_rank : m.hidden, heads * m.head_dim, true);
      w.matrix(around, m.hidden, m.kv_lora_rank + m.qk_rope_head_dim);
      w.matrix(T, m.kv_lora_rank, heads * (m.qk_nope_head_dim + m.v_head_dim), true);
    } else {
      w.matrix(T, m.hidden, (heads + 2 * std::max(1.0, m.kv_heads / tp)) * m.head_dim);
    }
    w.matrix(T, heads * value_head_dim(m), m.hidden);
    // Two norms and two residual additions a layer, the rotary embedding of queries and keys.
    w.stream(10 * around * m.hidden, 14 * around * m.hidden, true);
    w.stream(2 * T * heads * m.head_dim, 2 * T * heads * m.head_dim);
    AttentionShape a{.sequences = static_cast<double>(job.micro_batch),
                     .queries = decode ? 1.0 : 1.0 * job.sequence / l.cp,
                     .keys = static_cast<double>(job.sequence),
                     .heads = heads,
                     .kv_heads = std::max(1.0, m.kv_heads / tp),
                     .head_dim = (m.head_dim + value_head_dim(m)) / 2.0,
                     .causal = !m.encoder_only && !decode};
    const int parts = decode ? 1 : l.cp;
    if (!decode) a.keys = a.queries;
    // MLA reads its compressed cache, whatever the heads.
    const double cache = decode ? T * job.sequence * kv_elements_per_token(m, l.tp) * b : 0;
    if (decode && is_mla(m)) a.kv_heads = 0;
    const double scores =
        std::max(ring_us(*machine.compute, a, parts) * 1e-6, cache / (machine.hbm.value * e.memory)) / e.in_step;
    a.backward = true;
    const double scores_backward = decode ? 0 : ring_us(*machine.compute, a, parts) * 1e-6 / e.in_step;
    w.cost.forward_s += scores, w.cost.backward_s += scores_backward;
    if (l.cp > 1 && !decode) {
      // Keys and values of each rank visit all others in cp-1 hops, each beside the part of attention before it; what
      // a part does not hide is added, and so are the launches of a part. In the backward their gradients travel too.
      const double kv_elements = T * a.kv_heads * (m.head_dim + value_head_dim(m));  // kv_heads is heads under MLA
      const double kv = kv_elements * b;
      // What a part adds to outputs, in the backward to gradients of queries, keys and values, is read twice and
      // written; causal parts touch three quarters of it on average.
      const double added = (l.cp - 1) * 3 * (a.causal ? 0.75 : 1.0);
      w.stream(added * T * heads * value_head_dim(m), added * (T * heads * m.head_dim + kv_elements));
      const auto cp_group = groups.members(Role::cp, 0);
      const CollectiveGroup hop = group_on_nodes(cp_group.first(2), gpus_per_node);
      const auto exposed = [&](double bytes, double attention) {
        const double part = attention / l.cp;
        return (l.cp - 1) * std::max(0.0, machine.collective_s(Collective::send_recv, bytes, hop) - part);
      };
      add_links(w.cost, hop, exposed(kv, scores), exposed(2 * kv, scores_backward));
      const double launches = (l.cp - 1) * 2 * e.launch.value;
      w.cost.forward_s += launches, w.cost.backward_s += launches;
    }
    add_collectives(w.cost);
    out.attention = w.cost;
  }
  if (m.dense_ffn > 0) {
    Work w = work();
    w.ffn(T, m.dense_ffn / tp);
    add_collectives(w.cost);
    out.dense = w.cost;
  }
  if (m.shared_ffn > 0) {
    Work w = work();
    w.ffn(T, m.shared_ffn / tp);
    add_collectives(w.cost);
    out.shared = w.cost;
  }
  if (!m.encoder_only) {
    Work w = work();
    const double tokens = job.phase == Phase::train ? T : static_cast<double>(job.micro_batch);
    w.matrix(tokens, m.hidden, m.vocab / tp);
    w.stream(3 * tokens * m.vocab / tp, 3 * tokens * m.vocab / tp);  // softmax in fp32
    out.logits = w.cost;
  }
  return out;
}

}  // namespace topomoe
