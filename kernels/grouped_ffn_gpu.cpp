// The experts on a GPU: cuBLAS for the products, one expert after the other, and swiglu between them.
//
// Products are fp32 (not TF32) or bf16 with an fp32 accumulator. One call an expert and product costs
// launches: cublasGemmGroupedBatchedEx would save them, but cannot add bf16 products to an fp32 gradient.
#include <cublas_v2.h>

#include "kernels/cuda_error.hpp"
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

// cuBLAS is column-major, to which our row-major c is its transpose: c^T = b^T x a^T.
void multiply(const Product& p, GpuBlas blas) {
  if (p.m == 0 || p.n == 0) return;
  const float beta = p.accumulate ? 1.0F : 0.0F;
  TOPOMOE_CUBLAS_TRY(
      "expert product",
      cublasGemmEx_64(blas, p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, p.n,
                      p.m, p.k, &p.scale, p.b, data_type(p.dtype), p.b_transposed ? p.k : p.n, p.a, data_type(p.dtype),
                      p.a_transposed ? p.m : p.k, &beta, p.c, data_type(p.c_dtype), p.n, CUBLAS_COMPUTE_32F,
                      CUBLAS_GEMM_DEFAULT));
}

}  // namespace

void grouped_ffn_gpu(const GroupedFfn& op, GpuBlas blas, GpuStream stream) {
  const DType t = op.dtype;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::int64_t matrix = op.ffn * op.hidden;
    Product product{.m = rows, .n = op.ffn, .k = op.hidden, .b_transposed = true, .dtype = t, .c_dtype = t};
    product.a = element_at(op.in, first * op.hidden, t);
    product.b = op.w_gate.of(expert, matrix, t), product.c = element_at(op.gate, first * op.ffn, t);
    multiply(product, blas);
    product.b = op.w_up.of(expert, matrix, t), product.c = element_at(op.up, first * op.ffn, t);
    multiply(product, blas);
  });
  if (op.offsets.empty()) return;
  // Rows of all experts lie together: one launch.
  swiglu_gpu({.act = op.act, .gate = op.gate, .up = op.up, .count = op.offsets.back() * op.ffn, .dtype = t}, stream);
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    multiply({.a = element_at(op.act, first * op.ffn, t),
              .b = op.w_down.of(expert, op.ffn * op.hidden, t),
              .c = element_at(op.out, first * op.hidden, t),
              .m = rows,
              .n = op.hidden,
              .k = op.ffn,
              .b_transposed = true,
              .dtype = t,
              .c_dtype = t},
             blas);
  });
}

void grouped_ffn_dgrad_gpu(const GroupedFfnDgrad& op, GpuBlas blas, GpuStream stream) {
  const DType t = op.dtype;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    multiply({.a = element_at(op.out_grad, first * op.hidden, t),
              .b = op.w_down.of(expert, op.ffn * op.hidden, t),
              .c = element_at(op.gate_grad, first * op.ffn, t),  // holds the gradient of act for now
              .m = rows,
              .n = op.ffn,
              .k = op.hidden,
              .dtype = t,
              .c_dtype = t},
             blas);
  });
  if (op.offsets.empty()) return;
  swiglu_backward_gpu({.act = op.act,
                       .gate_grad = op.gate_grad,
                       .up_grad = op.up_grad,
                       .act_grad = op.gate_grad,
                       .gate = op.gate,
                       .up = op.up,
                       .count = op.offsets.back() * op.ffn,
                       .dtype = t},
                      stream);
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::int64_t matrix = op.ffn * op.hidden;
    Product product{.m = rows, .n = op.hidden, .k = op.ffn, .dtype = t, .c_dtype = t};
    product.c = element_at(op.in_grad, first * op.hidden, t);
    product.a = element_at(op.gate_grad, first * op.ffn, t), product.b = op.w_gate.of(expert, matrix, t);
    multiply(product, blas);
    product.a = element_at(op.up_grad, first * op.ffn, t), product.b = op.w_up.of(expert, matrix, t);
    product.accumulate = true;
    multiply(product, blas);
  });
}

void grouped_ffn_wgrad_gpu(const GroupedFfnWgrad& op, GpuBlas blas, GpuStream) {
  const DType t = op.dtype;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::int64_t matrix = op.ffn * op.hidden;
    Product product{.m = op.ffn, .n = op.hidden, .k = rows, .a_transposed = true, .accumulate = true};
    product.scale = op.scale, product.dtype = t;
    product.b = element_at(op.in, first * op.hidden, t);
    product.a = element_at(op.gate_grad, first * op.ffn, t), product.c = op.w_gate_grad.of(expert, matrix);
    multiply(product, blas);
    product.a = element_at(op.up_grad, first * op.ffn, t), product.c = op.w_up_grad.of(expert, matrix);
    multiply(product, blas);

    product.m = op.hidden, product.n = op.ffn;
    product.a = element_at(op.out_grad, first * op.hidden, t), product.b = element_at(op.act, first * op.ffn, t);
    product.c = op.w_down_grad.of(expert, matrix);
    multiply(product, blas);
  });
}

}  // namespace topomoe::kernels
