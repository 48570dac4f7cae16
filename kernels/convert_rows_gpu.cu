// Rows to fp8 and back on a GPU: eight lanes a group of 128, 16 elements each, which are one access of 16 bytes on the
// side of fp8.
#include <cuda_fp8.h>

#include "kernels/convert_rows.hpp"
#include "kernels/fp8.hpp"
#include "kernels/grid_gpu.cuh"

namespace topomoe::kernels {
namespace {

constexpr int kMine = 16;                                      // elements of a lane
constexpr int kLanes = static_cast<int>(kScaleGroup) / kMine;  // of a group
constexpr std::int64_t kGroupsPerBlock = kThreads / kLanes;    // groups of one row follow each other

static_assert(kLanes * kMine == kScaleGroup && kWarp % kLanes == 0);

struct Strides {
  std::int64_t codes, scales;
};

template <class T>
struct alignas(16) Run {
  T element[kMine];
};

// This lane's elements of a group: `count` of them, at `stride`. Whole runs lie together; of a group that is cut short,
// or of rows that do not begin at multiples of 16 bytes, lanes take turns.
struct Share {
  std::int64_t first;
  int stride, count;

  __device__ Share(std::int64_t group_begin, std::int64_t group_size, bool whole, int lane) {
    first = group_begin + (whole ? lane * kMine : lane);
    stride = whole ? 1 : kLanes;
    count = whole ? kMine : static_cast<int>((group_size - lane + kLanes - 1) / kLanes);
  }
};

// Elements beyond `count` are 0.
template <class T>
__device__ void read(Run<T>& run, const T* row, const Share& share, bool whole) {
  if (whole) {
    run = *reinterpret_cast<const Run<T>*>(row + share.first);
    return;
  }
#pragma unroll
  for (int i = 0; i < kMine; ++i) run.element[i] = i < share.count ? row[share.first + i * share.stride] : T{};
}
template <class T>
__device__ void write(T* row, const Run<T>& run, const Share& share, bool whole) {
  if (whole) {
    *reinterpret_cast<Run<T>*>(row + share.first) = run;
    return;
  }
#pragma unroll
  for (int i = 0; i < kMine; ++i)
    if (i < share.count) row[share.first + i * share.stride] = run.element[i];
}

// Calls f(row, group, share, whole) for each of the `of_row` groups of each row in turn; a warp's lanes go together,
// those of no group with `row` -1.
template <class F>
__device__ void for_each_group(std::int64_t rows, std::int64_t columns, std::int64_t of_row, bool aligned, F&& f) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t groups = rows * of_row;
  const std::int64_t mine = threadIdx.x / kLanes;
  for (std::int64_t first = blockIdx.x * kGroupsPerBlock; first < groups; first += gridDim.x * kGroupsPerBlock) {
    const std::int64_t group = first + mine < groups ? (first + mine) % of_row : 0;
    const std::int64_t begin = group * kScaleGroup, left = columns - begin;
    const bool whole = aligned && left >= kScaleGroup;
    f(first + mine < groups ? (first + mine) / of_row : -1, group,
      Share(begin, left < kScaleGroup ? left : kScaleGroup, whole, lane), whole);
  }
}

template <class T>
__global__ void to_fp8_kernel(std::uint8_t* out, float* scales, const T* in, std::int64_t rows, std::int64_t columns,
                              std::int64_t of_row, Strides stride, bool aligned) {
  for_each_group(
      rows, columns, of_row, aligned, [&](std::int64_t row, std::int64_t group, const Share& share, bool whole) {
        Run<T> values{};
        if (row >= 0) read(values, in + row * columns, share, whole);
        float amax = 0.0F;
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          const float size = fabsf(load(values.element[i]));
          if (isfinite(size)) amax = fmaxf(amax, size);
        }
#pragma unroll
        for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, lanes));
        if (row < 0) return;
        const float scale = fmaxf(amax / kFp8Largest, kLeastScale), inverse = 1.0F / scale;
        Run<std::uint8_t> codes;
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          const float x = load(values.element[i]);
          codes.element[i] = isfinite(x) ? __nv_cvt_float_to_fp8(x * inverse, __NV_SATFINITE, __NV_E4M3) : kFp8Nan;
        }
        write(out + row * stride.codes, codes, share, whole);
        if (threadIdx.x % kLanes == 0) scales[row * stride.scales + group] = scale;
      });
}

__device__ float value_of(std::uint8_t code) {
  __nv_fp8_e4m3 x;
  x.__x = code;
  return static_cast<float>(x);
}

template <class T>
__global__ void from_fp8_kernel(T* out, const std::uint8_t* in, const float* scales, std::int64_t rows,
                                std::int64_t columns, std::int64_t of_row, Strides stride, bool aligned) {
  for_each_group(rows, columns, of_row, aligned,
                 [&](std::int64_t row, std::int64_t group, const Share& share, bool whole) {
                   if (row < 0) return;
                   Run<std::uint8_t> codes;
                   read(codes, in + row * stride.codes, share, whole);
                   const float scale = scales[row * stride.scales + group];
                   Run<T> values;
#pragma unroll
                   for (int i = 0; i < kMine; ++i) values.element[i] = stored<T>(value_of(codes.element[i]) * scale);
                   write(out + row * columns, values, share, whole);
                 });
}

// Rows of both sides begin at multiples of 16 bytes: those of fp8 are the narrower.
bool rows_aligned(std::int64_t columns, const Strides& stride, const void* wide, const void* narrow) {
  return are_aligned(wide, narrow) && columns % 16 == 0 && stride.codes % 16 == 0;
}

template <class Op>
Strides strides_of(const Op& op) {
  return {codes_stride(op), scales_stride(op)};
}

}  // namespace

void to_fp8_gpu(const ToFp8& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    launch("to_fp8", to_fp8_kernel<T>, blocks_for(op.rows * scales_of(op.columns), kGroupsPerBlock), kThreads, 0,
           stream, op.out, op.scales, static_cast<const T*>(op.in), op.rows, op.columns, scales_of(op.columns),
           strides_of(op), rows_aligned(op.columns, strides_of(op), op.in, op.out));
  });
}

void from_fp8_gpu(const FromFp8& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    launch("from_fp8", from_fp8_kernel<T>, blocks_for(op.rows * scales_of(op.columns), kGroupsPerBlock), kThreads, 0,
           stream, static_cast<T*>(op.out), op.in, op.scales, op.rows, op.columns, scales_of(op.columns),
           strides_of(op), rows_aligned(op.columns, strides_of(op), op.out, op.in));
  });
}

}  // namespace topomoe::kernels
