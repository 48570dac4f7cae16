#include "runtime/bench.hpp"

#include <algorithm>
#include <memory>

#include "planner/plan/schedule_part.hpp"
#include "runtime/communicator_counting.hpp"
#include "runtime/drawn_traffic.hpp"
#include "runtime/executor.hpp"
#include "runtime/host_exchange.hpp"
#include "runtime/settle.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using Index = std::size_t;

// Of one wait. The slowest single exchange of our cases takes 3 s.
constexpr auto kDeadline = std::chrono::minutes(1);

constexpr Index kAlignment = 64;  // as Device::allocate

// Experts of the tokens that a rank injects. Members of a TP group hold the same tokens.
std::vector<std::int32_t> injected_ids(const ExchangeBench& b, const Schedule& schedule, const RankGroups& groups,
                                       int rank) {
  const auto group = static_cast<std::uint64_t>(groups.members(Role::tp, rank).front());
  auto ids = draw_routing(b.routing, b.shape.experts, b.shape.top_k, static_cast<int>(b.tokens), b.seed + group);
  if (schedule.intake != Intake::tp_slice) return ids;
  const int t = groups.size(Role::tp), index = groups.index_in(Role::tp, rank);
  const auto at = [&](int i) { return ids.begin() + part_begin(b.tokens, t, i) * b.shape.top_k; };
  return {at(index), at(index + 1)};
}

bool holds_tokens(const Schedule& s, int buffer) {
  return s.buffers[static_cast<Index>(buffer)].columns == Columns::hidden;
}

// The steps that tell ranks how much they get, and what goes beside tokens: all of the way out but routing, and but
// whatever moves tokens.
std::vector<std::uint8_t> preparation(const Schedule& s) {
  auto out = steps_of(s, Part::dispatch);
  for (Index i = 0; i < out.size(); ++i) {
    const Step& step = s.forward[i];
    bool moves_tokens = false;
    for (const View& v : step.out) moves_tokens |= holds_tokens(s, v.buffer);
    if (step.kind == StepKind::route || moves_tokens) out[i] = 0;
  }
  return out;
}

// One schedule on one rank, ready to be timed.
class Contestant {
 public:
  Contestant(const Schedule& schedule, const ExchangeBench& b, const RankGroups& groups, const GroupChannels& channels,
             Communicator& communicator, Device& device)
      : placement_(b.shape.experts, groups.layout().ep, b.shape.expert_owners),
        context_{schedule, groups, b.shape, placement_, channels, communicator, device, kDeadline, communicator.rank()},
        pass_(context_),
        exchange_(steps_of(schedule, Part::exchange)) {
    bool meets_others = false;
    for (Index i = 0; i < exchange_.size(); ++i)
      meets_others |= exchange_[i] != 0 && groups.size(schedule.forward[i].group) > 1;
    if (!meets_others)
      throw InvalidInput("schedule", schedule.name, "it exchanges nothing over this layout: give it ep above 1");
    const int rank = context_.rank;
    if (schedule.intake == Intake::tp_slice)
      for (const int member : groups.members(Role::tp, rank)) pass_.counts.set_held(member, b.tokens);
    else
      pass_.counts.set_held(rank, b.tokens);
    auto ids = injected_ids(b, schedule, groups, rank);
    std::vector<std::int64_t> used;
    settle(ids, b.shape, placement_, used);
    pass_.counts.set_routing(ids, b.shape.top_k);
    const auto route = std::find_if(schedule.forward.begin(), schedule.forward.end(),
                                    [](const Step& s) { return s.kind == StepKind::route; });
    TOPOMOE_ASSERT(route != schedule.forward.end());
    // What the router would have written: ids, weights, logits.
    for (const View& v : route->out) own(v.buffer);
    device.to_device(Lane::compute, pass_.bound[root_of(schedule, route->out[0].buffer)], ids.data(),
                     ids.size() * sizeof(std::int32_t));
    // Once to know how many rows there are of what goes beside tokens, and once more into memory that stays.
    run(preparation(schedule));
    for (const int buffer : touched())
      if (!holds_tokens(schedule, buffer) && pass_.bound.count(buffer) == 0) own(buffer);
    run(preparation(schedule));
  }

