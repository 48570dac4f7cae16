// The expert map on a GPU: a stable counting sort by prefix sums, without atomics.
//
// A tile of pairs is a block's, a run of it a warp's. Count: each warp finds among its 32 pairs those of one expert by
// a match, and the lowest of them adds their number to the warp's own row of shared memory. Scan: one block adds up
// tiles by expert and experts in order. Place: the count again, then every pair knows how many stand before it.
#include "kernels/dynamic_shared.cuh"
#include "kernels/expert_map.hpp"
#include "kernels/expert_map_tiles.hpp"
#include "kernels/grid_gpu.cuh"
#include "kernels/router.hpp"

namespace topomoe::kernels {
namespace {

constexpr unsigned kTileThreads = kTileWarps * kWarp;

// The i-th pair in the order of places.
struct Pairs {
  const std::int32_t* ids;
  std::int64_t rows, count;
  int k, experts;
  PairOrder order;

  __device__ std::int64_t number(std::int64_t i) const {
    return order == PairOrder::token ? i : i % rows * k + i / rows;
  }
  // -1 beyond the end and for what is no expert.
  __device__ int expert(std::int64_t i) const {
    if (i >= count) return -1;
    const std::int32_t id = ids[number(i)];
    return id >= 0 && id < experts ? id : -1;
  }
};

// Pairs of each expert in this warp's run of a tile, into the warp's row of shared memory.
__device__ void count_run(int* mine, const Pairs& pairs, std::int64_t first, std::int64_t per_warp, int lane) {
  for (int e = lane; e < pairs.experts; e += kWarp) mine[e] = 0;
  __syncwarp();
  for (std::int64_t i = first; i < first + per_warp; i += kWarp) {
    const int expert = pairs.expert(i + lane);
    const unsigned same = __match_any_sync(kAllLanes, expert);
    if (expert >= 0 && lane == __ffs(static_cast<int>(same)) - 1) mine[expert] += __popc(same);
    __syncwarp();
  }
}

__global__ void count_pairs_kernel(int* tile_counts, Pairs pairs, PairTiles tiles) {
  int* counts = dynamic_shared<int>();  // [kTileWarps][experts]
  const int lane = lane_of_warp(), warp = warp_of_block();
  for (std::int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
    count_run(counts + warp * pairs.experts, pairs, (tile * kTileWarps + warp) * tiles.per_warp, tiles.per_warp, lane);
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < pairs.experts; e += static_cast<int>(blockDim.x)) {
      int sum = 0;
      for (int w = 0; w < kTileWarps; ++w) sum += counts[w * pairs.experts + e];
      tile_counts[tile * pairs.experts + e] = sum;
    }
    __syncthreads();  // before the next tile's counts begin at 0
  }
}

// Sum over the threads up to and with this one; all of a block of kMaxExperts threads take part.
__device__ int block_scan(int value, int* of_warps) {
  const int lane = lane_of_warp(), warp = warp_of_block();
  for (int by = 1; by < kWarp; by *= 2) {
    const int other = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(by));
    if (lane >= by) value += other;
  }
  if (lane == kWarp - 1) of_warps[warp] = value;
  __syncthreads();
  int before = 0;
  for (int w = 0; w < warp; ++w) before += of_warps[w];
  __syncthreads();  // of_warps may be used again
  return before + value;
}

// One block, a thread an expert. Tile counts become counts of the tiles before; `first` where the expert would begin
// if its part had no end.
__global__ void __launch_bounds__(kMaxExperts)
    scan_tiles_kernel(int* tile_counts, int* first, std::int32_t* counts, std::int32_t* offsets, std::int32_t* overflow,
                      std::int64_t tiles, int experts, int parts, std::int64_t capacity) {
  __shared__ int of_warps[kMaxExperts / kWarp];
  __shared__ int begins[kMaxExperts];
  const int e = static_cast<int>(threadIdx.x), of_part = experts / parts;
  int count = 0;
  if (e < experts) {
    constexpr int kAtOnce = 8;  // reads under way together
    for (std::int64_t tile = 0; tile < tiles; tile += kAtOnce) {
      int here[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) here[i] = tile + i < tiles ? tile_counts[(tile + i) * experts + e] : 0;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (tile + i < tiles) tile_counts[(tile + i) * experts + e] = count;
        count += here[i];
      }
    }
    counts[e] = count;
  }
  const int begin = block_scan(count, of_warps) - count;
  begins[e] = begin;
  __syncthreads();
  int lost = 0;
  if (e < experts) {
    const std::int64_t part = e / of_part, end = (part + 1) * capacity;
    const std::int64_t at = part * capacity + (begin - begins[part * of_part]);
    first[e] = static_cast<int>(at);
    offsets[e] = static_cast<std::int32_t>(at < end ? at : end);
    if (e == experts - 1) offsets[experts] = static_cast<std::int32_t>(at + count < end ? at + count : end);
    const std::int64_t beyond = at + count - end;
    lost = static_cast<int>(beyond < 0 ? 0 : beyond < count ? beyond : count);
  }
  const int all_lost = block_scan(lost, of_warps);
  if (e == kMaxExperts - 1) *overflow = all_lost;
}

