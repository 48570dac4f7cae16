// The whole layer under several schedules, forward and backward: what an embedder's call takes.
//
// Weights and gradients are one set for all. The router's matrix is the unit matrix as far as there are experts, and a
// token has falling figures where its experts are: so it chooses what was drawn, in that order, under any scoring.
#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <set>

#include "runtime/bench_rounds.hpp"
#include "runtime/caller_tensor.hpp"
#include "topomoe/adaptive_layer.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using namespace benching;
using Index = std::size_t;

// The first pass of a layer allocates slot by slot, the second lays out its arenas.
constexpr int kPassesToSettle = 2;

// Uniform in [-scale, scale), alike on all machines: a linear congruential generator (Numerical Recipes' constants).
std::vector<float> noise(Index size, double scale, std::uint32_t seed) {
  std::vector<float> out(size);
  for (float& x : out) {
    seed = seed * 1664525U + 1013904223U;
    x = static_cast<float>(scale * (static_cast<double>(seed) * 0x1p-31 - 1));
  }
  return out;
}

double scale_of(std::int64_t width) { return 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, width))); }

std::vector<float> unit_router(const LayerShape& s) {
  std::vector<float> out(static_cast<Index>(s.experts * s.hidden));
  for (int e = 0; e < s.experts; ++e) out[static_cast<Index>(e * s.hidden + e)] = 1;
  return out;
}

// Figures fall from 8 in steps that are a power of two, so that bf16 holds them and no weight underflows.
std::vector<float> tokens_choosing(const std::vector<std::int32_t>& ids, const LayerShape& s) {
  const auto k = static_cast<Index>(s.top_k), hidden = static_cast<Index>(s.hidden),
             experts = static_cast<Index>(s.experts);
  const float step = 8.0F / static_cast<float>(std::bit_ceil(std::max<Index>(8, k)));
  std::vector<float> out = noise(ids.size() / k * hidden, 0.125, 7);
  for (Index t = 0; t < ids.size() / k; ++t) {
    std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(t * hidden), experts, 0.0F);
    for (Index i = 0; i < k; ++i)
      out[t * hidden + static_cast<Index>(ids[t * k + i])] = step * static_cast<float>(k - i);
  }
  return out;
}

// What an embedder hands to a layer.
struct Caller {
  Caller(const BenchCase& b, const RankGroups& groups, Device& device, int rank)
      : Caller(b.shape, b.layout, held_by(b, groups, rank).size(), drawn_ids(b, groups, rank, held_by(b, groups, rank)),
               ExpertPlacement(b.shape.experts, b.layout.ep, b.shape.expert_owners)
                   .held_by(groups.index_in(Role::ep, rank))
                   .size(),
               device) {}
  Caller(const LayerShape& s, const Layout& l, std::int64_t its_rows, const std::vector<std::int32_t>& ids,
         Index experts_here, Device& device)
      : rows(its_rows),
        x(device, encode(tokens_choosing(ids, s), s.dtype)),
        dy(device, encode(noise(x.bytes / size_of(s.dtype), 1, 11), s.dtype)),
        y(device, x.bytes),
        dx(device, x.bytes),
        router(device, as_bytes(unit_router(s))),
        up(device, encode(noise(experts_here * matrix(s.ffn / l.etp, s), scale_of(s.hidden), 13), s.dtype)),
        down(device, encode(noise(experts_here * matrix(s.ffn / l.etp, s), scale_of(s.ffn), 17), s.dtype)),
        shared(device, encode(noise(matrix(s.shared_ffn / l.tp, s), scale_of(s.hidden), 19), s.dtype)),
        mix(device, as_bytes(noise(static_cast<Index>(2 * s.hidden), scale_of(s.hidden), 23))),
        d_router(device, router.bytes),
        d_gate(device, up.bytes / size_of(s.dtype) * 4),
        d_up(device, d_gate.bytes),
        d_down(device, d_gate.bytes),
        d_shared_gate(device, shared.bytes / size_of(s.dtype) * 4),
        d_shared_up(device, d_shared_gate.bytes),
        d_shared_down(device, d_shared_gate.bytes),
        d_mix(device, mix.bytes) {
    for (const CallerTensor* t :
         {&y, &dx, &d_router, &d_gate, &d_up, &d_down, &d_shared_gate, &d_shared_up, &d_shared_down, &d_mix})
      device.zero(Lane::compute, t->memory.get(), t->bytes);
    device.synchronize(std::chrono::steady_clock::now() + kDeadline);
  }
  static Index matrix(std::int64_t width, const LayerShape& s) { return static_cast<Index>(width * s.hidden); }
  // gate and up may be the same memory: nothing writes either.
  LayerWeights weights() const {
    const void* const its = shared.memory.get();
    return {router.floats(), up.memory.get(), up.memory.get(), down.memory.get(), nullptr, its, its, its, mix.floats()};
  }
  LayerGradients gradients() const {
    return {d_router.floats(),      d_gate.floats(),      d_up.floats(),          d_down.floats(),
            d_shared_gate.floats(), d_shared_up.floats(), d_shared_down.floats(), d_mix.floats()};
  }

