// The experts on a GPU: cuBLAS for the products and one elementwise launch between them.
//
// Products are fp32 (not TF32) or bf16 with an fp32 accumulator. One call a product where all experts have equally many
// rows and their matrices lie in a block, as in bounded mode; else one an expert: cublasGemmGroupedBatchedEx would save
// those, but wants pointers in GPU memory, and cannot add bf16 products to an fp32 gradient. Nothing here reads GPU
// memory or waits, so that a CUDA graph may hold it once the handle has been used before (cuBLAS then has its
// workspace).
#include <cublas_v2.h>

#include <algorithm>

#include "kernels/cuda_error.hpp"
#include "kernels/gelu.hpp"
#include "kernels/grouped_ffn.hpp"
#include "kernels/row_span.hpp"
#include "kernels/swiglu.hpp"

namespace topomoe::kernels {
namespace {

cudaDataType_t data_type(DType t) { return t == DType::f32 ? CUDA_R_32F : CUDA_R_16BF; }

// c[m, n] (= or +=) scale * a x b, row-major, as in matmul.hpp.
struct Product {
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool a_transposed = false;
  bool b_transposed = false;
  bool accumulate = false;
  float scale = 1.0F;
  DType dtype = DType::f32;
  DType c_dtype = DType::f32;
};

// `count` products, whose matrices follow each other. cuBLAS is column-major, to which our row-major c is its
// transpose: c^T = b^T x a^T.
void multiply(const Product& p, std::int64_t count, GpuBlas blas) {
  if (p.m == 0 || p.n == 0 || count == 0) return;
  const float beta = p.accumulate ? 1.0F : 0.0F;
  const auto b_op = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, a_op = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const std::int64_t b_stride = p.b_transposed ? p.k : p.n, a_stride = p.a_transposed ? p.m : p.k;
  if (count == 1) {
    TOPOMOE_CUBLAS_TRY("expert product",
                       cublasGemmEx_64(blas, b_op, a_op, p.n, p.m, p.k, &p.scale, p.b, data_type(p.dtype), b_stride,
                                       p.a, data_type(p.dtype), a_stride, &beta, p.c, data_type(p.c_dtype), p.n,
                                       CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  } else {
    TOPOMOE_CUBLAS_TRY("experts' products",
                       cublasGemmStridedBatchedEx_64(blas, b_op, a_op, p.n, p.m, p.k, &p.scale, p.b, data_type(p.dtype),
                                                     b_stride, p.k * p.n, p.a, data_type(p.dtype), a_stride, p.m * p.k,
                                                     &beta, p.c, data_type(p.c_dtype), p.n, p.m * p.n, count,
                                                     CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  }
}

// Rows of each expert, if all have as many; else -1.
std::int64_t equal_rows(std::span<const std::int64_t> offsets) {
  const std::int64_t rows = offsets[1] - offsets[0];
  for (std::size_t e = 1; e + 1 < offsets.size(); ++e)
    if (offsets[e + 1] - offsets[e] != rows) return -1;
  return rows;
}

// Each expert's rows times its own matrix: out [rows, n] (= or +=) in [rows, k] x matrix.
struct RowsProduct {
  const void* in;
  ExpertMatrices matrices;
  void* out;
  std::int64_t n, k;
  bool transposed;  // the matrix: [n, k]
  bool accumulate = false;
};

void multiply_rows(const RowsProduct& p, std::span<const std::int64_t> offsets, DType t, GpuBlas blas) {
  if (offsets.size() < 2) return;
  const std::int64_t matrix = p.n * p.k, rows = equal_rows(offsets);
  Product product{
      .n = p.n, .k = p.k, .b_transposed = p.transposed, .accumulate = p.accumulate, .dtype = t, .c_dtype = t};
  if (rows >= 0 && p.matrices.each == nullptr) {
    product.m = rows, product.a = p.in, product.b = p.matrices.of(0, matrix, t), product.c = p.out;
    return multiply(product, static_cast<std::int64_t>(offsets.size()) - 1, blas);
  }
  for_each_expert(offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t count) {
    product.m = count;
    product.a = element_at(p.in, first * p.k, t);
    product.b = p.matrices.of(expert, matrix, t);
    product.c = element_at(p.out, first * p.n, t);
    multiply(product, 1, blas);
  });
}

// gradient of [m, n] += scale * left^T x right, summed over each expert's rows: left [rows, m], right [rows, n].
void add_gradients(const void* left, std::int64_t m, const void* right, std::int64_t n,
                   const ExpertGradients& gradients, const GroupedFfnWgrad& op, GpuBlas blas) {
  if (op.offsets.size() < 2) return;
  const std::int64_t rows = equal_rows(op.offsets);
  Product product{.m = m, .n = n, .a_transposed = true, .accumulate = true, .scale = op.scale, .dtype = op.dtype};
  if (rows == 0) return;
  if (rows > 0 && gradients.each == nullptr) {
    product.k = rows, product.a = left, product.b = right, product.c = gradients.of(0, m * n);
    return multiply(product, static_cast<std::int64_t>(op.offsets.size()) - 1, blas);
  }
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t count) {
    product.k = count;
    product.a = element_at(left, first * m, op.dtype);
    product.b = element_at(right, first * n, op.dtype);
    product.c = gradients.of(expert, m * n);
    multiply(product, 1, blas);
  });
}

}  // namespace

void grouped_ffn_gpu(const GroupedFfn& op, GpuBlas blas, GpuStream stream) {
  if (op.offsets.empty()) return;
  const DType t = op.dtype;
  const std::int64_t count = op.offsets.back() * op.ffn;  // rows of all experts lie together: one launch
  if (op.activation == Activation::gelu) {
    multiply_rows({op.in, op.w_up, op.up, op.ffn, op.hidden, true}, op.offsets, t, blas);
    gelu_gpu({.act = op.act, .up = op.up, .count = count, .dtype = t}, stream);
  } else {
    multiply_rows({op.in, op.w_gate, op.gate, op.ffn, op.hidden, true}, op.offsets, t, blas);
    multiply_rows({op.in, op.w_up, op.up, op.ffn, op.hidden, true}, op.offsets, t, blas);
    swiglu_gpu({.act = op.act, .gate = op.gate, .up = op.up, .count = count, .dtype = t}, stream);
  }
  multiply_rows({op.act, op.w_down, op.out, op.hidden, op.ffn, true}, op.offsets, t, blas);
}

void grouped_ffn_dgrad_gpu(const GroupedFfnDgrad& op, GpuBlas blas, GpuStream stream) {
  if (op.offsets.empty()) return;
  const DType t = op.dtype;
  const std::int64_t count = op.offsets.back() * op.ffn;
  const bool gelu = op.activation == Activation::gelu;
  void* const act_grad = gelu ? op.up_grad : op.gate_grad;  // until the activation's backward replaces it
  multiply_rows({op.out_grad, op.w_down, act_grad, op.ffn, op.hidden, false}, op.offsets, t, blas);
  if (gelu) {
    gelu_backward_gpu(
        {.act = op.act, .up_grad = op.up_grad, .act_grad = act_grad, .up = op.up, .count = count, .dtype = t}, stream);
    return multiply_rows({op.up_grad, op.w_up, op.in_grad, op.hidden, op.ffn, false}, op.offsets, t, blas);
  }
  swiglu_backward_gpu({.act = op.act,
                       .gate_grad = op.gate_grad,
                       .up_grad = op.up_grad,
                       .act_grad = act_grad,
                       .gate = op.gate,
                       .up = op.up,
                       .count = count,
                       .dtype = t},
                      stream);
  multiply_rows({op.gate_grad, op.w_gate, op.in_grad, op.hidden, op.ffn, false}, op.offsets, t, blas);
  multiply_rows({op.up_grad, op.w_up, op.in_grad, op.hidden, op.ffn, false, true}, op.offsets, t, blas);
}

void grouped_ffn_wgrad_gpu(const GroupedFfnWgrad& op, GpuBlas blas, GpuStream) {
  if (op.activation != Activation::gelu)
    add_gradients(op.gate_grad, op.ffn, op.in, op.hidden, op.w_gate_grad, op, blas);
  add_gradients(op.up_grad, op.ffn, op.in, op.hidden, op.w_up_grad, op, blas);
  add_gradients(op.out_grad, op.hidden, op.act, op.ffn, op.w_down_grad, op, blas);
}

}  // namespace topomoe::kernels
