// What executing a schedule costs beside the work itself: CPU time of a rank's thread, per step, of layers whose
// tensors are nearly empty (a token or two a rank, rows of 4 floats), forward and backward. `Time` is that figure: the
// mean over ranks, of one step. Waiting ranks sleep, so that it does not grow with the load of the machine, only with
// its noise.

#include <benchmark/benchmark.h>
#include <time.h>

#include <numeric>
#include <vector>

#include "planner/schedules/build.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/moe_layer.hpp"

namespace topomoe {
namespace {

double thread_cpu_s() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Tensors {
  Tensors(const LayerShape& s, std::int64_t rows, int local_experts)
      : router(static_cast<std::size_t>(s.experts * s.hidden), 0.01F),
        matrix(static_cast<std::size_t>(local_experts * s.hidden * s.ffn), 0.1F),
        tokens(static_cast<std::size_t>(rows * s.hidden)),
        output(tokens.size()),
        router_gradient(router.size()),
        gradient(matrix.size()) {
    std::iota(tokens.begin(), tokens.end(), 1.0F);
  }
  LayerWeights weights() const { return {router.data(), matrix.data(), matrix.data(), matrix.data()}; }
  LayerGradients gradients() { return {router_gradient.data(), gradient.data(), gradient.data(), gradient.data()}; }

  std::vector<float> router, matrix, tokens, output, router_gradient, gradient;
};

void overhead(benchmark::State& state, const char* transport) {
  constexpr int kWarmUp = 3, kPasses = 30;
  const int ep = static_cast<int>(state.range(0)), chunks = static_cast<int>(state.range(1));
  const Layout layout = make_layout(ep, 1, 1, 1, 1, ep);
  const int gpus_per_node = ep > 2 ? ep / 2 : ep;
  const LayerShape shape{.hidden = 4, .ffn = 4, .experts = 4 * ep, .top_k = 2};
  const Schedule schedule = build_schedule(
      transport, {.split = TokenSplit::sliced, .tp = 1, .etp = 1, .ep = ep, .chunks = chunks, .pieces = chunks});
  const double steps = static_cast<double>(schedule.forward.size() + schedule.backward.size());
  for (auto _ : state) {
    std::vector<double> cpu_s(static_cast<std::size_t>(ep));
    run_inproc(ep, [&](Communicator& communicator) {
      const auto device = make_cpu_device();
      const std::int64_t rows = 1 + communicator.rank() % 2;
      Tensors t(shape, rows, shape.experts / ep);
      MoeLayer layer(schedule, layout, gpus_per_node, shape, communicator, *device);
      const auto pass = [&] {
        auto handle = layer.forward(t.tokens.data(), rows, t.output.data(), t.weights());
        layer.backward(handle, t.tokens.data(), t.output.data(), t.weights(), t.gradients());
      };
      for (int i = 0; i < kWarmUp; ++i) pass();
      const double begin = thread_cpu_s();
      for (int i = 0; i < kPasses; ++i) pass();
      cpu_s[static_cast<std::size_t>(communicator.rank())] = thread_cpu_s() - begin;
    });
    state.SetIterationTime(std::accumulate(cpu_s.begin(), cpu_s.end(), 0.0) / (ep * kPasses * steps));
  }
  state.counters["steps"] = steps;
}

#define OVERHEAD(transport)                          \
  BENCHMARK_CAPTURE(overhead, transport, #transport) \
      ->ArgNames({"ep", "chunks"})                   \
      ->Args({2, 1})                                 \
      ->Args({2, 8})                                 \
      ->Args({16, 1})                                \
      ->Args({16, 8})                                \
      ->UseManualTime()                              \
      ->Iterations(5)                                \
      ->Unit(benchmark::kMicrosecond)
OVERHEAD(flat);
OVERHEAD(two_level);
OVERHEAD(node_dedup);

}  // namespace
}  // namespace topomoe

BENCHMARK_MAIN();
