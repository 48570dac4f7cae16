#include "tests/support/whole_tensors.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/convert_rows.hpp"
#include "kernels/fp8.hpp"

namespace topomoe::testing {

std::vector<int> parts_of(const WholeCase& c, int group) {
  const int t = c.layout.tp, all = whole::held_by(c, group * t);
  std::vector<int> parts;
  for (int i = 0; i < t; ++i)
    parts.push_back(c.layout.sequence_parallel ? whole::held_by(c, group * t + i) : all * (i + 1) / t - all * i / t);
  if (t > 1 && c.request.split == TokenSplit::replicated)
    return {c.layout.sequence_parallel ? std::accumulate(parts.begin(), parts.end(), 0) : all};
  return parts;
}

namespace whole {
namespace {

int place_of(const WholeCase& c, int rank) { return index_in(c.layout, Role::ep, rank, c.gpus_per_node); }
bool is_of_experts(Index tensor) { return 1 <= tensor && tensor <= 3; }

// Each replica has the sum over all of them: one counts, another one of each expert.
bool counts_for(const WholeCase& c, Index expert, int place) {
  const ExpertOwners& owners = c.shape.expert_owners;
  return owners.empty() || owners[expert][expert % owners[expert].size()] == place;
}

}  // namespace

int held_by(const WholeCase& c, int rank) {
  return c.tokens[ix(c.layout.sequence_parallel ? rank : rank / c.layout.tp) % c.tokens.size()];
}

Values held_part(const WholeCase& c, int rank, const Values& group) {
  std::ptrdiff_t first = 0;
  if (c.layout.sequence_parallel)
    for (int before = rank - rank % c.layout.tp; before < rank; ++before) first += held_by(c, before);
  return {group.begin() + first * c.shape.hidden, group.begin() + (first + held_by(c, rank)) * c.shape.hidden};
}

WholeWeights weights_of(const WholeCase& c) {
  WholeWeights w = draw_weights(c.shape, c.biased, 3);
  for (auto* v : {&w.gate, &w.up, &w.down, &w.shared_gate, &w.shared_up, &w.shared_down})
    *v = rounded(*v, c.shape.dtype);
  for (Index i = 0; i < w.router.size() && c.router_sees_first; ++i)
    if (i % ix(c.shape.hidden) >= ix(kFp8ScaleGroup)) w.router[i] = 0;
  for (int e = 0; e < c.shape.experts && c.first_experts; ++e) w.bias.push_back(-2.0 * e);  // scores are in [0, 1]
  return w;
}

Values drawn(const WholeCase& c, int group, Salt salt) {
  const auto parts = parts_of(c, group);
  const int tokens = std::accumulate(parts.begin(), parts.end(), 0);
  const auto seed = static_cast<std::uint64_t>(salt) + static_cast<std::uint64_t>(group);
  Values rows = rounded(random_values(ix(tokens * c.shape.hidden), seed), c.shape.dtype);
  if (salt != Salt::x) return rows;
  // 448 / 256 makes the scale 1/256, and all others are values of e4m3 over 256: 4 bits, in bf16 too.
  for (Index i = 0; i < rows.size() && c.router_sees_first; ++i)
    if (const Index column = i % ix(c.shape.hidden); column < ix(kFp8ScaleGroup))
      rows[i] =
          column == 0
              ? 1.75
              : static_cast<double>(kernels::to_float(kernels::to_fp8(static_cast<float>(rows[i]) * 256.0F))) / 256;
  return c.through_fp8 ? through_fp8(c, rows) : rows;
}

Values through_fp8(const WholeCase& c, const Values& rows) {
  const std::int64_t columns = c.shape.hidden, count = static_cast<std::int64_t>(rows.size()) / columns;
  const std::vector<std::byte> in = encode(rows, c.shape.dtype);
  std::vector<std::byte> out(in.size());
  std::vector<std::uint8_t> codes(rows.size());
  std::vector<float> scales(ix(count * fp8_scales(columns)));
  kernels::to_fp8_cpu({.out = codes.data(),
                       .scales = scales.data(),
                       .in = in.data(),
                       .rows = count,
                       .columns = columns,
                       .dtype = c.shape.dtype},
                      {});
  kernels::from_fp8_cpu({.out = out.data(),
                         .in = codes.data(),
                         .scales = scales.data(),
                         .rows = count,
                         .columns = columns,
                         .dtype = c.shape.dtype},
                        {});
  const std::vector<float> back = decode(out, c.shape.dtype);
  return {back.begin(), back.end()};
}

std::vector<Block> blocks_of(const WholeCase& c, int rank) {
  const Layout& l = c.layout;
  const auto cut = [](std::int64_t n, int parts, int i) { return ix(n * i / parts); };
  const int ep = place_of(c, rank), etp = index_in(l, Role::etp, rank, c.gpus_per_node),
            tp = index_in(l, Role::tp, rank, c.gpus_per_node);
  const Index M = ix(c.shape.hidden), F = ix(c.shape.ffn), S = ix(c.shape.shared_ffn), E = ix(c.shape.experts),
              G = static_cast<Index>(c.shape.shared_gate);
  std::vector<Index> held;
  for (Index e = 0; e < E; ++e) {
    const auto& owners = c.shape.expert_owners;
    if (owners.empty() ? ix(ep) == e / (E / ix(l.ep)) : std::count(owners[e].begin(), owners[e].end(), ep) > 0)
      held.push_back(e);
  }
  const Index f0 = cut(c.shape.ffn, l.etp, etp), f1 = cut(c.shape.ffn, l.etp, etp + 1);
  const Index s0 = cut(c.shape.shared_ffn, l.tp, tp), s1 = cut(c.shape.shared_ffn, l.tp, tp + 1);
  return {{E, M, {0}, 0, E, 0, M},   {F, M, held, f0, f1, 0, M}, {F, M, held, f0, f1, 0, M}, {M, F, held, 0, M, f0, f1},
          {S, M, {0}, s0, s1, 0, M}, {S, M, {0}, s0, s1, 0, M},  {M, S, {0}, 0, M, s0, s1},  {G, M, {0}, 0, G, 0, M}};
}

Values share_of(const WholeCase& c, int rank, const std::vector<std::vector<float>>& grads) {
  WholeWeights sum = zero_weights_like(weights_of(c));
  const auto blocks = blocks_of(c, rank);
  Values flat;
  for (Index i = 0; i < blocks.size(); ++i) {
    Values& whole = *sum.all()[i];
    Index at = 0;
    blocks[i].each([&](Index to, Index outer) {
      const float g = grads[i][at++];
      if (!is_of_experts(i) || counts_for(c, outer, place_of(c, rank))) whole[to] += static_cast<double>(g);
    });
    flat.insert(flat.end(), whole.begin(), whole.end());
  }
  return flat;
}

}  // namespace whole
}  // namespace topomoe::testing
