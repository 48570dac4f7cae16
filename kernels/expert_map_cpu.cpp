#include "kernels/expert_map.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include "kernels/expert_map_tiles.hpp"
#include "kernels/progress.hpp"
#include "kernels/router.hpp"
#include "topomoe/error.hpp"

namespace topomoe::kernels {

void check(const ExpertMap& op) {
  const auto fail = [](const char* field, std::int64_t value, const std::string& hint) {
    throw InvalidInput(std::string("expert map: ") + field, std::to_string(value), hint);
  };
  if (op.experts < 1 || op.experts > kMaxExperts) fail("experts", op.experts, "1 to " + std::to_string(kMaxExperts));
  if (op.parts < 1 || op.experts % op.parts != 0)
    fail("parts", op.parts, "must divide experts = " + std::to_string(op.experts));
  if (op.k < 1) fail("k", op.k, "at least 1");
  if (op.rows < 0) fail("rows", op.rows, "at least 0");
  if (op.capacity < 0) fail("capacity", op.capacity, "at least 0");
  // Places and pairs are int32, and so is a place that a pair would have had without the part's end.
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (op.rows > most / op.k || op.capacity > (most - op.rows * op.k) / op.parts)
    fail("rows", op.rows, "rows * k + parts * capacity must be below 2^31");
}

std::int64_t scratch_of(const ExpertMap& op) {
  return (tiles_of(op.rows * op.k).count + 1) * static_cast<std::int64_t>(op.experts);
}

void expert_map_cpu(const ExpertMap& op, const ProgressHook& hook) {
  check(op);
  Progress progress(hook);
  const std::int64_t pairs = op.rows * op.k;
  const auto is_expert = [&](std::int32_t id) { return id >= 0 && id < op.experts; };

  std::fill_n(op.counts, op.experts, 0);
  for (std::int64_t pair = 0; pair < pairs; ++pair)
    if (is_expert(op.ids[pair])) ++op.counts[op.ids[pair]];
  progress.did(pairs * Progress::kMovedElement);

  std::int64_t next[kMaxExperts], end[kMaxExperts];
  const int of_part = op.experts / op.parts;
  std::int64_t at = 0;
  *op.overflow = 0;
  for (int e = 0; e < op.experts; ++e) {
    const std::int64_t part = e / of_part;
    if (e % of_part == 0) at = part * op.capacity;
    next[e] = at, end[e] = (part + 1) * op.capacity;
    op.offsets[e] = static_cast<std::int32_t>(std::min(at, end[e]));
    at += op.counts[e];
    op.offsets[e + 1] = static_cast<std::int32_t>(std::min(at, end[e]));
  }

  std::fill_n(op.source_row, op.parts * op.capacity, -1);
  std::fill_n(op.source_factor, op.parts * op.capacity, -1);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int64_t pair = op.order == PairOrder::token ? i : i % op.rows * op.k + i / op.rows;
    const std::int32_t id = op.ids[pair];
    op.position[pair] = -1;
    if (!is_expert(id)) continue;
    const std::int64_t place = next[id]++;
    if (place >= end[id]) {
      ++*op.overflow;
      continue;
    }
    op.position[pair] = static_cast<std::int32_t>(place);
    op.source_row[place] = static_cast<std::int32_t>(pair / op.k);
    op.source_factor[place] = static_cast<std::int32_t>(pair);
  }
  progress.did(pairs * Progress::kMovedElement);
}

}  // namespace topomoe::kernels
