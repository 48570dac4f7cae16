// The harness's own language: what barriers, shuffles, votes, atomics and shared memory do, and what is said of those
// that would hang a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "kernels/dynamic_shared.cuh"
#include "kernels/launch.hpp"

namespace topomoe::kernels {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFU;

// One int a thread, written by `kernel`.
std::vector<int> ints_of(void (*kernel)(int*), unsigned blocks, unsigned threads, std::size_t shared_bytes = 0) {
  std::vector<int> out(std::size_t{blocks} * threads, -7);
  launch("test", kernel, blocks, threads, shared_bytes, nullptr, out.data());
  return out;
}

// CUDA's error of a launch that must not pass.
std::string error_of(const std::function<void()>& launching) {
  try {
    launching();
  } catch (const CudaError& error) {
    return error.what();
  }
  return "no error";
}
std::string line(int number) { return "semantics_test.cu:" + std::to_string(number); }

#define EXPECT_SAYS(words, part) EXPECT_NE((words).find(part), std::string::npos) << (words)

__global__ void shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x), value = 100 + lane;
  out += 4 * lane;
  out[0] = __shfl_sync(kAll, value, lane + 1, 8);
  out[1] = __shfl_up_sync(kAll, value, 3, 8);
  out[2] = __shfl_down_sync(kAll, value, 3, 8);
  out[3] = __shfl_xor_sync(kAll, value, 9, 16);
}

TEST(SimtShuffle, SegmentsAreThoseOfPtx) {
  std::vector<int> out(128);
  launch("shuffles", shuffles, 1, 32, 0, nullptr, out.data());
  for (int lane = 0; lane < 32; ++lane) {
    const int first = lane / 8 * 8;
    const std::vector<int> expected{100 + first + (lane + 1) % 8,                 // modulo the width
                                    100 + (lane - 3 >= first ? lane - 3 : lane),  // its own beyond the segment
                                    100 + (lane + 3 < first + 8 ? lane + 3 : lane),
                                    100 + (lane ^ 9)};  // 9 < 16 stays in the segment
    EXPECT_EQ(std::vector<int>(&out[static_cast<std::size_t>(4 * lane)], &out[static_cast<std::size_t>(4 * lane)] + 4),
              expected)
        << "lane " << lane;
  }
}

__global__ void halves_at_once(int* out) {
  const unsigned lane = threadIdx.x, mask = lane < 16 ? 0xFFFFU : 0xFFFF0000U;
  double sum = lane;  // 8 bytes travel too
  for (int by = 8; by > 0; by /= 2) sum += __shfl_xor_sync(mask, sum, by);
  out[lane] = static_cast<int>(sum);
}

TEST(SimtShuffle, HalvesOfAWarp_DoNotWaitForEachOther) {
  const std::vector<int> out = ints_of(halves_at_once, 1, 32);
  EXPECT_EQ(out[3], 120);         // 0 + ... + 15
  EXPECT_EQ(out[17], 120 + 256);  // 16 more each
}

__global__ void from_outside(int* out) { out[threadIdx.x] = threadIdx.x < 16 ? __shfl_down_sync(0xFFFFU, 5, 8) : 0; }

TEST(SimtShuffle, LaneThatTheMaskLeavesOut_GivesGarbage) {
  const std::vector<int> out = ints_of(from_outside, 1, 32);
  EXPECT_EQ(out[7], 5);
  EXPECT_EQ(out[8], -1);  // of lane 16: undefined on a GPU, all bits set here
}

__global__ void votes(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  const bool even = i % 2 == 0;
  int right = __ballot_sync(kAll, even) == 0x55555555U;
  right += __any_sync(kAll, i % 32 == 5) == 1 && __any_sync(kAll, 0) == 0;
  right += __all_sync(kAll, 1) == 1 && __all_sync(kAll, i % 32 != 5) == 0;
  right += __match_any_sync(kAll, i % 4) == 0x11111111U << (i % 4);
  right += __syncthreads_count(even) == static_cast<int>(blockDim.x) / 2;
  right += __syncthreads_or(i == 40) == 1 && __syncthreads_and(i != 40) == 0;
  right += (__activemask() >> (i % 32) & 1U) != 0;
  out[i] = right;
}

