// How expert_map_gpu.cu cuts pairs among blocks, which the size of its scratch memory follows from.
#pragma once

#include <algorithm>
#include <cstdint>

namespace topomoe::kernels {

struct PairTiles {
  std::int64_t count;     // tiles, each a block's
  std::int64_t per_warp;  // pairs, a multiple of 32
};

constexpr int kTileWarps = 8;

// One block then adds up all tiles, so that there are few: half as many as an H100 has SMs.
constexpr PairTiles tiles_of(std::int64_t pairs) {
  constexpr std::int64_t most = 64, least = kTileWarps * 32;
  const std::int64_t steps = std::max<std::int64_t>(1, (pairs + most * least - 1) / (most * least));
  return {(pairs + steps * least - 1) / (steps * least), steps * 32};
}

}  // namespace topomoe::kernels
