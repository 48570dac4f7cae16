#include "runtime/bench_rounds.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "topomoe/error.hpp"

namespace topomoe::benching {
namespace {

using Clock = std::chrono::steady_clock;
using Index = std::size_t;

// Between two operations a network rests as long as the first took, at most this long: what that left behind is not the
// next one's time. TCP acknowledges up to 40 ms late; where a packet takes 1.5 ms, those of 160 messages made the next
// operation 72 ms instead of 46 (tests/cluster/bench.sh grid, case packets4x4 8 1 0 16K, in the orders with and
// without).
constexpr std::chrono::milliseconds kLongestRest{100};

Tokens slice_of(const BenchCase& b, const RankGroups& groups, int rank) {
  const int t = groups.size(Role::tp), index = groups.index_in(Role::tp, rank);
  return {part_begin(b.tokens, t, index), part_begin(b.tokens, t, index + 1)};
}

bool is_expert(StepKind kind) {
  return kind == StepKind::expert_forward || kind == StepKind::expert_dgrad || kind == StepKind::expert_wgrad;
}

}  // namespace

void check(const BenchCase& b, const Communicator& communicator) {
  if (communicator.size() != b.layout.world)
    throw InvalidInput("communicator", std::to_string(communicator.size()) + " ranks",
                       "the layout has " + std::to_string(b.layout.world));
  if (b.tokens < b.layout.tp)
    throw InvalidInput("tokens", std::to_string(b.tokens),
                       "at least one for each of " + std::to_string(b.layout.tp) + " TP ranks");
}

Tokens held_by(const BenchCase& b, const RankGroups& groups, int rank) {
  return b.layout.sequence_parallel ? slice_of(b, groups, rank) : Tokens{0, b.tokens};
}

Tokens injected_by(const BenchCase& b, const Schedule& schedule, const RankGroups& groups, int rank) {
  if (schedule.intake == Intake::tp_slice) return slice_of(b, groups, rank);
  return schedule.intake == Intake::tp_gather ? Tokens{0, b.tokens} : held_by(b, groups, rank);
}

std::vector<std::int32_t> drawn_ids(const BenchCase& b, const RankGroups& groups, int rank, Tokens which) {
  const auto group = static_cast<std::uint64_t>(groups.members(Role::tp, rank).front());
  const auto ids = draw_routing(b.routing, b.shape.experts, b.shape.top_k, static_cast<int>(b.tokens), b.seed + group,
                                b.shape.router.groups, b.shape.router.topk_groups);
  return {ids.begin() + which.begin * b.shape.top_k, ids.begin() + which.end * b.shape.top_k};
}

DrawnCounts drawn_counts(const BenchCase& b, const Schedule& schedule, const RankGroups& groups) {
  return {schedule, groups, b.shape, [&](int rank) { return held_by(b, groups, rank).size(); },
          [&](int rank) { return drawn_ids(b, groups, rank, injected_by(b, schedule, groups, rank)); }};
}

std::vector<Measured> time_in_rounds(std::span<const Timed> timed, const BenchCase& b, HostExchange& host,
                                     CountingCommunicator& counting, Device& device) {
  const auto repeat = static_cast<Index>(b.repeat);
  const int me = counting.rank();
  std::vector<double> mine(timed.size() * repeat), sent;
  Clock::duration took{};
  for (int round = -b.warmup; round < b.repeat; ++round)
    for (Index i = 0; i < timed.size(); ++i) {
      if (round == 0) counting.reset();
      device.synchronize(Clock::now() + kDeadline);
      std::this_thread::sleep_for(std::min<Clock::duration>(took, kLongestRest));
      host.line_up(b.ranks_per_host);
      const auto begin = Clock::now();
      timed[i]();
      took = Clock::now() - begin;
      const double us = std::chrono::duration<double, std::micro>(took).count();
      if (round < 0) continue;
      mine[i * repeat + static_cast<Index>(round)] = us;
      if (round > 0) continue;
      double inter = 0, intra = 0, messages = 0;
      for (int peer = 0; peer < counting.size(); ++peer) {
        const Traffic& t = counting.sent()[static_cast<Index>(peer)];
        const bool inside = peer / b.ranks_per_host == me / b.ranks_per_host;
        (inside ? intra : inter) += t.payload_bytes;
        if (!inside) messages += static_cast<double>(t.messages);
      }
      sent.insert(sent.end(), {inter, intra, messages});
    }
  counting.barrier();
  mine.insert(mine.end(), sent.begin(), sent.end());
  const auto all = host.gather("gather the times", mine);
  std::vector<Measured> out;
  for (Index i = 0; me == 0 && i < timed.size(); ++i) {
    Measured& m = out.emplace_back();
    m.times_us.assign(repeat, 0.0);
    for (const auto& one : all) {
      for (Index r = 0; r < repeat; ++r) m.times_us[r] = std::max(m.times_us[r], one[i * repeat + r]);
      const Index at = timed.size() * repeat + 3 * i;
      m.inter_bytes += one[at], m.intra_bytes += one[at + 1], m.inter_messages += one[at + 2];
    }
  }
  return out;
}

BenchRow row_of(const BenchCase& b, const Measured& measured) {
  BenchRow row;
  row.ranks = b.layout.world;
  row.hosts = (b.layout.world + b.ranks_per_host - 1) / b.ranks_per_host;
  row.bytes_per_rank =
      static_cast<double>(b.tokens * b.shape.top_k * b.shape.hidden) * static_cast<double>(size_of(b.shape.dtype));
  row.times_us = measured.times_us;
  return row;
}

BenchRow row_of(const Schedule& schedule, const std::vector<Step>& steps, const BenchCase& b, const RankGroups& groups,
                const DrawnCounts& counts, const Measured& measured) {
  BenchRow row = row_of(b, measured);
  row.algorithm = schedule.split + " " + schedule.transport, row.chunks = schedule.chunks;
  std::vector<double> out(static_cast<Index>(row.hosts)), in(out);
  each_transfer(schedule, steps, groups, b.shape, counts, [&](const Step& step, int rank, int peer, double bytes) {
    if (step.metadata) return;
    const int from = rank / b.ranks_per_host, to = peer / b.ranks_per_host;
    (from == to ? row.intra_bytes : row.inter_bytes) += bytes;
    if (from != to) out[static_cast<Index>(from)] += bytes, in[static_cast<Index>(to)] += bytes;
  });
  for (const auto* way : {&out, &in})
    row.nic_bytes = std::max(row.nic_bytes, *std::max_element(way->begin(), way->end()));
  // 2 flops a multiply-add, 3 matrices or 2; dgrad and wgrad are as much each.
  const double flops_of_row =
      (b.shape.gated ? 6.0 : 4.0) * static_cast<double>(b.shape.hidden * (b.shape.ffn / b.layout.etp));
  for (int rank = 0; rank < b.layout.world; ++rank) {
    double rows = 0;
    for (const Step& s : steps)
      if (is_expert(s.kind)) rows += rows_of(schedule, s.in[0], groups, counts, rank, rank);
    row.expert_flops = std::max(row.expert_flops, rows * flops_of_row);
  }
  row.bytes_agree = measured.inter_bytes == row.inter_bytes && measured.intra_bytes == row.intra_bytes;
  row.inter_messages = measured.inter_messages;
  set_bound(row, b);
  return row;
}

void set_bound(BenchRow& row, const BenchCase& b) {
  if (b.nic_payload_GBps > 0) row.bound_us = row.nic_bytes / (b.nic_payload_GBps * 1e3);
  if (b.rank_TFLOPps > 0 && row.expert_flops > 0)
    row.bound_us = std::max(row.bound_us.value_or(0), row.expert_flops / (b.rank_TFLOPps * 1e6));
}

}  // namespace topomoe::benching
