// How far a plan is scaled down to be rehearsed, and what of it is not executed.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "planner/plan/capacity.hpp"
#include "runtime/rehearsal.hpp"
#include "topomoe/error.hpp"
#include "topomoe/planned_layer.hpp"

namespace topomoe {
namespace {

constexpr std::int64_t kLeastHidden = 16;

double as_double(std::int64_t x) { return static_cast<double>(x); }

// 2 flops a multiply-add, 3 matrices (2 without a gate), forward once and backward twice as much. `replicated` with
// whole experts computes each token on every TP rank.
double flops_of(const Plan& plan, const LayerShape& s, std::int64_t tokens) {
  const Layout& l = plan.layout;
  const double copies = plan.schedule.intake == Intake::as_held && !l.sequence_parallel && l.etp == 1 ? l.tp : 1;
  const double groups = static_cast<double>(l.world) / l.tp;
  return (s.gated ? 18.0 : 12.0) * groups * as_double(tokens) * as_double(s.hidden) *
         (copies * s.top_k * as_double(s.ffn) + as_double(s.shared_ffn));
}

// Weights and their fp32 gradients; rows at the layer's boundary, on the way and at the experts (some ten tensors
// of the width of each); one expert of the reference in double on every rank.
double memory_of(const Plan& plan, const LayerShape& s, std::int64_t tokens) {
  const Layout& l = plan.layout;
  const double matrix = as_double(s.hidden) * as_double(s.ffn), element = static_cast<double>(size_of(s.dtype));
  const double copies = ExpertPlacement(s.experts, l.ep, s.expert_owners).copies();
  const double weights = 3 * matrix * copies / l.ep / l.etp * (element + 4);
  const double router = 2.0 * s.experts * as_double(s.hidden) * 4;
  const double rows =
      as_double(tokens) * (4.0 * s.top_k * l.etp + 8) * (as_double(s.hidden) + as_double(s.ffn) / l.etp) * element;
  const double reference = 3 * matrix * 8 * 4;
  const double shared = 3 * as_double(s.hidden) * as_double(s.shared_ffn) * ((element + 4) / l.tp + 4 + 8 * 2) +
                        as_double(tokens) * 10 * (as_double(s.hidden) + as_double(s.shared_ffn) / l.tp) * element;
  return l.world * (weights + router + rows + reference + (s.shared_ffn > 0 ? shared : 0));
}

std::int64_t multiple(std::int64_t value, std::int64_t of) { return std::max<std::int64_t>(1, value / of) * of; }

}  // namespace

SizeRequest size_request_from(const std::string& text, const std::string& field) {
  SizeRequest out;
  if (text == "auto") return out;
  if (text == "none") {
    out.as_planned = true;
    return out;
  }
  const char* const way_out = "auto, none, or hidden=N,ffn=N,tokens=N (any of them, N > 0)";
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const std::size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    std::int64_t* const into = key == "hidden"   ? &out.hidden
                               : key == "ffn"    ? &out.ffn
                               : key == "tokens" ? &out.tokens
                                                 : nullptr;
    if (into == nullptr || equals == std::string::npos) throw InvalidInput(field, text, way_out);
    const char* const last = item.data() + item.size();
    const auto [stop, error] = std::from_chars(item.data() + equals + 1, last, *into);
    if (error != std::errc() || stop != last || *into < 1 || *into > (1 << 24))
      throw InvalidInput(field, item, way_out);
    begin = end + 1;
  }
  return out;
}

