// Rows moved and summed, bf16, tensors of half a GiB: bytes read and written counted, the index maps not.
//
//   pack     each of T tokens to 8 of 64 experts, sorted by expert
//   repack   from [source rank][expert] to [expert][source rank], 8 by 8, some 30 rows a run
//   combine  k of the rows a token, in slot order, weighted
#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/bench/peaks.hpp"
#include "kernels/cpu_context.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/sum_rows.hpp"

namespace topomoe::bench {
namespace {

constexpr std::size_t kHalf = kMemoryBytes / 2;
constexpr int kExperts = 64, kTopK = 8;
using Map = std::vector<std::int32_t>;

std::int64_t rows_in_half(std::int64_t columns) { return static_cast<std::int64_t>(kHalf) / (2 * columns); }

// [tokens, k] experts, distinct in a row.
Map drawn_experts(std::int64_t tokens, int k) {
  std::minstd_rand engine(7);
  std::int32_t all[kExperts];
  std::iota(all, all + kExperts, 0);
  Map out;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (int i = 0; i < k; ++i) std::swap(all[i], all[std::uniform_int_distribution<int>(i, kExperts - 1)(engine)]);
    out.insert(out.end(), all, all + k);
  }
  return out;
}

// Slots (token * k + i) sorted by expert.
Map sorted_slots(const Map& experts) {
  Map slots(experts.size());
  std::iota(slots.begin(), slots.end(), 0);
  std::stable_sort(slots.begin(), slots.end(), [&](int a, int b) {
    return experts[static_cast<std::size_t>(a)] < experts[static_cast<std::size_t>(b)];
  });
  return slots;
}

Map pack_map(std::int64_t rows) {
  Map map = sorted_slots(drawn_experts(rows / kTopK, kTopK));
  for (std::int32_t& slot : map) slot /= kTopK;
  return map;
}

Map repack_map(std::int64_t rows) {
  constexpr int kRanks = 8, kOfRank = 8;
  std::minstd_rand engine(9);
  Map counts(kRanks * kOfRank), starts(kRanks * kOfRank + 1), map;
  // Blocks of all experts of all ranks again and again until rows run out.
  for (std::int64_t base = 0; base < rows; base += starts.back()) {
    for (std::int32_t& n : counts) n = std::uniform_int_distribution<std::int32_t>(20, 40)(engine);
    std::partial_sum(counts.begin(), counts.end(), starts.begin() + 1);
    for (int expert = 0; expert < kOfRank; ++expert)
      for (int rank = 0; rank < kRanks; ++rank) {
        const auto run = static_cast<std::size_t>(rank * kOfRank + expert);
        for (std::int32_t row = starts[run]; row < starts[run + 1]; ++row)
          if (base + row < rows) map.push_back(static_cast<std::int32_t>(base + row));
      }
  }
  return map;
}

void gather(benchmark::State& state, Map (*map_of)(std::int64_t)) {
  kernels::ThreadPool pool(static_cast<int>(state.range(0)));
  const std::int64_t columns = state.range(1);
  const Map map = map_of(rows_in_half(columns));
  const auto rows = static_cast<std::int64_t>(map.size());
  const kernels::GatherRows op{.out = memory() + kHalf,
                               .in = memory(),
                               .source_row = map.data(),
                               .rows = rows,
                               .columns = columns,
                               .dtype = DType::bf16};
  const Limit limits[] = {Limit::copy};
  run_against(
      state, pool, limits, "GBps", 4.0 * static_cast<double>(rows * columns), [](const Peaks& p) { return p.copy; },
      [&] {
        gather_rows_cpu(op, {kernels::best_isa(), &pool});
      });
}
void pack(benchmark::State& state) { gather(state, pack_map); }
void repack(benchmark::State& state) { gather(state, repack_map); }

void combine(benchmark::State& state) {
  kernels::ThreadPool pool(static_cast<int>(state.range(0)));
  const std::int64_t columns = state.range(1);
  const auto k = static_cast<int>(state.range(2));
  const std::int64_t tokens = rows_in_half(columns) / k;
  const Map slots = sorted_slots(drawn_experts(tokens, k));
  Map position(slots.size());
  for (std::size_t row = 0; row < slots.size(); ++row)
    position[static_cast<std::size_t>(slots[row])] = static_cast<std::int32_t>(row);
  const std::vector<float> weight(slots.size(), 1.0F / static_cast<float>(k));
  const kernels::SumRows op{.out = memory() + kHalf,
                            .in = memory(),
                            .position = position.data(),
                            .weight = weight.data(),
                            .rows = tokens,
                            .columns = columns,
                            .k = k,
                            .dtype = DType::bf16};
  const Limit limits[] = {Limit::copy, Limit::read};
  run_against(
      state, pool, limits, "GBps", 2.0 * static_cast<double>((k + 1) * tokens * columns),
      [&](const Peaks& p) { return std::min(p.read * (k + 1) / k, p.copy); },
      [&] {
        sum_rows_cpu(op, {kernels::best_isa(), &pool});
      });
}

const std::vector<std::int64_t> kColumns{1024, 2048, 4096, 8192};

BENCHMARK(pack)->ArgNames({"threads", "d"})->ArgsProduct({thread_counts(), kColumns})->UseManualTime()->Iterations(7);
BENCHMARK(repack)->ArgNames({"threads", "d"})->ArgsProduct({thread_counts(), kColumns})->UseManualTime()->Iterations(7);
BENCHMARK(combine)
    ->ArgNames({"threads", "d", "k"})
    ->ArgsProduct({thread_counts(), kColumns, {2, 8}})
    ->UseManualTime()
    ->Iterations(7);

}  // namespace
}  // namespace topomoe::bench
