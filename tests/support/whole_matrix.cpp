// The cases that whole_layer runs.
#include <utility>

#include "planner/schedules/build.hpp"
#include "tests/support/whole_layer.hpp"

namespace topomoe::testing {
namespace {

SharedPart part_of(const LayerShape& s) {
  return s.shared_ffn == 0                   ? SharedPart::none
         : s.shared_gate == SharedGate::none ? SharedPart::added
                                             : SharedPart::mixed;
}

// In blocks by id; each expert anywhere; every other one at two places.
enum class Owners : std::uint8_t { even, scattered, replicated };

ExpertOwners owners_of(Owners which, int experts, int ep) {
  ExpertOwners out;
  for (int e = 0; e < experts && which != Owners::even; ++e) {
    const int place = (3 * e + 1) % ep, next = (place + 1) % ep;
    out.push_back({place});
    if (which == Owners::replicated && e % 2 == 0 && next != place)
      out.back() = e % 4 == 0 ? std::vector{next, place} : std::vector{place, next};
  }
  return out;
}

// Several of what may stand around the experts at once.
struct Around {
  LayerShape shape;
  Owners owners;
  bool biased;
  MoeLayer::Keep keep;
  LayerOptions options;
  std::vector<int> tokens;  // empty: as each intake has them
  bool fp8_dispatch = false;
};

std::vector<Around> surroundings() {
  using Keep = MoeLayer::Keep;
  const LayerShape f32 = whole_shape(), bf16 = whole_shape(DType::bf16);
  const auto with = [](LayerShape s, float balance_loss, float z_loss, double capacity_factor) {
    s.router.balance_loss = balance_loss, s.router.z_loss = z_loss, s.capacity_factor = capacity_factor;
    return s;
  };
  const LayerShape v3_residual = deepseek_v3(with_shared(f32, SharedGate::residual)),
                   v3_gated = deepseek_v3(with_shared(f32, SharedGate::sigmoid));
  constexpr LayerOptions kUnbounded{}, kSmall{2, 1};
  return {
      {with(v3_residual, 0.5F, 0.1F, 0), Owners::replicated, true, Keep::all, kUnbounded, {}},
      {with(with_shared(f32, SharedGate::none), 0.5F, 0.1F, 0.8), Owners::even, false, Keep::routing, kUnbounded, {}},
      {v3_gated, Owners::replicated, true, Keep::routing, kSmall, {}},
      {with_shared(bf16, SharedGate::residual), Owners::scattered, false, Keep::all, kSmall, {}},
      {with(bf16, 0, 0.1F, 0.7), Owners::replicated, false, Keep::routing, kUnbounded, {}},
      {with(v3_residual, 0.5F, 0.1F, 0.8), Owners::scattered, true, Keep::routing, kUnbounded, {0}},
      {v3_residual, Owners::even, true, Keep::all, kSmall, {0, 9}},
      {without_gate(v3_residual), Owners::replicated, true, Keep::routing, kUnbounded, {}},
      {without_gate(bf16), Owners::scattered, false, Keep::all, kSmall, {}},
      {with(v3_residual, 0.5F, 0.1F, 0), Owners::replicated, true, Keep::routing, kUnbounded, {}, true},
      {with_shared(bf16, SharedGate::none), Owners::scattered, false, Keep::all, kSmall, {}, true}};
}

}  // namespace

std::string describe(const WholeCase& c) {
  std::string out = c.transport + " " + std::string(name(c.request.split)) + " n=" + std::to_string(c.request.chunks) +
                    ", " + name(c.layout) + (c.layout.sequence_parallel ? " sp" : "") + ", tokens";
  for (const int t : c.tokens) out += " " + std::to_string(t);
  const LayerShape& s = c.shape;
  if (s.shared_ffn > 0)
    out += ", shared " + std::to_string(s.shared_ffn) + " gate " + std::to_string(static_cast<int>(s.shared_gate));
  if (!s.gated) out += ", no gate";
  if (c.request.fp8_dispatch) out += ", fp8 out";
  if (s.router.scoring == Scoring::sigmoid) out += ", sigmoid";
  if (s.router.losses()) out += ", losses";
  if (s.capacity_factor > 0) out += ", capacity factor " + std::to_string(s.capacity_factor);
  if (!s.expert_owners.empty()) out += ", placed";
  if (c.keep == MoeLayer::Keep::routing) out += ", keeps routing";
  if (c.options.tokens > 0) out += ", bounded";
  return out + (s.dtype == DType::bf16 ? ", bf16" : "");
}

bool applies(const WholeCase& c) {
  return find_transport(c.transport).refuses(c.request).empty() && applies(c.transport, c.layout, c.gpus_per_node);
}

LayerShape whole_shape(DType dtype) { return {12, 8, 8, 3, true, dtype}; }

LayerShape with_shared(LayerShape s, SharedGate gate) {
  s.shared_ffn = 10, s.shared_gate = gate;
  return s;
}

LayerShape without_gate(LayerShape s) {
  s.gated = false;
  return s;
}

LayerShape deepseek_v3(LayerShape s) {
  s.router = {.scoring = Scoring::sigmoid, .groups = 4, .topk_groups = 2, .scale = 2.5F};
  return s;
}

WholeCase whole_case(const Layout& l, const LayerShape& shape, TokenSplit split, int chunks, int back) {
  WholeCase c{.layout = l, .shape = shape};
  c.tokens = l.sequence_parallel ? std::vector{4, 3, 0, 5} : std::vector{7, 4, 5};
  c.request = {split, l.tp, l.etp, l.ep, l.sequence_parallel, chunks, chunks, back, back, part_of(shape), shape.gated};
  return c;
}

std::vector<WholeCase> each_intake(const LayerShape& shape, int chunks, int back) {
  std::vector<WholeCase> out{whole_case(layout(4, 1, 1, 4), shape, TokenSplit::sliced, chunks, back)};
  for (const int etp : {1, 2})
    for (const bool sp : {false, true})
      for (const TokenSplit split : {TokenSplit::sliced, TokenSplit::replicated})
        out.push_back(whole_case(layout(4, 2, etp, etp == 1 ? 4 : 2, sp), shape, split, chunks, back));
  return out;
}

std::vector<WholeCase> under_each_transport(const std::vector<WholeCase>& cases) {
  std::vector<WholeCase> out;
  for (const WholeCase& c : cases)
    for (const Transport& t : transports()) {
      WholeCase other = c;
      other.transport = t.name;
      if (applies(other)) out.push_back(std::move(other));
    }
  return out;
}

std::vector<WholeCase> whole_matrix() {
  std::vector<WholeCase> out;
  for (const Around& a : surroundings()) {
    auto cases = each_intake(a.shape, 2, 3);
    // Every expert on every rank, in shards: MoEShard.
    cases.push_back(whole_case(layout(4, 2, 4, 1), a.shape, TokenSplit::sliced, 3));
    for (WholeCase& c : cases) {
      c.shape.expert_owners = owners_of(a.owners, a.shape.experts, c.layout.ep);
      c.request.fp8_dispatch = a.fp8_dispatch;
      c.biased = a.biased, c.keep = a.keep, c.options = a.options;
      if (!a.tokens.empty()) c.tokens = a.tokens;
    }
    const auto all = under_each_transport(cases);
    out.insert(out.end(), all.begin(), all.end());
  }
  return out;
}

}  // namespace topomoe::testing