RehearsalSize choose_size(const Plan& plan, const SizeRequest& request, const Budget& budget) {
  const Model& m = plan.model;
  const int etp = plan.layout.etp;
  if (request.ffn % etp != 0)
    throw InvalidInput("ffn", std::to_string(request.ffn),
                       fmt::format("must be a multiple of ETP = {}, e.g. {}", etp, multiple(request.ffn, etp)));
  const auto planned_tokens = std::max<std::int64_t>(1, static_cast<std::int64_t>(plan.tokens_per_rank));
  RehearsalSize out;
  out.shape = layer_shape_of(plan);
  out.tokens = planned_tokens;
  const auto fits = [&] {
    out.memory_bytes = memory_of(plan, out.shape, out.tokens), out.flops = flops_of(plan, out.shape, out.tokens);
    return out.memory_bytes <= budget.memory_bytes && out.flops <= budget.flops;
  };
  LayerShape& s = out.shape;
  if (request.hidden > 0) s.hidden = request.hidden;
  if (request.ffn > 0) s.ffn = request.ffn;
  // The shared expert keeps its proportion to a routed one.
  if (request.ffn > 0 && s.shared_ffn > 0)
    s.shared_ffn = multiple(s.shared_ffn * request.ffn / m.expert_ffn, plan.layout.tp);
  if (request.tokens > 0) out.tokens = request.tokens;

  // Halve width (hidden and ffn together: the model's proportions) and tokens in turns: first to sizes that still
  // show every step at work, then to the least.
  const auto least_tokens = std::min<std::int64_t>(planned_tokens, std::int64_t{plan.schedule.chunks} * plan.layout.tp);
  const auto halve_width_above = [&](std::int64_t floor) {
    const bool hidden = request.hidden == 0 && s.hidden > floor,
               ffn = request.ffn == 0 && s.ffn > std::max<std::int64_t>(floor, etp);
    if (hidden) s.hidden = std::max(kLeastHidden, s.hidden / 2);
    if (ffn && (hidden || request.hidden > 0 || s.hidden <= kLeastHidden)) {
      s.ffn = multiple(s.ffn / 2, etp);
      if (s.shared_ffn > 0) s.shared_ffn = multiple(s.shared_ffn / 2, plan.layout.tp);
    }
    return hidden || (ffn && (request.hidden > 0 || s.hidden <= kLeastHidden));
  };
  const auto halve_tokens_above = [&](std::int64_t floor) {
    if (request.tokens != 0 || out.tokens <= std::max(floor, least_tokens)) return false;
    out.tokens = std::max(least_tokens, out.tokens / 2);
    return true;
  };
  if (!request.as_planned)
    while (!fits() && (halve_width_above(128) || halve_tokens_above(256) || halve_width_above(kLeastHidden) ||
                       halve_tokens_above(1)))
      ;
  fits();
  if (out.memory_bytes > budget.memory_limit_bytes) {
    const bool chosen = !request.as_planned && (request.hidden == 0 || request.ffn == 0 || request.tokens == 0);
    throw InvalidInput(
        "--shrink",
        request.as_planned ? "none"
        : chosen           ? "auto"
                           : "the sizes given",
        fmt::format("{} ranks would need about {:.1f} GiB here and {:.1f} are to be had; {}", plan.layout.world,
                    out.memory_bytes / (1 << 30), budget.memory_limit_bytes / (1 << 30),
                    chosen ? "plan for fewer GPUs (--gpus N)" : "use --shrink auto"));
  }

  const auto note = [&](const char* name, std::int64_t from, std::int64_t to) {
    if (from != to) out.note += fmt::format("{}{} {} -> {}", out.note.empty() ? "" : ", ", name, from, to);
  };
  note("hidden", m.hidden, s.hidden), note("ffn", m.expert_ffn, s.ffn),
      note("tokens of a TP group", planned_tokens, out.tokens);
  return out;
}

LayerOptions memory_of_plan(const Plan& plan, const RehearsalSize& size) {
  if (size.shape.capacity_factor > 0) return {};
  return {static_cast<double>(size.tokens), capacity_of(plan).skew};
}

std::vector<std::string> unexecuted(const Plan& plan) {
  std::vector<std::string> out;
  if (plan.routing.kind != RoutingProfile::Kind::uniform)
    out.push_back(fmt::format("routing profile {} (tokens are random and the router decides: nearly uniform)",
                              plan.routing.name));
  if (!plan.model.gated_ffn)
    out.push_back("another activation than GELU, if the model has one: a plan says that experts have no gate, no more");
  return out;
}

Plan plan_of_kind(Plan plan, int kind) {
  schedule_of(plan, kind);  // there is one
  Model& m = plan.model;
  const MoeKind k = moe_kind(m, kind);
  m.experts = k.experts, m.top_k = k.top_k, m.expert_ffn = k.expert_ffn, m.shared_ffn = k.shared_ffn;
  for (auto& layer : m.is_moe) layer = layer == kind + 1 ? 1 : 0;
  m.moe_kinds.clear();
  if (kind > 0) {
    PlannedKind& later = plan.later_kinds[static_cast<std::size_t>(kind) - 1];
    plan.expert_owners = std::move(later.expert_owners), plan.schedule = std::move(later.schedule);
    plan.forward = std::move(later.forward), plan.backward = std::move(later.backward);
    plan.loads = std::move(later.loads);
  }
  plan.later_kinds.clear();
  return plan;
}

double verification_bound(DType dtype) { return dtype == DType::f32 ? 2e-5 : 4e-2; }

std::int64_t RehearsalReport::dropped() const {
  std::int64_t all = 0;
  for (const RankTrace& rank : ranks)
    for (const StepTrace& s : rank.forward) all += s.dropped;
  return all / token_copies;
}

bool RehearsalReport::values_agree() const {
  return std::all_of(verified.begin(), verified.end(),
                     [&](const VerifiedTensor& t) { return t.deviation.relative() <= bound; });
}

}  // namespace topomoe