  // Buffers of tokens that the exchange reads or writes, each of them once.
  std::vector<int> buffers() const {
    std::vector<int> out = touched();
    std::erase_if(out, [&](int b) { return !holds_tokens(context_.schedule, b); });
    return out;
  }
  Index memory_bytes() const {
    Index bytes = 0;
    for (const int b : buffers()) bytes += padded(bytes_of(b));
    return bytes;
  }
  void use(std::byte* memory) {
    for (const int b : buffers()) {
      pass_.bound[b] = memory;
      memory += padded(bytes_of(b));
    }
  }
  void exchange() { run(exchange_); }

 private:
  static Index padded(Index bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  std::vector<int> touched() const {
    std::vector<int> out;
    for (Index i = 0; i < exchange_.size(); ++i)
      if (exchange_[i] != 0)
        for (const auto* views : {&context_.schedule.forward[i].in, &context_.schedule.forward[i].out})
          for (const View& v : *views) out.push_back(root_of(context_.schedule, v.buffer));
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }
  void own(int buffer) {
    DeviceMemory& memory = own_.emplace_back(context_.device.allocate(bytes_of(buffer)));
    context_.device.zero(Lane::compute, memory.get(), bytes_of(buffer));
    pass_.bound[root_of(context_.schedule, buffer)] = memory.get();
  }
  Index bytes_of(int buffer) const {
    const Schedule& s = context_.schedule;
    const int root = root_of(s, buffer), me = context_.rank;
    View all;
    all.buffer = root;
    const double rows = resolve(s, all, context_.groups, pass_.counts, me, me).rows;
    const RowWidths widths = row_widths(context_.shape, context_.groups.layout().etp, context_.groups.layout().tp);
    return std::max<Index>(1, static_cast<Index>(rows * row_bytes(s.buffers[static_cast<Index>(root)], widths)));
  }
  void run(const std::vector<std::uint8_t>& part) {
    Executor(context_, pass_, weights_, nullptr).run(false, part);
    pass_.layer->settle();
  }

  ExpertPlacement placement_;
  ExecutorContext context_;
  PassState pass_;
  LayerWeights weights_;
  std::vector<std::uint8_t> exchange_;
  std::vector<DeviceMemory> own_;
};

// What the schedule's own sizes say of the rows that were drawn, all ranks.
void predict(ExchangeRow& row, const Schedule& schedule, const ExchangeBench& b, const RankGroups& groups) {
  const DrawnCounts counts(
      schedule, groups, b.shape, [&](int) { return b.tokens; },
      [&](int rank) { return injected_ids(b, schedule, groups, rank); });
  const auto part = steps_of(schedule, Part::exchange);
  std::vector<Step> steps;
  for (Index i = 0; i < part.size(); ++i)
    if (part[i] != 0) steps.push_back(schedule.forward[i]);
  std::vector<double> out(static_cast<Index>(row.hosts)), in(out);
  each_transfer(schedule, steps, groups, b.shape, counts, [&](const Step& step, int rank, int peer, double bytes) {
    if (step.metadata) return;
    const int from = rank / b.ranks_per_host, to = peer / b.ranks_per_host;
    (from == to ? row.intra_bytes : row.inter_bytes) += bytes;
    if (from != to) out[static_cast<Index>(from)] += bytes, in[static_cast<Index>(to)] += bytes;
  });
  for (const auto* way : {&out, &in})
    row.nic_bytes = std::max(row.nic_bytes, *std::max_element(way->begin(), way->end()));
}

}  // namespace