TEST(SimtVote, OfWarpsAndBlocks) { EXPECT_EQ(ints_of(votes, 1, 64), std::vector<int>(64, 7)); }

__global__ void sum_of_block(int* out) {
  __shared__ int sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, static_cast<int>(threadIdx.x));
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum + static_cast<int>(blockIdx.x);
}

TEST(SimtBlock, SharedMemoryAndBarriers) {
  const std::vector<int> out = ints_of(sum_of_block, 3, 100);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], 4950 + static_cast<int>(i) / 100);
}

__global__ void reverse_dynamic(int* out) {
  int* words = dynamic_shared<int>();
  words[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = words[blockDim.x - 1 - threadIdx.x];
}

TEST(SimtBlock, DynamicSharedMemory) {
  const std::vector<int> out = ints_of(reverse_dynamic, 1, 256, 1024);
  EXPECT_EQ(out[0], 255);
  EXPECT_EQ(out[255], 0);
}

TEST(SimtBlock, MoreThan48KiB_WantsToBeAskedFor) {
  EXPECT_EQ(cudaFuncSetAttribute(reverse_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 100'000), cudaSuccess);
  EXPECT_EQ(ints_of(reverse_dynamic, 1, 256, 100'000)[0], 255);
}

__global__ void left_by_others(float* out) {
  __shared__ float word;
  int* dynamic = dynamic_shared<int>();
  out[blockIdx.x] = word + static_cast<float>(*dynamic);
  word = 1.0F;
  *dynamic = 1;
}

TEST(SimtBlock, SharedMemoryOfTheBlockBefore_IsOverwritten) {
  std::vector<float> out(8);
  launch("left", left_by_others, 8, 1, 16, nullptr, out.data());
  for (const float x : out) EXPECT_TRUE(std::isnan(x));
}

__global__ void positions(int* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  atomicAdd(&out[block * blockDim.x * blockDim.y * blockDim.z + thread], 1);
}

TEST(SimtGrid, EachThreadOfEachBlock_RunsOnce) {
  std::vector<int> out(2 * 3 * 4 * 5 * 6 * 7);
  launch("positions", positions, dim3(2, 3, 4), dim3(5, 6, 7), 0, nullptr, out.data());
  EXPECT_EQ(out, std::vector<int>(out.size(), 1));
}

__global__ void tickets(int* out, int* next) { out[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(next, 1); }

std::vector<int> order(std::uint64_t seed) {
  simt::set_seed(seed);
  std::vector<int> out(4 * 40);
  int next = 0;
  launch("tickets", tickets, 4, 40, 0, nullptr, out.data(), &next);
  return out;
}

TEST(SimtGrid, Seed_DecidesTheOrderOfThreadsAndBlocks) {
  EXPECT_EQ(order(3), order(3));
  std::set<std::vector<int>> orders;
  std::set<int> first_blocks;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<int> now = order(seed);
    orders.insert(now);
    for (std::size_t i = 0; i < now.size(); ++i)
      if (now[i] == 0) first_blocks.insert(static_cast<int>(i) / 40);
  }
  EXPECT_EQ(orders.size(), 20U);
  EXPECT_EQ(first_blocks.size(), 4U);
}

__global__ void count_threads(int* count) { atomicAdd(count, 1); }

TEST(SimtGrid, ManyBlocks_ShareAFewFibers) {
  int count = 0;
  launch("many", count_threads, 65535, 4, 0, nullptr, &count);
  EXPECT_EQ(count, 65535 * 4);
}

__global__ void some_leave(int*) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
}
constexpr int kSomeLeave = __LINE__ - 2;

TEST(SimtTrouble, BarrierThatSomeNeverReach) {
  const std::string words = error_of([] { ints_of(some_leave, 1, 64); });
  EXPECT_SAYS(words, "cuda: test: cudaErrorLaunchFailure");
  EXPECT_SAYS(words, "thread (0, 0, 0) of block (0, 0, 0) waits in __syncthreads at ");
  EXPECT_SAYS(words, line(kSomeLeave) + ", but thread (40, 0, 0) has ended");
}

__global__ void two_places(int*) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
constexpr int kTwoPlaces = __LINE__ - 3;

TEST(SimtTrouble, BarriersAtTwoPlaces) {
  const std::string words = error_of([] { ints_of(two_places, 1, 32); });
  EXPECT_SAYS(words, line(kTwoPlaces - 2) + ", but thread (1, 0, 0) waits in __syncthreads at ");
  EXPECT_SAYS(words, line(kTwoPlaces));
}

__global__ void one_lane_leaves(int* out) {
  if (threadIdx.x == 37) return;
  out[threadIdx.x] = __shfl_xor_sync(kAll, 1, 1);
}
constexpr int kOneLaneLeaves = __LINE__ - 2;

TEST(SimtTrouble, MaskThatNamesALaneThatEnded) {
  const std::string words = error_of([] { ints_of(one_lane_leaves, 1, 64); });
  EXPECT_SAYS(words, "thread (32, 0, 0) of block (0, 0, 0) waits in __shfl_xor_sync, mask 0xffffffff, at ");
  EXPECT_SAYS(words, line(kOneLaneLeaves) + ", but lane 5, thread (37, 0, 0) has ended");
}

__global__ void two_masks(int* out) {
  const unsigned mask = threadIdx.x == 0 ? kAll : 0xFFFFFFFEU;
  out[threadIdx.x] = __shfl_sync(mask, 1, 1);
}

TEST(SimtTrouble, LanesWithDifferentMasks) {
  const std::string words = error_of([] { ints_of(two_masks, 1, 32); });
  EXPECT_SAYS(words, "mask 0xffffffff");
}

__global__ void not_its_own(int*) { __syncwarp(0xFFFF0000U); }

TEST(SimtTrouble, MaskThatLeavesOutItsCaller) {
  const std::string words = error_of([] { ints_of(not_its_own, 1, 16); });
  EXPECT_SAYS(words, "calls __syncwarp, mask 0xffff0000, at ");
  EXPECT_SAYS(words, "whose mask leaves out the lane that calls it");
}

__global__ void whole_warp(int* out) { out[threadIdx.x] = __any_sync(kAll, 1); }

TEST(SimtTrouble, MaskThatNamesMoreThanTheBlockHas) {
  const std::string words = error_of([] { ints_of(whole_warp, 1, 40); });
  EXPECT_SAYS(words, "but the block has no lane 8 in that warp");
}

__global__ void warp_waits_for_block(int*) {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}

TEST(SimtTrouble, SomeInTheBlocksBarrierSomeInTheWarps) {
  EXPECT_SAYS(error_of([] { ints_of(warp_waits_for_block, 1, 32); }), "but thread (16, 0, 0) waits in __syncwarp");
}

TEST(SimtTrouble, IsOver_WithTheNextLaunch) {
  error_of([] { ints_of(some_leave, 1, 64); });
  EXPECT_EQ(ints_of(votes, 1, 64), std::vector<int>(64, 7));
}

TEST(SimtTrouble, LaunchesThatNoGpuTakes) {
  EXPECT_SAYS(error_of([] { ints_of(votes, 1, 1025); }), "cudaErrorInvalidConfiguration, blocks of (1025, 1, 1)");
  EXPECT_SAYS(error_of([] { ints_of(votes, 1, 64, 50'000); }), "50000 bytes of dynamic shared memory: at most 49152");
  EXPECT_SAYS(error_of([] { launch("test", votes, dim3(1, 65536), 64, 0, nullptr, nullptr); }),
              "a grid of (1, 65536, 1)");
}

}  // namespace
}  // namespace topomoe::kernels
