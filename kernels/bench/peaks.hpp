// What this machine does at most, measured in the same process as what is compared with it, and between its
// repetitions: on a shared machine a peak of a minute ago is another machine's.
//
//   copy   non-temporal stores, one stream, bytes read and written counted
//   read   loads alone
//   amx    products of bf16 tiles that never leave the registers, of random data (of zeros the clock would stay higher)
//   fma    fp32 multiply-adds that never leave the registers
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "kernels/thread_pool.hpp"

namespace topomoe::bench {

enum class Limit { copy, read, amx, fma };
constexpr int kLimits = 4;

// Bytes or flops a second, of one repetition: 128 MiB, or some milliseconds of arithmetic.
double measure(Limit limit, kernels::ThreadPool& pool);
// Why there is none on this machine; empty: there is.
std::string missing(Limit limit);

// Memory on large pages that rows work in and peaks are measured in: more than a last-level cache keeps. Random bf16 of
// about 1; whoever overwrites it leaves finite numbers.
constexpr std::size_t kMemoryBytes = std::size_t{1} << 30;
std::byte* memory();

inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Medians of repetitions, a second; 0 of those not asked for.
struct Peaks {
  double copy = 0, read = 0, amx = 0, fma = 0;
};

// Runs `work` once an iteration, peaks before it each time. Reports `amount` (bytes, flops) a second under `unit`
// (GBps, GFLOPS), and its fraction of limit_of(peaks).
template <class LimitOf, class Work>
void run_against(benchmark::State& state, kernels::ThreadPool& pool, std::span<const Limit> limits, const char* unit,
                 double amount, LimitOf&& limit_of, Work&& work) {
  for (const Limit limit : limits)
    if (const std::string why = missing(limit); !why.empty()) return state.SkipWithError(why.c_str());
  std::vector<double> mine, peaks[kLimits];
  work();  // pages, caches
  for ([[maybe_unused]] auto _ : state) {
    for (const Limit limit : limits) peaks[static_cast<int>(limit)].push_back(measure(limit, pool));
    const double begin = seconds();
    work();
    const double took = seconds() - begin;
    state.SetIterationTime(took);
    mine.push_back(amount / took);
  }
  const double limit = limit_of(Peaks{median(peaks[0]), median(peaks[1]), median(peaks[2]), median(peaks[3])});
  state.counters[unit] = 1e-9 * median(mine);
  state.counters[std::string("peak_") + unit] = 1e-9 * limit;
  state.counters["fraction_of_peak"] = median(mine) / limit;
}

// 1 and as many as there are CPUs.
inline std::vector<std::int64_t> thread_counts() {
  std::vector<std::int64_t> out{1};
  if (kernels::allowed_cpus() > 1) out.push_back(kernels::allowed_cpus());
  return out;
}

}  // namespace topomoe::bench
