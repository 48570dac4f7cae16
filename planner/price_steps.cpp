// What each step of a schedule that stays on its rank costs alone, and which resources it asks for.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "planner/price_parts.hpp"

namespace topomoe {
namespace {

using namespace pricing;

// The router's GEMM is a few hundred columns wide: a fraction of peak. Assumed.
constexpr double kSmallGemm = 0.3;

}  // namespace

double LayerPricer::row_bytes(const Buffer& b) const {
  return topomoe::row_bytes(b,
                            {widths_.hidden, widths_.ffn_shard, widths_.top_k, widths_.experts, widths_.element_bytes});
}

double LayerPricer::rows(const Schedule& s, const View& view, int rank, int peer) {
  const Buffer& b = s.buffers[static_cast<std::size_t>(view.buffer)];
  Fingerprint key = view_key(s, view);
  key.put(rank), key.put(peer);
  const auto found = rows_.find(key.hash);
  double all = 0;
  if (found != rows_.end()) {
    all = found->second;
  } else {
    Buffer one = b;
    View v = view;
    one.chunks = {0, 1};
    if (v.chunks) v.chunks = Chunks{0, 1};
    all = rows_of(one, v, groups_, *counts_, rank, peer);
    rows_.emplace(key.hash, all);
  }
  return all * chunk_fraction(s, b, view);
}

// Rows of each of my experts, of `rows` in all.
std::vector<double> LayerPricer::rows_by_expert(double rows) const {
  std::vector<double> out;
  double sum = 0;
  for (const int copy : counts_->placement().held_by(groups_.index_in(Role::ep, me_))) {
    out.push_back(counts_->count(Symbol::pairs, 0, me_, copy));
    sum += out.back();
  }
  for (double& r : out) r *= sum > 0 ? rows / sum : 0;
  return out;
}

double LayerPricer::ffn_s(std::span<const double> by_expert, StepKind kind) const {
  const FfnPass pass = kind == StepKind::expert_forward ? FfnPass::forward
                       : kind == StepKind::expert_dgrad ? FfnPass::dgrad
                                                        : FfnPass::wgrad;
  return machine_.compute
             ->expert_ffn(by_expert, widths_.hidden, widths_.ffn_shard, widths_.matrices, machine_.expert_kernel, pass)
             .time_us *
         1e-6 / machine_.efficiency.in_step;
}

LayerPricer::Cost LayerPricer::experts(const Schedule& s, const Step& step) {
  const double n = rows(s, step.in[0], me_), local = widths_.experts / groups_.size(Role::ep);
  const double flops = 2.0 * widths_.matrices * n * widths_.hidden * widths_.ffn_shard;
  const double weights = widths_.matrices * widths_.hidden * widths_.ffn_shard * local;
  // Each weight is read once (an expert without rows is not); wgrad reads and writes fp32 gradients.
  const double element = machine_.weight_bytes > 0 ? machine_.weight_bytes : widths_.element_bytes;
  const double weight_bytes = weights * (step.kind == StepKind::expert_wgrad ? 8 : element) * std::min(1.0, n / local);
  double bytes = weight_bytes;
  int last = -1;  // what has no gate is named once more in its place
  for (const auto* views : {&step.in, &step.out})
    for (const View& v : *views)
      if (std::exchange(last, v.buffer) != v.buffer)
        bytes += rows(s, v, me_) * row_bytes(s.buffers[static_cast<std::size_t>(v.buffer)]);
  Cost c;
  const double compute = flops / machine_.flops.value, memory = bytes / machine_.hbm.value;
  const double effective_memory = memory / (machine_.efficiency.memory * machine_.efficiency.in_step);
  c.bytes = bytes;
  const auto cut = [&](int parts) {
    return std::max({ffn_s(rows_by_expert(n / parts), step.kind), compute / parts, memory / parts});
  };
  c.alone_s = cut(1);
  if (bounding_) c.in_cuts_s = least_in_cuts(cut), c.one_cut_s = cut(kMostChunks);
  c.uses = {
      {kCompute, std::max(compute, std::min(c.alone_s, c.alone_s * compute / std::max(memory, compute))), compute},
      {kHbm, effective_memory, bytes > machine_.efficiency.cache_bytes ? memory : 0}};
  c.bottleneck = effective_memory > 0.9 * c.alone_s ? "hbm" : "compute";
  return c;
}

// Everything that only moves rows through memory. Index maps are built on the host from ids that are there.
LayerPricer::Cost LayerPricer::memory_bound(const Schedule& s, const Step& step) {
  Cost c;
  for (const auto* views : {&step.in, &step.out})
    for (const View& v : *views) c.bytes += rows(s, v, me_) * row_bytes(s.buffers[static_cast<std::size_t>(v.buffer)]);
  if (step.kind == StepKind::index) {
    const IndexMap& map = s.maps[static_cast<std::size_t>(step.map)];
    c.bytes = 16 * (rows(s, map.from, me_) + rows(s, map.to, me_));
  }
  double flops = 0;
  if (step.kind == StepKind::route || step.kind == StepKind::route_backward)
    flops = (step.kind == StepKind::route ? 2 : 4) * rows(s, step.in[0], me_) * widths_.hidden * widths_.experts;
  const Efficiency& e = machine_.efficiency;
  const double memory = c.bytes / machine_.hbm.value, compute = flops / machine_.flops.value;
  const double moved =
      machine_.copies && c.bytes > 0 ? (*machine_.copies)(c.bytes).value : memory / (e.memory * e.in_step);
  const double computed = compute / (kSmallGemm * e.in_step);
  c.uses = {{kHbm, moved, c.bytes > e.cache_bytes ? memory : 0}, {kCompute, computed, compute}};
  c.alone_s = std::max(moved, computed) + e.launch.value;
  if (step.kind == StepKind::route) c.alone_s += e.host_sync.value;
  c.bottleneck = computed > moved ? "compute" : moved > e.launch.value ? "hbm" : "latency";
  return c;
}

}  // namespace topomoe
