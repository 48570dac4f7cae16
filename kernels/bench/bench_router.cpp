// The router's choice: scores and top-k from logits that are there, [rows, 256] fp32, bytes of logits counted. And what
// dispatch would cost as a product with a one-hot mask (GShard's einsum), beside the index map that replaces it.
#include <algorithm>
#include <cstring>
#include <random>

#include "kernels/bench/peaks.hpp"
#include "kernels/cpu_context.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/matmul.hpp"
#include "kernels/router_rows.hpp"

namespace topomoe::bench {
namespace {

using kernels::CpuContext;

void top_k(benchmark::State& state, const RouterOptions& options, bool biased, bool renormalize = true) {
  kernels::ThreadPool pool(static_cast<int>(state.range(0)));
  constexpr std::int64_t kRows = 1 << 18;
  constexpr int kExperts = 256, kChosen = 8;
  static_assert(kRows * kExperts * 4 <= kMemoryBytes / 2);
  auto* const logits = reinterpret_cast<float*>(memory());
  // Normal numbers, as logits are about: a row of them again and again, begun elsewhere each time.
  std::minstd_rand engine(3);
  std::vector<float> drawn(1 << 16), bias(kExperts, 0.01F), weights(kRows * kChosen);
  for (float& x : drawn) x = std::normal_distribution<float>(0.0F, 2.0F)(engine);
  for (std::int64_t row = 0; row < kRows; ++row)
    std::copy_n(drawn.begin() + std::uniform_int_distribution<int>(0, (1 << 16) - kExperts)(engine), kExperts,
                logits + row * kExperts);
  std::vector<std::int32_t> ids(kRows * kChosen);
  const kernels::Router op{.bias = biased ? bias.data() : nullptr,
                           .logits = logits,
                           .ids = ids.data(),
                           .weights = weights.data(),
                           .rows = kRows,
                           .experts = kExperts,
                           .k = kChosen,
                           .renormalize = renormalize,
                           .options = options};
  const auto route = kernels::route_rows(kernels::best_isa());
  const Limit limits[] = {Limit::read};
  run_against(
      state, pool, limits, "GBps", 4.0 * kRows * kExperts, [](const Peaks& p) { return p.read; },
      [&] {
        share(CpuContext(kernels::best_isa(), &pool), kRows, kernels::operations_of_row(kernels::best_isa(), kExperts),
              [&](std::int64_t first, std::int64_t last) { route(op, first, last); });
      });
  for (std::size_t i = 0; i < kMemoryBytes / 2; i += std::size_t{2} << 20)  // as memory() promises
    std::memcpy(memory() + i, memory() + kMemoryBytes / 2, std::size_t{2} << 20);
}
void top_k_softmax(benchmark::State& state) { top_k(state, {}, false); }
void top_k_softmax_of_all(benchmark::State& state) { top_k(state, {}, false, false); }
void top_k_softmax_grouped(benchmark::State& state) { top_k(state, {.groups = 8, .topk_groups = 3}, false, false); }
void top_k_sigmoid(benchmark::State& state) { top_k(state, {.scoring = Scoring::sigmoid}, false); }
void top_k_sigmoid_biased(benchmark::State& state) { top_k(state, {.scoring = Scoring::sigmoid}, true); }
void top_k_sigmoid_grouped(benchmark::State& state) {
  top_k(state, {.scoring = Scoring::sigmoid, .groups = 8, .topk_groups = 4, .scale = 2.5F}, true);
}

// 1,024 tokens of 1,024 elements to 2 of 64 experts with room for 32 rows each.
constexpr std::int64_t kTokens = 1024, kColumns = 1024, kSlots = 64 * 32;

std::vector<std::int32_t> slots() {
  std::vector<std::int32_t> out(kSlots);
  for (std::int64_t i = 0; i < kSlots; ++i) out[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i / 2);
  std::shuffle(out.begin(), out.end(), std::minstd_rand(5));
  return out;
}

void report_bytes(benchmark::State& state, std::int64_t moved) { state.counters["bytes"] = static_cast<double>(moved); }

void dispatch_by_mask(benchmark::State& state) {
  const auto source = slots();
  std::vector<float> mask(kTokens * kSlots), tokens(kTokens * kColumns, 1.0F), out(kSlots * kColumns);
  for (std::int64_t s = 0; s < kSlots; ++s)
    mask[static_cast<std::size_t>(source[static_cast<std::size_t>(s)] * kSlots + s)] = 1.0F;
  kernels::ThreadPool pool(1);
  const Limit limits[] = {Limit::copy};
  constexpr std::int64_t kBytes = 4 * (kTokens * kSlots + (kTokens + kSlots) * kColumns);
  run_against(
      state, pool, limits, "GBps", static_cast<double>(kBytes), [](const Peaks& p) { return p.copy; },
      [&] {
        matmul_cpu({.a = mask.data(),
                    .b = tokens.data(),
                    .c = out.data(),
                    .m = kSlots,
                    .n = kColumns,
                    .k = kTokens,
                    .a_transposed = true,
                    .row_invariant = false},
                   CpuContext(kernels::best_isa(), &pool));
      });
  report_bytes(state, kBytes);
}
void dispatch_by_index(benchmark::State& state) {
  const auto source = slots();
  std::vector<float> tokens(kTokens * kColumns, 1.0F), out(kSlots * kColumns);
  kernels::ThreadPool pool(1);
  const Limit limits[] = {Limit::copy};
  constexpr std::int64_t kBytes = 4 * (kSlots + 2 * kSlots * kColumns);
  run_against(
      state, pool, limits, "GBps", static_cast<double>(kBytes), [](const Peaks& p) { return p.copy; },
      [&] {
        gather_rows_cpu(
            {.out = out.data(), .in = tokens.data(), .source_row = source.data(), .rows = kSlots, .columns = kColumns},
            CpuContext(kernels::best_isa(), &pool));
      });
  report_bytes(state, kBytes);
}

void top_k_rows(benchmark::internal::Benchmark* row) {
  row->ArgNames({"threads"})->ArgsProduct({thread_counts()})->UseManualTime()->Iterations(9);
}
BENCHMARK(top_k_softmax)->Apply(top_k_rows);          // renormalized: Mixtral, Qwen3
BENCHMARK(top_k_softmax_of_all)->Apply(top_k_rows);   // not
BENCHMARK(top_k_softmax_grouped)->Apply(top_k_rows);  // not: DeepSeek-V2
BENCHMARK(top_k_sigmoid)->Apply(top_k_rows);
BENCHMARK(top_k_sigmoid_biased)->Apply(top_k_rows);   // Kimi-K2
BENCHMARK(top_k_sigmoid_grouped)->Apply(top_k_rows);  // biased: DeepSeek-V3
BENCHMARK(dispatch_by_mask)->UseManualTime()->Iterations(5);
BENCHMARK(dispatch_by_index)->UseManualTime()->Iterations(5);

}  // namespace
}  // namespace topomoe::bench
