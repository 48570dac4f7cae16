#include "tests/support/whole_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <optional>

#include "planner/schedules/build.hpp"
#include "runtime/host_exchange.hpp"
#include "tests/support/soon.hpp"
#include "tests/support/whole_tensors.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

using namespace whole;
using Bytes = std::vector<std::byte>;

// Largest difference over the largest value. Assumed for tests of this size, as the rehearsal's bounds are: fp32 adds
// tens of terms in another order, bf16 rounds to 8 bits on the way.
template <class Got>
void judge(std::vector<std::string>& wrong, const WholeCase& c, const std::string& what, const Got& got,
           const Values& want) {
  const double bound = c.shape.dtype == DType::f32 ? 1e-5 : 4e-2;
  double difference = got.size() == want.size() ? 0 : HUGE_VAL, largest = 0;
  for (Index i = 0; i < std::min(got.size(), want.size()); ++i) {
    const double off = std::abs(static_cast<double>(got[i]) - want[i]);
    difference = off <= difference ? difference : std::isnan(off) ? HUGE_VAL : off;
    largest = std::max(largest, std::abs(want[i]));
  }
  if (!(difference <= bound * largest))
    wrong.push_back(describe(c) + ": " + what + " off by " + std::to_string(difference) + ", largest " +
                    std::to_string(largest));
}

void judge_report(std::vector<std::string>& wrong, const WholeCase& c, const RouterReport& got, const WholeResult& want,
                  Index part, int tokens) {
  const auto loss = [&](const char* what, double value, double expected) {
    if (!(std::abs(value - expected) <= 1e-5 * (1e-3 + expected)))
      wrong.push_back(describe(c) + ": " + what + " " + std::to_string(value) + ", by definition " +
                      std::to_string(expected));
  };
  loss("balance loss", got.balance_loss, want.balance[part]);
  loss("z loss", got.z_loss, want.z[part]);
  const auto chosen = std::accumulate(got.chosen.begin(), got.chosen.end(), std::int64_t{0});
  // Rounds are cut anew among the ranks of a TP group.
  if (c.options.tokens == 0 && chosen != tokens * c.shape.top_k)
    wrong.push_back(describe(c) + ": " + std::to_string(chosen) + " choices of " + std::to_string(tokens) + " tokens");
}

}  // namespace

WholeRank run_rank(const WholeCase& c, Communicator& communicator, Device& device, int steps,
                   const std::function<void(int step)>& after_step) {
  const int rank = communicator.rank(), group = rank / c.layout.tp;
  const DType dtype = c.shape.dtype;
  const Bytes x = encode(held_part(c, rank, drawn(c, group, Salt::x)), dtype),
              dy = encode(held_part(c, rank, drawn(c, group, Salt::dy)), dtype);
  WholeRank out;
  out.y.resize(x.size()), out.dx.resize(x.size());
  WholeWeights all = weights_of(c);
  const auto blocks = blocks_of(c, rank);
  std::vector<Bytes> weights;
  for (Index i = 0; i < blocks.size(); ++i) {
    Values held;
    blocks[i].each([&](Index at, Index) { held.push_back((*all.all()[i])[at]); });
    out.grads.emplace_back(held.size(), 0.0F);
    weights.push_back(encode(held, is_fp32(i) ? DType::f32 : dtype));
  }
  const Bytes bias = encode(all.bias, DType::f32);
  const auto f32 = [](const Bytes& b) { return b.empty() ? nullptr : reinterpret_cast<const float*>(b.data()); };
  const LayerWeights w{.router = f32(weights[0]),
                       .gate = c.shape.gated ? weights[1].data() : nullptr,  // what has no gate is given none
                       .up = weights[2].data(),
                       .down = weights[3].data(),
                       .selection_bias = f32(bias),
                       .shared_gate = c.shape.gated ? weights[4].data() : nullptr,
                       .shared_up = weights[5].data(),
                       .shared_down = weights[6].data(),
                       .mix = f32(weights[7])};
  auto& d = out.grads;
  const auto of_gate = [&](Index tensor) { return c.shape.gated ? d[tensor].data() : nullptr; };
  const LayerGradients g{d[0].data(), of_gate(1),  d[2].data(), d[3].data(),
                         of_gate(4),  d[5].data(), d[6].data(), d[7].data()};
  MoeLayer layer(build_schedule(c.transport, c.request), c.layout, c.gpus_per_node, c.shape, communicator, device,
                 std::chrono::seconds(60), c.options);
  Bytes other_y(x.size());  // of a second forward in between: nothing of it may leak into the first one's backward
  for (int i = 0; i < steps; ++i) {
    auto handle = layer.forward(x.data(), held_by(c, rank), out.y.data(), w, nullptr, c.keep);
    const auto other = layer.forward(dy.data(), held_by(c, rank), other_y.data(), w, nullptr, c.keep);
    out.report = handle.router(), out.saved_bytes = handle.saved_bytes();
    layer.backward(handle, dy.data(), out.dx.data(), w, g);
    device.synchronize(soon());
    if (after_step) after_step(i);
  }
  layer.sum_over_replicas(g);
  out.counters = layer.counters();
  communicator.barrier();  // before anyone's memory goes
  return out;
}