  std::int64_t rows;
  CallerTensor x, dy, y, dx, router, up, down, shared, mix;
  CallerTensor d_router, d_gate, d_up, d_down, d_shared_gate, d_shared_up, d_shared_down, d_mix;
};

// n of a pass: a plan may cut its passes unlike each other.
int chunks_of(const std::vector<Step>& steps) {
  std::set<int> chunks;
  for (const Step& s : steps)
    if (!s.metadata && (s.kind == StepKind::exchange || s.kind == StepKind::all_gather)) chunks.insert(s.chunk);
  return std::max(1, static_cast<int>(chunks.size()));
}

void wait_for(const MoeLayer::Handle& handle) {
  if (handle.done()) handle.done()->wait(std::chrono::steady_clock::now() + kDeadline);
}

}  // namespace

std::optional<std::vector<BenchRow>> bench_layer(std::span<const Schedule> schedules, const BenchCase& b,
                                                 Communicator& communicator, Device& device) {
  check(b, communicator);
  if (b.shape.hidden < b.shape.experts)
    throw InvalidInput("hidden", std::to_string(b.shape.hidden),
                       "at least as many as experts, " + std::to_string(b.shape.experts) +
                           ": a token says by its first figures which ones it wants");
  HostExchange host(communicator);
  CountingCommunicator counting(communicator);
  const RankGroups groups(b.layout, b.ranks_per_host);
  const Caller caller(b, groups, device, communicator.rank());
  const LayerWeights weights = caller.weights();
  const LayerGradients gradients = caller.gradients();
  AdaptiveLayer layers({schedules.begin(), schedules.end()}, b.layout, b.ranks_per_host, b.shape, counting, device,
                       kDeadline);
  std::optional<MoeLayer::Handle> handle;
  std::vector<Timed> timed;
  for (int i = 0; i < layers.schedules(); ++i) {
    MoeLayer& layer = layers.by(i);
    timed.emplace_back([&] {
      handle.emplace(layer.forward(caller.x.memory.get(), caller.rows, caller.y.memory.get(), weights));
      wait_for(*handle);
      if (!b.backward) handle.reset();
    });
    if (b.backward)
      timed.emplace_back([&] {
        layer.backward(*handle, caller.dy.memory.get(), caller.dx.memory.get(), weights, gradients);
        wait_for(*handle);
        handle.reset();
      });
  }
  for (int i = 0; i < kPassesToSettle; ++i)
    for (const Timed& run : timed) run();
  const auto measured = time_in_rounds(timed, b, host, counting, device);
  if (communicator.rank() != 0) return std::nullopt;
  std::vector<BenchRow> rows;
  for (const Schedule& s : schedules) {
    const DrawnCounts counts = drawn_counts(b, s, groups);
    for (const bool backward : {false, true}) {
      if (backward && !b.backward) continue;
      const auto& steps = backward ? s.backward : s.forward;
      BenchRow& row = rows.emplace_back(row_of(s, steps, b, groups, counts, measured[rows.size()]));
      row.pass = backward ? "backward" : "forward", row.chunks = chunks_of(steps);
    }
  }
  return rows;
}

}  // namespace topomoe
