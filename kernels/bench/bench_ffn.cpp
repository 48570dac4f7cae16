// Experts with packed weights, as many of them that no cache holds their weights, beside what memory and arithmetic
// units give and beside oneDNN: one after the other in turns, medians of each.
//
//   GFLOPS, GBps        of the products, of the weights read
//   fraction_of_peak    the larger of the two over what the machine gives: fraction_of_read, or _of_multiply
//   times_onednn        how many times as fast as oneDNN
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "kernels/bench/ffn_onednn.hpp"
#include "kernels/bench/peaks.hpp"
#include "kernels/bf16.hpp"
#include "kernels/packed_ffn.hpp"

namespace topomoe::bench {
namespace {

constexpr std::int64_t kColdBytes = 700 << 20;     // twice a large last-level cache (300 MiB: Emerald Rapids)
constexpr std::int64_t kMostFlops = 1000LL << 30;  // of a pass, where experts have many rows
constexpr std::int64_t kFewestExperts = 3;

// Threads of GNU OpenMP wait in a loop before they sleep, on the CPUs of whoever comes next.
constexpr std::chrono::milliseconds kOpenMpSpins{20};

using Samples = std::vector<double>;

template <class Body>
double seconds_of(Body body) {
  const double begin = seconds();
  body();
  return seconds() - begin;
}

// Values in [-scale, scale): tiles of zeros would be multiplied faster.
kernels::LargeMemory noise(std::int64_t count, DType dtype, float scale) {
  kernels::LargeMemory memory = kernels::allocate_large(static_cast<std::size_t>(count) * size_of(dtype));
  kernels::with_element(dtype, [&]<class T>(T) {
    std::uint32_t state = 1;
    T* const to = reinterpret_cast<T*>(memory.get());
    for (std::int64_t i = 0; i < count; ++i) {
      state = state * 1664525U + 1013904223U;
      to[i] = kernels::from_float<T>(scale * (static_cast<float>(state >> 8) * 0x1p-23F - 1.0F));
    }
  });
  return memory;
}

struct Case {
  std::int64_t hidden, ffn, rows;
  DType dtype;
  std::int64_t flops() const { return 6 * rows * hidden * ffn; }
  std::int64_t weight_bytes() const { return 3 * hidden * ffn * static_cast<std::int64_t>(size_of(dtype)); }
  std::int64_t experts() const {
    const std::int64_t cold = kColdBytes / weight_bytes(), few = kMostFlops / flops();
    return std::max(kFewestExperts, std::min(cold, few));
  }
};

void packed_ffn(benchmark::State& state, const Case& c, int threads) {
  const Limit arithmetic = c.dtype == DType::bf16 ? Limit::amx : Limit::fma;
  if (const std::string why = missing(arithmetic); !why.empty()) return state.SkipWithError(why.c_str());
  kernels::ThreadPool pool(threads);
  const std::int64_t experts = c.experts(), rows = experts * c.rows, matrix = c.hidden * c.ffn;
  const float scale = 1.0F / 32;
  const kernels::LargeMemory in = noise(rows * c.hidden, c.dtype, 1), out = noise(rows * c.hidden, c.dtype, 1),
                             gate = noise(rows * c.ffn, c.dtype, 1), up = noise(rows * c.ffn, c.dtype, 1),
                             act = noise(rows * c.ffn, c.dtype, 1), w_gate = noise(matrix, c.dtype, scale),
                             w_up = noise(matrix, c.dtype, scale), w_down = noise(matrix, c.dtype, scale);
  std::vector<std::int64_t> offsets;
  for (std::int64_t e = 0; e <= experts; ++e) offsets.push_back(e * c.rows);
  const auto size = static_cast<std::size_t>(experts);
  const std::vector<const void*> gates(size, w_gate.get()), ups(size, w_up.get()), downs(size, w_down.get());
  kernels::GroupedFfn op{.in = in.get(),
                         .out = out.get(),
                         .gate = gate.get(),
                         .up = up.get(),
                         .act = act.get(),
                         .w_gate = ExpertMatrices::one_by_one(gates.data()),
                         .w_up = ExpertMatrices::one_by_one(ups.data()),
                         .w_down = ExpertMatrices::one_by_one(downs.data()),
                         .offsets = offsets,
                         .hidden = c.hidden,
                         .ffn = c.ffn,
                         .dtype = c.dtype};
  const kernels::PackedFfn packed(op, kernels::best_isa(), pool, {});
  const auto onednn = onednn_ffn(op, experts, c.rows, threads);
  op.gate = op.up = op.act = nullptr;  // inference
  kernels::ProductScratch scratch;
  packed.forward(op, pool, scratch, {});

  Samples ours, theirs, reads, products;
  for (auto _ : state) {
    ours.push_back(seconds_of([&] { packed.forward(op, pool, scratch, {}); }));
    state.SetIterationTime(ours.back());
    reads.push_back(measure(Limit::read, pool));
    products.push_back(measure(arithmetic, pool));
    if (!onednn) continue;
    theirs.push_back(seconds_of(onednn));
    std::this_thread::sleep_for(kOpenMpSpins);
  }
  const double s = median(ours), bytes = static_cast<double>(experts * c.weight_bytes()),
               flops = static_cast<double>(experts * c.flops());
  const double of_read = bytes / s / median(reads), of_multiply = flops / s / median(products);
  state.counters["GFLOPS"] = flops / s / 1e9;
  state.counters["GBps"] = bytes / s / 1e9;
  state.counters["fraction_of_read"] = of_read;
  state.counters["fraction_of_multiply"] = of_multiply;
  state.counters["fraction_of_peak"] = std::max(of_read, of_multiply);
  if (onednn) state.counters["times_onednn"] = median(theirs) / s;
}

[[maybe_unused]] const bool registered = [] {
  const int threads = std::min(2, kernels::allowed_cpus());
  for (const DType dtype : {DType::bf16, DType::f32})
    for (const auto& [hidden, ffn] : {std::pair(2048, 1408), {1024, 4096}, {4096, 14336}})
      for (const int rows : {1, 4, 16, 64, 256, 1024}) {
        const Case c{hidden, ffn, rows, dtype};
        const std::string title = "packed_ffn/" + std::string(kernels::name(kernels::best_isa())) + "/" +
                                  (dtype == DType::f32 ? "fp32" : "bf16") + "/d:" + std::to_string(hidden) +
                                  "/d_ff:" + std::to_string(ffn) + "/tokens_per_expert:" + std::to_string(rows) +
                                  "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(title.c_str(), packed_ffn, c, threads)
            ->UseManualTime()
            ->Iterations(7)
            ->Unit(benchmark::kMillisecond);
      }
  return true;
}();

}  // namespace
}  // namespace topomoe::bench