std::optional<std::vector<ExchangeRow>> bench_exchange(std::span<const Schedule> schedules, const ExchangeBench& b,
                                                       Communicator& communicator, Device& device,
                                                       std::span<const Rival> rivals) {
  const int world = b.layout.world, me = communicator.rank();
  if (communicator.size() != world)
    throw InvalidInput("communicator", std::to_string(communicator.size()) + " ranks",
                       "the layout has " + std::to_string(world));
  if (b.tokens < b.layout.tp)
    throw InvalidInput("tokens", std::to_string(b.tokens),
                       "at least one for each of " + std::to_string(b.layout.tp) + " TP ranks");
  HostExchange host(communicator);
  CountingCommunicator counting(communicator);
  const RankGroups groups(b.layout, b.ranks_per_host);
  GroupChannels channels(counting, groups);
  for (const Schedule& s : schedules) channels.open(roles_of(s));
  std::vector<std::unique_ptr<Contestant>> contestants;
  Index most = 1;
  for (const Schedule& s : schedules) {
    contestants.push_back(std::make_unique<Contestant>(s, b, groups, channels, counting, device));
    most = std::max(most, contestants.back()->memory_bytes());
  }
  // One at a time is timed: all use the same memory.
  const DeviceMemory memory = device.allocate(most);
  device.zero(Lane::compute, memory.get(), most);
  for (auto& c : contestants) c->use(memory.get());

  const Index count = schedules.size() + rivals.size();
  std::vector<double> mine(count * static_cast<Index>(b.repeat)), sent;
  for (int round = -b.warmup; round < b.repeat; ++round)
    for (Index i = 0; i < count; ++i) {
      if (round == 0) counting.reset();
      device.synchronize();
      host.line_up(b.ranks_per_host);
      const auto begin = Clock::now();
      if (i < contestants.size())
        contestants[i]->exchange();
      else
        rivals[i - contestants.size()].exchange();
      const double us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
      if (round < 0) continue;
      mine[i * static_cast<Index>(b.repeat) + static_cast<Index>(round)] = us;
      if (round > 0) continue;
      double inter = 0, intra = 0, messages = 0;
      for (int peer = 0; peer < world; ++peer) {
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
  if (me != 0) return std::nullopt;
  std::vector<ExchangeRow> rows;
  for (Index i = 0; i < count; ++i) {
    ExchangeRow& row = rows.emplace_back();
    row.ranks = world;
    row.hosts = (world + b.ranks_per_host - 1) / b.ranks_per_host;
    row.bytes_per_rank =
        static_cast<double>(b.tokens * b.shape.top_k * b.shape.hidden) * static_cast<double>(size_of(b.shape.dtype));
    row.times_us.assign(static_cast<Index>(b.repeat), 0.0);
    double inter = 0, intra = 0, messages = 0;
    for (const auto& one : all) {
      for (Index r = 0; r < row.times_us.size(); ++r)
        row.times_us[r] = std::max(row.times_us[r], one[i * row.times_us.size() + r]);
      const Index at = count * row.times_us.size() + 3 * i;
      inter += one[at], intra += one[at + 1], messages += one[at + 2];
    }
    if (i < schedules.size()) {
      const Schedule& s = schedules[i];
      row.algorithm = s.split + " " + s.transport, row.chunks = s.chunks;
      predict(row, s, b, groups);
      row.bytes_agree = inter == row.inter_bytes && intra == row.intra_bytes;
      row.inter_messages = messages;
    } else {
      const Rival& rival = rivals[i - schedules.size()];
      row.algorithm = rival.algorithm, row.chunks = rival.chunks;
      row.inter_bytes = rival.inter_bytes, row.intra_bytes = rival.intra_bytes, row.nic_bytes = rival.nic_bytes;
    }
    if (b.nic_payload_GBps > 0) row.bound_us = row.nic_bytes / (b.nic_payload_GBps * 1e3);
  }
  return rows;
}

}  // namespace topomoe
