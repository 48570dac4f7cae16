#include "planner/plan/schedule_rules.hpp"

#include <algorithm>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// As include/topomoe/schedule.hpp says beside each kind.
constexpr Rule kRules[] = {
    {.kind = StepKind::route, .in = "h", .out = "iwp"},
    {.kind = StepKind::counts_exchange, .communicates = true},
    {.kind = StepKind::index, .maps = true},
    {.kind = StepKind::pack, .in = "*", .out = "*", .maps = true, .weighs = true, .keeps_width = true},
    {.kind = StepKind::repack, .in = "*", .out = "*", .maps = true, .keeps_width = true, .keeps_chunks = true},
    {.kind = StepKind::exchange,
     .in = "*",
     .out = "*",
     .communicates = true,
     .keeps_width = true,
     .keeps_chunks = true},
    {.kind = StepKind::all_gather,
     .in = "*",
     .out = "*",
     .communicates = true,
     .keeps_width = true,
     .keeps_chunks = true},
    {.kind = StepKind::ordered_sum, .in = "*", .out = "*", .keeps_width = true, .keeps_chunks = true},
    {.kind = StepKind::expert_forward, .in = "h", .out = "hfff"},
    {.kind = StepKind::expert_dgrad, .in = "hff", .out = "hfff"},
    {.kind = StepKind::expert_wgrad, .in = "hhfff"},
    {.kind = StepKind::partial_combine, .in = "*", .out = "*", .maps = true, .weighs = true, .keeps_width = true},
    {.kind = StepKind::combine, .in = "*", .out = "*", .maps = true, .weighs = true, .keeps_width = true},
    {.kind = StepKind::weight_grad, .in = "hh", .out = "w", .maps = true},
    {.kind = StepKind::route_backward, .in = "hwip", .out = "h"},
    {.kind = StepKind::copy, .in = "*", .out = "*", .keeps_width = true, .keeps_chunks = true},
    {.kind = StepKind::shared_forward, .in = "h", .out = "hsss"},
    {.kind = StepKind::shared_dgrad, .in = "hss", .out = "hsss"},
    {.kind = StepKind::shared_wgrad, .in = "hhsss"},
    {.kind = StepKind::add, .in = "h", .out = "h", .keeps_width = true, .keeps_chunks = true},
    {.kind = StepKind::mix, .in = "hh", .out = "hh"},
    {.kind = StepKind::mix_backward, .in = "hhhh", .out = "hhh"},
    {.kind = StepKind::convert, .in = "*", .out = "*", .keeps_chunks = true},
};

const Buffer& at(const Schedule& s, const View& v) { return s.buffers[static_cast<std::size_t>(v.buffer)]; }

}  // namespace

char row_of(const Buffer& b) {
  const bool payload = b.element == Element::payload, f32 = b.element == Element::f32;
  switch (b.columns) {
    case Columns::hidden: return payload ? 'h' : b.element == Element::fp8 ? 'q' : '?';
    case Columns::ffn: return payload ? 'f' : '?';
    case Columns::top_k: return payload ? '?' : f32 ? 'w' : 'i';
    case Columns::experts: return f32 ? 'p' : '?';
    case Columns::shared_ffn: return payload ? 's' : '?';
  }
  return '?';
}

std::string_view row_words(char row) {
  switch (row) {
    case 'h': return "hidden payload";
    case 'q': return "hidden fp8";
    case 'f': return "ffn payload";
    case 'i': return "top_k i32";
    case 'w': return "top_k f32";
    case 'p': return "experts f32";
    case 's': return "shared_ffn payload";
    default: return "rows of no known use";
  }
}

const Rule& rule_of(StepKind kind) {
  for (const Rule& rule : kRules)
    if (rule.kind == kind) return rule;
  throw std::logic_error("topomoe bug: a step kind without a rule");
}

bool inside_layer(Role role) {
  return role == Role::ep || role == Role::etp || role == Role::tp || role == Role::node || role == Role::rail;
}
bool per_token(Symbol s) { return s == Symbol::held || s == Symbol::tokens; }
bool token_step(StepKind k) {
  return k == StepKind::route || k == StepKind::route_backward || k == StepKind::shared_forward ||
         k == StepKind::shared_dgrad || k == StepKind::shared_wgrad || k == StepKind::add || k == StepKind::mix ||
         k == StepKind::mix_backward;
}
bool adds_to_out(StepKind k) { return k == StepKind::route_backward || k == StepKind::add || k == StepKind::mix; }
bool computes(const Step& step) {
  const StepKind k = step.kind;
  return step.weights.buffer >= 0 || k == StepKind::ordered_sum || k == StepKind::partial_combine ||
         k == StepKind::combine;
}
bool expert_step(StepKind k) {
  return k == StepKind::expert_forward || k == StepKind::expert_dgrad || k == StepKind::expert_wgrad;
}

Chunks chunks_of(const Schedule& s, const View& v) {
  const Buffer& b = at(s, v);
  return b.symbol == Symbol::held ? Chunks{0, s.chunks} : v.chunks.value_or(b.chunks);
}

bool same_selection(const Schedule& s, const View& a, const View& b) {
  const Buffer &x = at(s, a), &y = at(s, b);
  return a.sources.value_or(x.sources) == b.sources.value_or(y.sources) &&
         a.dests.value_or(x.dests) == b.dests.value_or(y.dests) && x.split == y.split && a.split == b.split &&
         x.blocks == y.blocks && a.block == b.block;
}

int unit_in(const Schedule& s, const View& v) {
  const Chunks chunks = chunks_of(s, v);
  const int all = chunks.end - chunks.begin;
  return at(s, v).order == Order::by_token ? all : std::min(unit_of(at(s, v)), all);
}

bool same_rows(const Schedule& s, const View& a, const View& b) {
  const Buffer &x = at(s, a), &y = at(s, b);
  return x.symbol == y.symbol && x.order == y.order && chunks_of(s, a) == chunks_of(s, b) &&
         unit_in(s, a) == unit_in(s, b) && same_selection(s, a, b);
}

bool names_peer(const View& v) {
  return (v.sources && v.sources->base == Who::peer) || (v.dests && v.dests->base == Who::peer) ||
         (v.split && v.split->who == Who::peer) || v.block == Who::peer;
}

}  // namespace topomoe
