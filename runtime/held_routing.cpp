#include "runtime/held_routing.hpp"

#include <vector>

namespace topomoe {

void HeldRouting::inject(Lane lane, void* to, const void* held, const RankCounts& counts) const {
  const auto* const from = static_cast<const std::byte*>(held);
  auto* const into = static_cast<std::byte*>(to);
  const std::int64_t mine = held_by(c_.rank, counts);
  const auto bytes = [&](std::int64_t rows) { return static_cast<std::size_t>(rows) * row_bytes(); };
  switch (parts_.schedule.intake) {
    case Intake::as_held: c_.device.copy(lane, into, from, bytes(mine)); break;
    case Intake::tp_slice: {
      const int parts = c_.groups.size(Role::tp), index = c_.groups.index_in(Role::tp, c_.rank);
      const std::int64_t first = part_begin(mine, parts, index), end = part_begin(mine, parts, index + 1);
      c_.device.copy(lane, into, from + bytes(first), bytes(end - first));
      break;
    }
    case Intake::tp_gather: {
      std::vector<std::int64_t> rows;
      for (const int member : c_.groups.members(Role::tp, c_.rank)) rows.push_back(held_by(member, counts));
      gather(lane, into, from, rows);
      break;
    }
  }
}

EventPtr HeldRouting::eject(void* to, const void* injected, const RankCounts& counts) const {
  const auto* from = static_cast<const std::byte*>(injected);
  const std::int64_t mine = held_by(c_.rank, counts);
  const auto members = c_.groups.members(Role::tp, c_.rank);
  if (parts_.schedule.intake == Intake::tp_slice) {
    std::vector<std::int64_t> rows;
    const int parts = static_cast<int>(members.size());
    for (int i = 0; i < parts; ++i) rows.push_back(part_begin(mine, parts, i + 1) - part_begin(mine, parts, i));
    return gather(Lane::compute, static_cast<std::byte*>(to), from, rows);
  }
  if (parts_.schedule.intake == Intake::tp_gather)
    for (const int member : members) {
      if (member == c_.rank) break;
      from += static_cast<std::size_t>(held_by(member, counts)) * row_bytes();
    }
  c_.device.copy(Lane::compute, to, from, static_cast<std::size_t>(mine) * row_bytes());
  return nullptr;
}

// Rows of all members of the TP group, one after another.
EventPtr HeldRouting::gather(Lane lane, std::byte* to, const std::byte* mine,
                             std::span<const std::int64_t> rows) const {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  const int index = c_.groups.index_in(Role::tp, c_.rank);
  const std::size_t my_bytes = static_cast<std::size_t>(rows[static_cast<std::size_t>(index)]) * row_bytes();
  for (int i = 0; i < static_cast<int>(rows.size()); ++i) {
    const std::size_t bytes = static_cast<std::size_t>(rows[static_cast<std::size_t>(i)]) * row_bytes();
    if (i == index) {
      c_.device.copy(lane, to, mine, bytes);
    } else {
      sends.push_back({i, mine, my_bytes});
      receives.push_back({i, to, bytes});
    }
    to += bytes;
  }
  const EventPtr event = c_.communicator.exchange(
      c_.channels.of(Role::tp), sends, receives,
      {.step = "gather routing", .lane = lane, .metadata = true, .memory = c_.device.memory_space()});
  c_.device.wait(lane, event, std::chrono::steady_clock::now() + c_.deadline);
  return event;
}

}  // namespace topomoe
