// The portable GEMM, and the one place that chooses between it and oneDNN.
//
// c is computed in tiles of kBlockRows x kColumns. A tile's fp32 accumulators live on the stack while k
// is walked in slices; a and b are first packed into fp32, so that element types and transposition
// are dealt with once. Vectors run across columns: a sum is never split, its order is that of k.
#include "kernels/matmul.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/bf16.hpp"
#include "kernels/progress.hpp"

namespace topomoe::kernels {
namespace {

constexpr std::int64_t kBlockRows = 64;
constexpr std::int64_t kColumns = 16;
constexpr std::int64_t kSlice = 256;  // of k: a slice of b, 16 KiB, stays in the first-level cache

// tile[0..rows) += a[0..rows) x b; a has rows `a_stride` apart, b is [depth][kColumns]. `Width` floats
// make a vector and `Rows` rows are computed at once, as many as the registers of the target hold.
template <std::size_t Width, std::size_t Rows>
[[gnu::always_inline]] inline void add_products(float (*tile)[kColumns], const float* a, std::int64_t a_stride,
                                                const float* b, std::int64_t rows, std::int64_t depth) {
  typedef float Vector __attribute__((vector_size(Width * sizeof(float))));
  constexpr std::size_t kVectors = static_cast<std::size_t>(kColumns) / Width;
  constexpr auto kRows = static_cast<std::int64_t>(Rows);
  for (std::int64_t first = 0; first < rows; first += kRows) {
    Vector sum[Rows][kVectors];
    std::memcpy(sum, tile[first], sizeof sum);
    const float* a_rows = a + first * a_stride;
    for (std::int64_t i = 0; i < depth; ++i) {
      Vector b_row[kVectors];
      std::memcpy(b_row, b + i * kColumns, sizeof b_row);
      const float* a_element = a_rows + i;
      for (std::size_t r = 0; r < Rows; ++r, a_element += a_stride) {
        for (std::size_t v = 0; v < kVectors; ++v) sum[r][v] += *a_element * b_row[v];
      }
    }
    std::memcpy(tile[first], sum, sizeof sum);
  }
}

using AddProducts = void (*)(float (*)[kColumns], const float*, std::int64_t, const float*, std::int64_t, std::int64_t);

void add_products_baseline(float (*tile)[kColumns], const float* a, std::int64_t a_stride, const float* b,
                           std::int64_t rows, std::int64_t depth) {
  add_products<4, 2>(tile, a, a_stride, b, rows, depth);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void add_products_avx2(float (*tile)[kColumns], const float* a, std::int64_t a_stride,
                                               const float* b, std::int64_t rows, std::int64_t depth) {
  add_products<8, 4>(tile, a, a_stride, b, rows, depth);
}
[[gnu::target("avx512f")]] void add_products_avx512(float (*tile)[kColumns], const float* a, std::int64_t a_stride,
                                                    const float* b, std::int64_t rows, std::int64_t depth) {
  add_products<16, 8>(tile, a, a_stride, b, rows, depth);
}
#endif

// Same bits from each of them: the operations on one element and their order are the same.
AddProducts choose_add_products() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return add_products_avx512;
  if (__builtin_cpu_supports("avx2")) return add_products_avx2;
#endif
  return add_products_baseline;
}

// to[i * to_stride + j] = from[i * stride_i + j * stride_j] for i < rows, j < columns.
void pack(float* to, std::int64_t to_stride, const void* from, DType dtype, std::int64_t offset, std::int64_t stride_i,
          std::int64_t stride_j, std::int64_t rows, std::int64_t columns) {
  with_element(dtype, [&]<class T>(T) {
    const T* source = static_cast<const T*>(from) + offset;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) to[i * to_stride + j] = to_float(source[i * stride_i + j * stride_j]);
    }
  });
}

void store(const Matmul& op, const float (*tile)[kColumns], std::int64_t row, std::int64_t column, std::int64_t rows,
           std::int64_t columns) {
  with_element(op.c_dtype, [&]<class T>(T) {
    for (std::int64_t i = 0; i < rows; ++i) {
      T* c = static_cast<T*>(op.c) + (row + i) * op.n + column;
      for (std::int64_t j = 0; j < columns; ++j) {
        const float value = op.scale * tile[i][j];
        c[j] = from_float<T>(op.accumulate ? to_float(c[j]) + value : value);
      }
    }
  });
}

}  // namespace

void matmul_portable(const Matmul& op, const ProgressHook& hook) {
  static const AddProducts add = choose_add_products();
  Progress progress(hook);
  std::vector<float> a(static_cast<std::size_t>(std::min(op.m, kBlockRows) + 8) * static_cast<std::size_t>(op.k));
  alignas(64) float b[kSlice * kColumns] = {};
  alignas(64) float tile[kBlockRows][kColumns];

  for (std::int64_t row = 0; row < op.m; row += kBlockRows) {
    const std::int64_t rows = std::min(kBlockRows, op.m - row);
    const std::int64_t padded_rows = (rows + 7) / 8 * 8;  // of add_products; what they hold is not stored
    pack(a.data(), op.k, op.a, op.a_dtype, op.a_transposed ? row : row * op.k, op.a_transposed ? 1 : op.k,
         op.a_transposed ? op.m : 1, rows, op.k);
    for (std::int64_t column = 0; column < op.n; column += kColumns) {
      const std::int64_t columns = std::min(kColumns, op.n - column);
      std::memset(tile, 0, sizeof tile);
      for (std::int64_t first = 0; first < op.k; first += kSlice) {
        const std::int64_t depth = std::min(kSlice, op.k - first);
        pack(b, kColumns, op.b, op.b_dtype, op.b_transposed ? column * op.k + first : first * op.n + column,
             op.b_transposed ? 1 : op.n, op.b_transposed ? op.k : 1, depth, columns);
        add(tile, a.data() + first, op.k, b, padded_rows, depth);
        progress.did(2 * padded_rows * kColumns * depth);
      }
      store(op, tile, row, column, rows, columns);
    }
  }
}

void matmul_cpu(const Matmul& op, const ProgressHook& hook) {
  if (!op.row_invariant && matmul_onednn(op, hook)) return;
  matmul_portable(op, hook);
}

}  // namespace topomoe::kernels
