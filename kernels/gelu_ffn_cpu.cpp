// Experts without a gate on a CPU: two products and GELU between them.
#include "kernels/gelu.hpp"
#include "kernels/grouped_ffn.hpp"
#include "kernels/matmul.hpp"
#include "kernels/row_span.hpp"

namespace topomoe::kernels {
namespace {

Matmul rows_product(DType t, std::int64_t rows, std::int64_t n, std::int64_t k) {
  return {.m = rows, .n = n, .k = k, .row_invariant = t == DType::f32, .a_dtype = t, .b_dtype = t, .c_dtype = t};
}

}  // namespace

void gelu_ffn_cpu(const GroupedFfn& op, const ProgressHook& hook) {
  const DType t = op.dtype;
  const std::int64_t matrix = op.ffn * op.hidden;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    void* up = element_at(op.up, first * op.ffn, t);
    void* act = element_at(op.act, first * op.ffn, t);
    Matmul product = rows_product(t, rows, op.ffn, op.hidden);
    product.b_transposed = true;
    product.a = element_at(op.in, first * op.hidden, t), product.b = op.w_up.of(expert, matrix, t), product.c = up;
    matmul_cpu(product, hook);
    gelu_cpu({.act = act, .up = up, .count = rows * op.ffn, .dtype = t}, hook);
    product.n = op.hidden, product.k = op.ffn;
    product.a = act, product.b = op.w_down.of(expert, matrix, t), product.c = element_at(op.out, first * op.hidden, t);
    matmul_cpu(product, hook);
  });
}

void gelu_ffn_dgrad_cpu(const GroupedFfnDgrad& op, const ProgressHook& hook) {
  const DType t = op.dtype;
  const std::int64_t matrix = op.ffn * op.hidden;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    void* up_grad = element_at(op.up_grad, first * op.ffn, t);  // holds the gradient of act until it is replaced
    Matmul product = rows_product(t, rows, op.ffn, op.hidden);
    product.a = element_at(op.out_grad, first * op.hidden, t), product.b = op.w_down.of(expert, matrix, t);
    product.c = up_grad;
    matmul_cpu(product, hook);
    gelu_backward_cpu({.act = element_at(op.act, first * op.ffn, t),
                       .up_grad = up_grad,
                       .act_grad = up_grad,
                       .up = element_at(op.up, first * op.ffn, t),
                       .count = rows * op.ffn,
                       .dtype = t},
                      hook);
    product.n = op.hidden, product.k = op.ffn;
    product.a = up_grad, product.b = op.w_up.of(expert, matrix, t);
    product.c = element_at(op.in_grad, first * op.hidden, t);
    matmul_cpu(product, hook);
  });
}

}  // namespace topomoe::kernels
