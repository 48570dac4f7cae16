// The plan for people: what was decided, why, and how sure it is. Everything printed is in the Plan.

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>

#include "fmt/format.h"
#include "planner/certainty.hpp"
#include "topomoe/planner.hpp"

namespace topomoe {
namespace {

using Out = std::back_insert_iterator<std::string>;

std::string bytes_text(double b) {
  if (b >= 1e9) return fmt::format("{:.2f} GB", b * 1e-9);
  if (b >= 1e6) return fmt::format("{:.1f} MB", b * 1e-6);
  return b >= 1e3 ? fmt::format("{:.1f} kB", b * 1e-3) : fmt::format("{:.0f} B", b);
}

// "dispatch.3" is one of the chunks of "dispatch".
std::string stem(const std::string& step) {
  const auto dot = step.rfind('.');
  const bool numbered =
      dot != std::string::npos && dot + 1 < step.size() &&
      std::all_of(step.begin() + static_cast<long>(dot) + 1, step.end(), [](char c) { return c >= '0' && c <= '9'; });
  return numbered ? step.substr(0, dot) : step;
}

void pass_table(Out out, const char* title, const PredictedPass& pass, const std::vector<Step>& steps) {
  fmt::format_to(out, "\n{}: {:.0f} us; no execution can beat {:.0f} us ({})\n", title, pass.time_us, pass.bound_us,
                 pass.bound_by);
  struct Row {
    std::string name;
    const Step* first;
    int times = 0;
    double alone = 0, spent = 0, bytes = 0, begin = 0, end = 0;
    std::string bottleneck;
  };
  std::vector<Row> rows;
  for (std::size_t i = 0; i < pass.steps.size() && i < steps.size(); ++i) {
    if (steps[i].phase == StepPhase::metadata && steps[i].kind != StepKind::counts_exchange) continue;
    const PredictedStep& p = pass.steps[i];
    const std::string key = stem(p.name);
    auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.name == key; });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{key, &steps[i], 0, 0, 0, 0, p.begin_us, 0, p.bottleneck});
    ++row->times;
    row->alone += p.alone_us, row->spent += p.end_us - p.begin_us, row->bytes += p.bytes;
    row->end = std::max(row->end, p.end_us);
  }
  std::size_t width = 16;
  for (const Row& r : rows) width = std::max(width, r.name.size());
  fmt::format_to(out, "  {:<{}}  {:<10} {:>5} {:>9} {:>10} {:>11} {:>9} {:>9}  {}\n", "step", width, "lane", "times",
                 "alone us", "shared us", "bytes", "from us", "to us", "waits for");
  for (const Row& r : rows)
    fmt::format_to(out, "  {:<{}}  {:<10} {:>5} {:>9.0f} {:>10.0f} {:>11} {:>9.0f} {:>9.0f}  {}\n", r.name, width,
                   name(r.first->lane), r.times, r.alone, r.spent, bytes_text(r.bytes), r.begin, r.end, r.bottleneck);
}

// Seven digits at most, as few as say something.
std::string rate_text(double v) { return v >= 100 ? fmt::format("{:.0f}", v) : fmt::format("{:.3g}", v); }

void speed(Out out, const Plan& p) {
  const double ms = p.time.total_ms(), per_s = tokens_per_step(p.job) / (ms * 1e-3);
  fmt::format_to(out, "speed      {} tokens/s, {} a GPU", rate_text(per_s), rate_text(per_s / p.layout.world));
  if (p.job.phase == Phase::decode) fmt::format_to(out, ", a token of each sequence every {} ms", rate_text(ms));
  if (p.job.phase == Phase::prefill)
    fmt::format_to(out, ", all {} sequences in {} ms", p.job.global_batch, rate_text(ms));
  fmt::format_to(out, "; {} model TFLOP/s a GPU, MFU {:.1f}% of {:.0f}\n", rate_text(p.model_TFLOPps_per_gpu),
                 100 * p.model_TFLOPps_per_gpu / p.peak_TFLOPps_per_gpu, p.peak_TFLOPps_per_gpu);
}

void flip_line(Out out, const Flip& f) {
  const bool skew = f.quantity == Flip::kSkew;
  const char* kept = skew ? " (TP, CP and micro-batch kept)" : "";
  const std::string where =
      skew ? fmt::format("routing zipf:{:.2f}", f.at) : fmt::format("{:.0f} {}", f.at, f.quantity);
  if (f.instead.empty())
    fmt::format_to(out, "the same layout and algorithm {} to {}{}\n", f.above ? "up" : "down", where, kept);
  else if (f.above)
    fmt::format_to(out, "from {} on the choice would be{}: {}\n", where, kept, f.instead);
  else
    fmt::format_to(out, "with fewer than {} the choice would be: {}\n", where, f.instead);
}

}  // namespace

