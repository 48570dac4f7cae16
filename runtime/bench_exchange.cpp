// The exchange of schedules, alone: what stands in for the steps that are left out.
#include <algorithm>
#include <memory>

#include "planner/plan/schedule_part.hpp"
#include "runtime/bench_rounds.hpp"
#include "runtime/executor.hpp"
#include "runtime/settle.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using namespace benching;
using Index = std::size_t;

constexpr Index kAlignment = 64;  // as Device::allocate

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
  Contestant(const Schedule& schedule, const BenchCase& b, const RankGroups& groups, const GroupChannels& channels,
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
      pass_.counts.set_held(rank, held_by(b, groups, rank).size());
    auto ids = drawn_ids(b, groups, rank, injected_by(b, schedule, groups, rank));
    std::vector<std::int64_t> used;
    settle(ids, b.shape, placement_, groups.index_in(Role::ep, rank), used);
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

}  // namespace

std::optional<std::vector<BenchRow>> bench_exchange(std::span<const Schedule> schedules, const BenchCase& b,
                                                    Communicator& communicator, Device& device,
                                                    std::span<const Rival> rivals) {
  check(b, communicator);
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
  std::vector<Timed> timed;
  for (auto& c : contestants) {
    c->use(memory.get());
    timed.emplace_back([&c] { c->exchange(); });
  }
  for (const Rival& r : rivals) timed.push_back(r.exchange);
  const auto measured = time_in_rounds(timed, b, host, counting, device);
  if (communicator.rank() != 0) return std::nullopt;
  std::vector<BenchRow> rows;
  for (Index i = 0; i < schedules.size(); ++i) {
    const Schedule& s = schedules[i];
    const auto part = steps_of(s, Part::exchange);
    std::vector<Step> steps;
    for (Index step = 0; step < part.size(); ++step)
      if (part[step] != 0) steps.push_back(s.forward[step]);
    rows.push_back(row_of(s, steps, b, groups, drawn_counts(b, s, groups), measured[i]));
  }
  for (Index i = 0; i < rivals.size(); ++i) {
    const Rival& rival = rivals[i];
    BenchRow& row = rows.emplace_back(row_of(b, measured[schedules.size() + i]));
    row.algorithm = rival.algorithm, row.chunks = rival.chunks;
    row.inter_bytes = rival.inter_bytes, row.intra_bytes = rival.intra_bytes, row.nic_bytes = rival.nic_bytes;
    set_bound(row, b);
  }
  return rows;
}

}  // namespace topomoe
