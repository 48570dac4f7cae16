// What all benches share: which tokens a rank has, rounds over what is timed, and rows of what was drawn. Internal to
// bench_*.cpp.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "runtime/bench.hpp"
#include "runtime/communicator_counting.hpp"
#include "runtime/drawn_traffic.hpp"
#include "runtime/host_exchange.hpp"

namespace topomoe::benching {

// Of one wait. The slowest single exchange of our cases takes 3 s, a layer's backward some times as long.
constexpr auto kDeadline = std::chrono::minutes(2);

// Throws InvalidInput where the communicator has not the layout's ranks, or there are fewer tokens than TP ranks.
void check(const BenchCase& bench, const Communicator& communicator);

// Of the tokens of its TP group those that a rank holds, and those that it injects into the exchange.
struct Tokens {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};
Tokens held_by(const BenchCase& bench, const RankGroups& groups, int rank);
Tokens injected_by(const BenchCase& bench, const Schedule& schedule, const RankGroups& groups, int rank);
// Their experts, [tokens, top_k]. Members of a TP group hold the same tokens, or parts of them.
std::vector<std::int32_t> drawn_ids(const BenchCase& bench, const RankGroups& groups, int rank, Tokens which);
DrawnCounts drawn_counts(const BenchCase& bench, const Schedule& schedule, const RankGroups& groups);

// Collective, and over when it returns; every round the same bytes.
using Timed = std::function<void()>;
struct Measured {
  std::vector<double> times_us;  // of the slowest rank, one a repetition
  // Of all ranks, in one repetition.
  double inter_bytes = 0, intra_bytes = 0, inter_messages = 0;
};
// Each in turn, warm-up and repetitions; on rank 0, the others get nothing.
std::vector<Measured> time_in_rounds(std::span<const Timed> timed, const BenchCase& bench, HostExchange& host,
                                     CountingCommunicator& counting, Device& device);

// The row of these steps of `schedule`; sizes by its own expressions over what was drawn.
BenchRow row_of(const Schedule& schedule, const std::vector<Step>& steps, const BenchCase& bench,
                const RankGroups& groups, const DrawnCounts& counts, const Measured& measured);
// Of anything, drawn or not; `bench` says what of the row is known alike to all.
BenchRow row_of(const BenchCase& bench, const Measured& measured);
void set_bound(BenchRow& row, const BenchCase& bench);

}  // namespace topomoe::benching