std::vector<WholeRank> run_threads(const WholeCase& c, int steps) {
  std::vector<WholeRank> ranks(ix(c.layout.world));
  run_inproc(c.layout.world, [&](Communicator& communicator) {
    const auto device = make_cpu_device();
    ranks[ix(communicator.rank())] = run_rank(c, communicator, *device, steps);
  });
  return ranks;
}

std::vector<std::string> check_whole(const std::vector<WholeCase>& cases, Communicator& communicator) {
  std::vector<std::string> wrong;
  HostExchange host(communicator);
  const auto device = make_cpu_device();
  const int rank = communicator.rank();
  for (const WholeCase& c : cases) {
    const WholeRank got = run_rank(c, communicator, *device);
    const bool has_tokens = std::any_of(c.tokens.begin(), c.tokens.end(), [](int n) { return n > 0; });
    if ((got.counters.overflow_rounds > 0) != (c.options.tokens > 0 && has_tokens))
      wrong.push_back(describe(c) + ": " + std::to_string(got.counters.overflow_rounds) + " overflow rounds");
    const WholeWeights weights = weights_of(c);
    WholeWeights expected = zero_weights_like(weights), unused = expected;
    const int t = c.layout.tp, mine = rank / t;
    for (int group = 0; group < c.layout.world / t; ++group) {
      if (rank != 0 && group != mine) continue;
      const auto parts = parts_of(c, group);
      const Values x = drawn(c, group, Salt::x), seen = c.request.fp8_dispatch ? through_fp8(c, x) : x;
      const WholeResult want = run_whole(c.shape, weights, x, drawn(c, group, Salt::dy), parts,
                                         rank == 0 ? expected : unused, nullptr, &seen);
      if (group != mine) continue;
      judge(wrong, c, "output", decode(got.y, c.shape.dtype), held_part(c, rank, want.y));
      judge(wrong, c, "token gradients", decode(got.dx, c.shape.dtype), held_part(c, rank, want.dx));
      const Index part = parts.size() == 1 ? 0 : ix(rank % t);
      judge_report(wrong, c, got.report, want, part, parts[part]);
    }
    Values sum;
    for (const auto& share : host.gather("gradients of weights", share_of(c, rank, got.grads))) {
      sum.resize(share.size());
      for (Index i = 0; i < share.size(); ++i) sum[i] += share[i];
    }
    if (rank != 0) continue;
    const char* const names[] = {"router", "gate", "up", "down", "shared gate", "shared up", "shared down", "mix"};
    auto first = sum.begin();
    for (Index i = 0; i < expected.all().size(); ++i) {
      const Values& want = *expected.all()[i];
      const auto end = first + static_cast<std::ptrdiff_t>(want.size());
      judge(wrong, c, std::string(names[i]) + " gradients", Values(first, end), want);
      first = end;
    }
  }
  return wrong;
}

void expect_definition(const std::vector<WholeCase>& cases) {
  if (cases.empty()) return;
  std::mutex mutex;
  run_inproc(cases.front().layout.world, [&](Communicator& communicator) {
    const auto wrong = check_whole(cases, communicator);
    const std::lock_guard lock(mutex);
    for (const std::string& line : wrong) ADD_FAILURE() << line;
  });
}

}  // namespace topomoe::testing