std::string explain_text(const Plan& p) {
  std::string text;
  Out out(text);
  const bool train = p.job.phase == Phase::train;
  fmt::format_to(out, "{} {} on {}: {} hosts, {} GPUs, nodes of {}\n", p.model.name, to_string(p.job.phase),
                 p.topology.name, p.topology.hosts, p.topology.gpus, p.topology.gpus_per_node);
  if (!p.topology.note.empty()) fmt::format_to(out, "  note: {}\n", p.topology.note);
  fmt::format_to(out,
                 "  sequence {}, micro-batch {}, global batch {}, {}{}{}, routing {}; {:.0f} tokens to a TP group\n",
                 p.job.sequence, p.job.micro_batch, p.job.global_batch, to_string(p.job.dtype),
                 p.job.dispatch_dtype == DispatchDType::fp8 ? ", tokens out in fp8" : "",
                 p.job.recompute == Recompute::none ? "" : fmt::format(", recompute {}", to_string(p.job.recompute)),
                 p.routing.name, p.tokens_per_rank);
  fmt::format_to(out, "\nlayout     {}\nalgorithm  {}\n", name(p.layout), algorithms_name(p));
  for (std::size_t i = 0; !p.later_kinds.empty() && i <= p.later_kinds.size(); ++i) {
    const int kind = static_cast<int>(i);
    const MoeKind k = moe_kind(p.model, kind);
    const auto row = [&](const Schedule& s, const PredictedPass& forward, const PredictedPass& backward) {
      fmt::format_to(out, "{:<11}{}: {}, top-{} of width {}{}: {:.0f} us forward{}\n", i == 0 ? "MoE kinds" : "",
                     kind_name(p.model, kind), s.name, k.top_k, k.expert_ffn,
                     k.shared_ffn > 0 ? fmt::format(" and {} shared", k.shared_ffn) : "", forward.time_us,
                     train ? fmt::format(", {:.0f} us backward", backward.time_us) : "");
    };
    if (i == 0)
      row(p.schedule, p.forward, p.backward);
    else
      row(p.later_kinds[i - 1].schedule, p.later_kinds[i - 1].forward, p.later_kinds[i - 1].backward);
  }
  fmt::format_to(
      out,
      "{:<11}{:.1f} ms = MoE {:.1f} + attention and dense {:.1f} + bubble {:.1f} + gradients {:.1f} + other {:.1f}\n",
      train ? "step" : "pass", p.time.total_ms(), p.time.moe_ms, p.time.attention_ms, p.time.bubble_ms,
      p.time.gradients_ms, p.time.other_ms);
  fmt::format_to(out, "           {:.1f} to {:.1f} ms as sure as its rates\n", p.low_ms, p.high_ms);
  speed(out, p);
  if (const PredictedGradients& g = p.gradients; g.hidden_bytes + g.exposed_bytes > 0) {
    fmt::format_to(out,
                   "gradients  {} of {} reduced in {} idle spans of the inter-node lane{}; {} ({:.1f} ms) exposed\n",
                   bytes_text(g.hidden_bytes), bytes_text(g.hidden_bytes + g.exposed_bytes), g.windows,
                   p.layout.zero > 1 ? ", in every micro-batch" : "", bytes_text(g.exposed_bytes), g.exposed_us * 1e-3);
    const auto most = std::max_element(g.layers.begin(), g.layers.end(),
                                       [](const auto& a, const auto& b) { return a.layers < b.layers; });
    if (most->layers > 1 && !most->operations.empty())
      fmt::format_to(out,
                     "           beside {} layers on stage {}, {:.1f} ms backward each: {} in {} operations each\n",
                     most->layers, g.stage, most->backward_us * 1e-3,
                     bytes_text(std::accumulate(most->operations.begin(), most->operations.end(), 0.0,
                                                [](double sum, const auto& op) { return sum + op.bytes; })),
                     most->operations.size());
  }
  const auto busiest =
      std::max_element(p.loads.begin(), p.loads.end(), [](auto& a, auto& b) { return a.busy_us < b.busy_us; });
  double experts_us = 0;
  for (const auto* pass : {&p.forward, &p.backward}) {
    const auto& steps = pass == &p.forward ? p.schedule.forward : p.schedule.backward;
    for (std::size_t i = 0; i < std::min(steps.size(), pass->steps.size()); ++i)
      if (steps[i].kind == StepKind::expert_forward || steps[i].kind == StepKind::expert_dgrad ||
          steps[i].kind == StepKind::expert_wgrad)
        experts_us += pass->steps[i].alone_us;
  }
  const double layer_us = p.forward.time_us + p.backward.time_us;
  if (busiest == p.loads.end() || experts_us > busiest->busy_us)
    fmt::format_to(out, "bottleneck the experts: {:.0f} of a MoE layer's {:.0f} us\n", experts_us, layer_us);
  if (busiest != p.loads.end())
    fmt::format_to(out, "{} {} ({}, {:.1f} GB/s): {} a layer keep it busy {:.0f} of {:.0f} us\n",
                   experts_us > busiest->busy_us ? "busiest   " : "bottleneck", busiest->link, busiest->link_class,
                   busiest->GBps_per_direction, bytes_text(busiest->bytes), busiest->busy_us, layer_us);
  double used = 0;
  for (const auto& [bucket, GiB] : p.memory_GiB) used += GiB;
  fmt::format_to(out, "memory     {:.1f} of {:.1f} GiB on stage {}, headroom {:.1f}:", used, p.memory_limit_GiB,
                 p.memory_stage, p.memory_limit_GiB - used);
  for (const auto& [bucket, GiB] : p.memory_GiB)
    if (GiB >= 0.05) fmt::format_to(out, " {} {:.1f}", bucket, GiB);
  fmt::format_to(out, "\n");
  for (const RateSource& r : p.rates)
    fmt::format_to(out, "{:<11}{}: {}, within {:.0f}%\n", &r == p.rates.data() ? "rates" : "", r.what, r.source,
                   100 * r.error);

  if (!p.later_kinds.empty()) fmt::format_to(out, "\nof {}:\n", kind_name(p.model, 0));
  pass_table(out, "MoE layer, forward", p.forward, p.schedule.forward);
  if (train) pass_table(out, "MoE layer, backward", p.backward, p.schedule.backward);

  fmt::format_to(out, "\nlink load of one layer\n");
  for (const LinkClassLoad& l : p.loads)
    fmt::format_to(out, "  {:<18}{:>11} on {} at {:.1f} GB/s: {:.0f} us\n", l.link_class, bytes_text(l.bytes), l.link,
                   l.GBps_per_direction, l.busy_us);
  fmt::format_to(out,
                 "\nconsidered {} layouts: {} too large for memory, {} pruned by their bound; {} schedules priced\n",
                 p.layouts_enumerated, p.layouts_too_large, p.layouts_pruned, p.schedules_priced);
  for (const Rejected& r : p.rejected)
    fmt::format_to(out, "  {} {} | {}{}: {}\n",
                   as_fast(r.time_ms, p.time.total_ms()) ? "as fast  "
                   : r.undecided                         ? "undecided"
                                                         : "rejected ",
                   r.layout, r.algorithm, r.time_ms > 0 ? fmt::format(", {:.1f} ms", r.time_ms) : "", r.reason);
  for (const Sensitivity& c : p.sensitivity) {
    const double more = 100 * (c.time_ms / p.time.total_ms() - 1);
    fmt::format_to(out, "with {} {:.0f}% lower: {:+.1f}% time, {}\n", c.rate, 100 * (1 - c.factor), more,
                   c.changes ? fmt::format("and the choice would be {} | {}", c.layout, c.algorithm)
                   : c.algorithm == algorithms_name(p) ? "the same choice"
                                                       : fmt::format("the same choice, {}", c.algorithm));
  }
  if (p.pareto.size() > 1) fmt::format_to(out, "with less memory (no other is better in both)\n");
  for (std::size_t i = 1; i < p.pareto.size(); ++i)
    fmt::format_to(out, "  {:.1f} GiB {:.1f} ms: {} | {}\n", p.pareto[i].memory_GiB, p.pareto[i].time_ms,
                   p.pareto[i].layout, p.pareto[i].algorithm);
  for (const Flip& f : p.flips) flip_line(out, f);
  if (!p.flips.empty() && p.routing.kind != RoutingProfile::Kind::histogram &&
      std::none_of(p.flips.begin(), p.flips.end(), [](const Flip& f) { return f.quantity == Flip::kSkew; }))
    fmt::format_to(out,
                   "with how much routing skew the choice changes was not looked for, as it takes long on so many "
                   "GPUs: topomoe whatif --set routing=uniform,zipf:0.2,zipf:0.5\n");
  for (const std::string& w : p.topology.warnings) fmt::format_to(out, "unknown or assumed: {}\n", w);
  return text;
}

}  // namespace topomoe
