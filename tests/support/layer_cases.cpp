#include "tests/support/layer_cases.hpp"

#include <algorithm>
#include <numeric>

namespace topomoe::testing {

std::uint64_t Draw::next() {
  state_ += 0x9E3779B97F4A7C15ULL;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

std::vector<Fold> folds(int ranks) {
  std::vector<Fold> all;
  for (int tp = 1; tp <= 8; ++tp)
    for (int ep = 1; ep <= 8; ++ep)
      for (const int etp : tp == 1 ? std::vector{1} : std::vector{1, tp})
        if (std::lcm(tp, etp * ep) <= ranks) all.push_back({tp, ep, etp});
  for (int tp = 1; tp <= 8; ++tp)  // MoEShard
    for (const int etp : {2, 3, 4, 8})
      if (etp != tp && std::lcm(tp, etp) <= ranks) all.push_back({tp, 1, etp});
  return all;
}

std::string name(const Fold& f) {
  return "tp" + std::to_string(f.tp) + "_ep" + std::to_string(f.ep) + "_etp" + std::to_string(f.etp);
}

namespace {

// By owner: a TP group, or a rank under sequence parallelism.
std::vector<int> draw_tokens(int owners, Draw& draw) {
  const auto count = static_cast<std::size_t>(owners);
  std::vector<int> tokens(count, 0);
  const auto somebody = static_cast<std::size_t>(draw.below(owners));
  switch (draw.below(8)) {
    case 0: break;                         // nobody has any
    case 1: tokens[somebody] = 1; break;   // one in all
    case 2: tokens[somebody] = 17; break;  // all with one
    case 3:                                // all but one
      for (int& t : tokens) t = 1 + draw.below(11);
      tokens[somebody] = 0;
      break;
    case 4:
    case 5:
      for (int& t : tokens) t = draw.of({2, 3, 5, 7, 11, 13, 17});
      break;
    default:
      for (int& t : tokens) t = draw.below(14);
  }
  return tokens;
}

}  // namespace

DrawnCase draw_case(const Fold& f, bool sequence_parallel, DType dtype, int ranks, Draw& draw) {
  DrawnCase out;
  LayerCase& c = out.c;
  const int smallest = std::lcm(f.tp, f.etp * f.ep);
  const int world = smallest * (1 + draw.below(ranks / smallest));
  c.layout =
      layout(world, f.tp, f.etp, f.ep, sequence_parallel, draw.of({ExpertOrder::ep_inner, ExpertOrder::edp_inner}));
  c.gpus_per_node = draw.of({2, 4, 8, 16});
  const int top_k = draw.of({1, 2, 2, 3});
  const int experts = f.ep * ((top_k + f.ep - 1) / f.ep + draw.below(3));
  c.shape = {draw.of({5, 8, 12}), f.etp * draw.of({2, 3}), experts, top_k, draw.coin()};
  c.tokens = draw_tokens(sequence_parallel ? world : world / f.tp, draw);
  c.dtype = dtype;
  do {
    c.seed = draw.next() % 1000000;
    out.expected = expect_layer(c);
  } while (!out.expected.decided);
  return out;
}

ExpertOwners draw_owners(int experts, int ep, Draw& draw) {
  const int kind = draw.below(4);
  if (kind == 0) return {};
  ExpertOwners owners(static_cast<std::size_t>(experts));
  for (auto& its : owners) its = {draw.below(ep)};
  if (kind == 1) std::sort(owners.begin(), owners.end());
  if (kind == 3)
    for (auto& its : owners)
      for (int more = draw.below(3); more > 0; --more)
        if (const int place = draw.below(ep); std::find(its.begin(), its.end(), place) == its.end())
          its.push_back(place);
  return owners;
}

ScheduleRequest request(const Layout& l, TokenSplit split, int chunks, int pieces) {
  return {split, l.tp, l.etp, l.ep, l.sequence_parallel, chunks, pieces == 0 ? chunks : pieces};
}

int draw_pieces(int chunks, Draw& draw) {
  int pieces = 1 + draw.below(chunks);
  while (chunks % pieces != 0) --pieces;
  return pieces;
}

ScheduleRequest draw_backward(ScheduleRequest r, Draw& draw) {
  if (draw.below(3) == 0) return r;
  r.backward_chunks = draw.coin() ? r.chunks : draw.of({1, 2, 3, 4, 6});
  r.backward_pieces = draw_pieces(r.backward_chunks, draw);
  return r;
}

Layout layout(int world, int tp, int etp, int ep, bool sequence_parallel, ExpertOrder order) {
  Layout l = make_layout(world, tp, 1, 1, etp, ep, order);
  l.sequence_parallel = sequence_parallel;
  return l;
}

std::vector<std::string_view> transport_names() {
  std::vector<std::string_view> names;
  for (const Transport& t : transports()) names.push_back(t.name);
  return names;
}

bool applies(std::string_view transport, const Layout& l, int gpus_per_node) {
  const Transport& t = find_transport(transport);
  return t.refuses(request(l, TokenSplit::sliced, 1)).empty() && (!t.needs_even_nodes || even_nodes(l, gpus_per_node));
}

}  // namespace topomoe::testing
