// The row movers on a GPU: gather_rows, sum_rows, row_dots, ordered_sum.
//
// All are bound by memory: 16 bytes a thread where rows allow, each row read once. Compiled without contraction
// (CMakeLists.txt), so that each gives the bits of its _cpu.cpp.
#include "kernels/gather_rows.hpp"
#include "kernels/grid_gpu.cuh"
#include "kernels/ordered_sum.hpp"
#include "kernels/sum_rows.hpp"

namespace topomoe::kernels {
namespace {

template <class T>
__global__ void gather_rows_kernel(T* __restrict__ out, const T* __restrict__ in, const std::int32_t* source_row,
                                   const float* scale, std::int64_t rows, std::int64_t columns, std::int64_t slices) {
  for (std::int64_t row = first_row(); row < rows; row += row_stride()) {
    const std::int64_t source = source_row[row];
    const float factor = scale != nullptr && source >= 0 ? scale[row] : 1.0F;
    for_each_piece(columns, slices, threadIdx.x, blockDim.x, [&]<int W>(Width<W>, std::int64_t i) {
      Piece<T, W> value{};
      if (source >= 0) value = load_piece<W>(in + source * columns + i);
      if (source >= 0 && scale != nullptr) {
        for (int e = 0; e < W; ++e) value.element[e] = stored<T>(factor * load(value.element[e]));
      }
      store_piece(out + row * columns + i, value);
    });
  }
}

template <class T>
__global__ void sum_rows_kernel(T* __restrict__ out, const T* __restrict__ in, const std::int32_t* position,
                                const float* weight, std::int64_t rows, std::int64_t columns, std::int64_t slices,
                                int k, bool accumulate) {
  for (std::int64_t row = first_row(); row < rows; row += row_stride()) {
    for_each_piece(columns, slices, threadIdx.x, blockDim.x, [&]<int W>(Width<W>, std::int64_t i) {
      float sum[W] = {};
      if (accumulate) {
        const Piece<T, W> before = load_piece<W>(out + row * columns + i);
        for (int e = 0; e < W; ++e) sum[e] = load(before.element[e]);
      }
#pragma unroll 4
      for (std::int64_t slot = row * k; slot < (row + 1) * k; ++slot) {
        const std::int64_t source = position[slot];
        if (source < 0) continue;
        const float factor = weight == nullptr ? 1.0F : weight[slot];
        const Piece<T, W> value = load_piece<W>(in + source * columns + i);
        for (int e = 0; e < W; ++e) sum[e] += factor * load(value.element[e]);
      }
      Piece<T, W> result;
      for (int e = 0; e < W; ++e) result.element[e] = stored<T>(sum[e]);
      store_piece(out + row * columns + i, result);
    });
  }
}

// One warp a slot. The order of addition is the CPU's: lane i adds columns i, i + 32, ..., then lanes fold in halves;
// but a lane reads eight columns at once, so that products change lanes through shared memory.
template <class T>
__global__ void row_dots_kernel(float* out, const T* a, const T* b, const std::int32_t* position, std::int64_t slots,
                                std::int64_t columns, std::int64_t slices, int k) {
  __shared__ Piece<float, kSlice> products[kThreads / kWarp][kWarp];
  const int lane = lane_of_warp(), warp = warp_of_block();
  for (std::int64_t slot = first_warp(); slot < slots; slot += warp_stride()) {  // the same for a whole warp
    const std::int64_t source = position[slot];
    float sum = 0.0F;
    if (source >= 0) {
      const T* left = a + slot / k * columns;
      const T* right = b + source * columns;
      std::int64_t first = 0;
      for (; first + kWarp * kSlice <= slices * kSlice; first += kWarp * kSlice) {
        const Piece<T, kSlice> x = load_piece<kSlice>(left + first + lane * kSlice);
        const Piece<T, kSlice> y = load_piece<kSlice>(right + first + lane * kSlice);
        Piece<float, kSlice> product;
        for (int e = 0; e < kSlice; ++e) product.element[e] = load(x.element[e]) * load(y.element[e]);
        __syncwarp();  // the last ones have been read
        products[warp][lane] = product;
        __syncwarp();
        for (int i = 0; i < kSlice; ++i)
          sum += products[warp][lane / kSlice + i * (kWarp / kSlice)].element[lane % kSlice];
      }
      for (std::int64_t i = first + lane; i < columns; i += kWarp) sum += load(left[i]) * load(right[i]);
    }
    sum = warp_sum(sum);
    if (lane == 0) out[slot] = sum;
  }
}

// out may be the first block, so that nothing is said of what overlaps.
template <class T>
__global__ void ordered_sum_kernel(T* out, const T* in, std::int64_t count, std::int64_t slices, int blocks) {
  for_each_piece(count, slices, first_item(), item_stride(), [&]<int W>(Width<W>, std::int64_t i) {
    float sum[W] = {};
#pragma unroll 4
    for (int block = 0; block < blocks; ++block) {
      const Piece<T, W> value = load_piece<W>(in + block * count + i);
      for (int e = 0; e < W; ++e) {
        const float x = load(value.element[e]);
        sum[e] = block == 0 ? x : sum[e] + x;
      }
    }
    Piece<T, W> result;
    for (int e = 0; e < W; ++e) result.element[e] = stored<T>(sum[e]);
    store_piece(out + i, result);
  });
}

}  // namespace

void gather_rows_gpu(const GatherRows& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const dim3 block = row_block(op.columns);
    launch("gather_rows", gather_rows_kernel<T>, blocks_for(op.rows, block.y), block, 0, stream,
           static_cast<T*>(op.out), static_cast<const T*>(op.in), op.source_row, op.scale, op.rows, op.columns,
           whole_slices<T>(op.columns, op.out, op.in));
  });
}

void sum_rows_gpu(const SumRows& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const dim3 block = row_block(op.columns);
    launch("sum_rows", sum_rows_kernel<T>, blocks_for(op.rows, block.y), block, 0, stream, static_cast<T*>(op.out),
           static_cast<const T*>(op.in), op.position, op.weight, op.rows, op.columns,
           whole_slices<T>(op.columns, op.out, op.in), op.k, op.accumulate);
  });
}

void row_dots_gpu(const RowDots& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const std::int64_t slots = op.rows * op.k;
    launch("row_dots", row_dots_kernel<T>, blocks_for(slots, kThreads / kWarp), kThreads, 0, stream, op.out,
           static_cast<const T*>(op.a), static_cast<const T*>(op.b), op.position, slots, op.columns,
           whole_slices<T>(op.columns, op.a, op.b), op.k);
  });
}

void ordered_sum_gpu(const OrderedSum& op, GpuStream stream) {
  with_gpu_element(op.dtype, [&]<class T>(T) {
    const std::int64_t count = op.rows * op.columns;  // and each block that many further on
    launch("ordered_sum", ordered_sum_kernel<T>, blocks_for(count, kThreads * kSlice), kThreads, 0, stream,
           static_cast<T*>(op.out), static_cast<const T*>(op.in), count, whole_slices<T>(count, op.out, op.in),
           op.blocks);
  });
}

}  // namespace topomoe::kernels
