// Where pairs (a token and one of its experts) go, from ids alone: counts, offsets, and the maps of pack and combine.
//
// Pairs are numbered row * k + slot; one whose id is not 0..experts-1 goes nowhere. Experts lie in `parts` equal runs,
// and part p has the places p C to (p + 1) C - 1, C = capacity. In it expert follows expert and an expert's pairs
// follow each other in `order`; a pair beyond the part's last place has none, and is counted in `overflow`.
//
//   exact mode     parts 1, capacity rows k: everything has a place. Whoever wants counts on the host waits for them.
//   bounded mode   parts = experts (or ranks), capacity fixed beforehand: no shape depends on ids, so that nobody reads
//                  anything back, and a CUDA graph may hold it. What overflows is for the caller: drop it, as GShard
//                  does (PairOrder::slot: all first choices come before any second), or run the rest again.
//
// Same results on every device, whatever the number of threads: no atomics. What it ignores: rows that travel once for
// several experts (node_dedup).
//
// Bytes: ids read three times, 12 written a pair, and 8 a place: 65,536 pairs (8,192 tokens, k 8) 2.1 MB, 0.6 us at
// 3.35 TB/s (H100 SXM's datasheet). Its three launches take longer. Not measured.
#pragma once

#include <cstdint>

#include "kernels/gpu_stream.hpp"
#include "topomoe/device.hpp"

namespace topomoe::kernels {

enum class PairOrder : std::uint8_t {
  token,  // tokens, then slots: as every buffer of a schedule
  slot    // slots, then tokens
};

struct ExpertMap {
  const std::int32_t* ids = nullptr;      // [rows, k]
  std::int32_t* counts = nullptr;         // [experts] out: pairs that want the expert, with a place or not
  std::int32_t* offsets = nullptr;        // [experts + 1] out: its first place; the last: where the last expert ends
  std::int32_t* overflow = nullptr;       // [1] out
  std::int32_t* position = nullptr;       // [rows, k] out: place; -1: none. sum_rows' position
  std::int32_t* source_row = nullptr;     // [parts * capacity] out: row; -1: nobody's place. gather_rows' source_row
  std::int32_t* source_factor = nullptr;  // [parts * capacity] out: pair, the index of its weight; -1: nobody's
  std::int32_t* scratch = nullptr;        // [scratch_of(op)]; a CPU wants none
  std::int64_t rows = 0;
  std::int64_t capacity = 0;
  int k = 0;
  int experts = 0;  // 1..kMaxExperts (router.hpp)
  int parts = 1;    // divides experts
  PairOrder order = PairOrder::token;
};

// Throws InvalidInput for sizes out of range; both devices call it.
void check(const ExpertMap& op);
// Elements.
std::int64_t scratch_of(const ExpertMap& op);

void expert_map_cpu(const ExpertMap& op, const ProgressHook& progress);
void expert_map_gpu(const ExpertMap& op, GpuStream stream);

}  // namespace topomoe::kernels