__global__ void place_pairs_kernel(std::int32_t* position, std::int32_t* source_row, std::int32_t* source_factor,
                                   const int* tile_counts, const int* first, Pairs pairs, PairTiles tiles, int parts,
                                   std::int64_t capacity) {
  int* next = dynamic_shared<int>();  // [kTileWarps][experts]
  const int lane = lane_of_warp(), warp = warp_of_block(), of_part = pairs.experts / parts;
  int* mine = next + warp * pairs.experts;
  for (std::int64_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
    const std::int64_t begin = (tile * kTileWarps + warp) * tiles.per_warp;
    count_run(mine, pairs, begin, tiles.per_warp, lane);
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < pairs.experts; e += static_cast<int>(blockDim.x)) {
      int at = first[e] + tile_counts[tile * pairs.experts + e];
      for (int w = 0; w < kTileWarps; ++w) {
        const int here = next[w * pairs.experts + e];
        next[w * pairs.experts + e] = at;
        at += here;
      }
    }
    __syncthreads();
    for (std::int64_t i = begin; i < begin + tiles.per_warp; i += kWarp) {
      const int expert = pairs.expert(i + lane);
      const unsigned same = __match_any_sync(kAllLanes, expert), before = same & ((1U << lane) - 1U);
      const std::int64_t place = expert >= 0 ? mine[expert] + __popc(before) : 0;
      __syncwarp();  // all have read
      if (expert >= 0 && before == 0) mine[expert] += __popc(same);
      __syncwarp();
      if (i + lane >= pairs.count) continue;
      const std::int64_t pair = pairs.number(i + lane);
      const bool has_place = expert >= 0 && place < (expert / of_part + 1) * capacity;
      position[pair] = has_place ? static_cast<std::int32_t>(place) : -1;
      if (!has_place) continue;
      source_row[place] = static_cast<std::int32_t>(pair / pairs.k);
      source_factor[place] = static_cast<std::int32_t>(pair);
    }
    __syncthreads();  // before the next tile's counts begin at 0
  }
}

}  // namespace

void expert_map_gpu(const ExpertMap& op, GpuStream stream) {
  check(op);
  const Pairs pairs{op.ids, op.rows, op.rows * op.k, op.k, op.experts, op.order};
  const PairTiles tiles = tiles_of(pairs.count);
  int* tile_counts = op.scratch;
  int* first = op.scratch + tiles.count * op.experts;
  const unsigned grid = blocks_for(tiles.count, 1);
  const std::size_t shared_bytes = sizeof(int) * kTileWarps * static_cast<std::size_t>(op.experts);
  const auto place_bytes = sizeof(std::int32_t) * static_cast<std::size_t>(op.parts * op.capacity);

  launch("count pairs", count_pairs_kernel, grid, kTileThreads, shared_bytes, stream, tile_counts, pairs, tiles);
  launch("scan tiles", scan_tiles_kernel, 1, kMaxExperts, 0, stream, tile_counts, first, op.counts, op.offsets,
         op.overflow, tiles.count, op.experts, op.parts, op.capacity);
  if (place_bytes > 0) {  // -1, where nobody comes
    TOPOMOE_CUDA_TRY("empty places", cudaMemsetAsync(op.source_row, 0xFF, place_bytes, stream));
    TOPOMOE_CUDA_TRY("empty places", cudaMemsetAsync(op.source_factor, 0xFF, place_bytes, stream));
  }
  launch("place pairs", place_pairs_kernel, grid, kTileThreads, shared_bytes, stream, op.position, op.source_row,
         op.source_factor, static_cast<const int*>(tile_counts), static_cast<const int*>(first), pairs, tiles, op.parts,
         op.capacity);
}

}  // namespace topomoe::kernels
