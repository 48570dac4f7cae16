#include "kernels/grouped_ffn.hpp"
#include "kernels/matmul.hpp"
#include "kernels/row_span.hpp"
#include "kernels/swiglu.hpp"

namespace topomoe::kernels {
namespace {

// A product of rows with an expert's weight: all of one dtype, and row-invariant in fp32.
Matmul rows_product(DType dtype) {
  return {.row_invariant = dtype == DType::f32, .a_dtype = dtype, .b_dtype = dtype, .c_dtype = dtype};
}

}  // namespace

void grouped_ffn_cpu(const GroupedFfn& op, const ProgressHook& hook) {
  if (op.activation == Activation::gelu) return gelu_ffn_cpu(op, hook);
  const DType t = op.dtype;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::int64_t matrix = op.ffn * op.hidden;
    void* gate = element_at(op.gate, first * op.ffn, t);
    void* up = element_at(op.up, first * op.ffn, t);
    void* act = element_at(op.act, first * op.ffn, t);

    Matmul product = rows_product(t);
    product.m = rows, product.n = op.ffn, product.k = op.hidden;
    product.b_transposed = true;
    product.a = element_at(op.in, first * op.hidden, t);
    product.b = op.w_gate.of(expert, matrix, t), product.c = gate;
    matmul_cpu(product, hook);
    product.b = op.w_up.of(expert, matrix, t), product.c = up;
    matmul_cpu(product, hook);

    swiglu_cpu({.act = act, .gate = gate, .up = up, .count = rows * op.ffn, .dtype = t}, hook);

    product.n = op.hidden, product.k = op.ffn;
    product.a = act, product.b = op.w_down.of(expert, matrix, t), product.c = element_at(op.out, first * op.hidden, t);
    matmul_cpu(product, hook);
  });
}

void grouped_ffn_dgrad_cpu(const GroupedFfnDgrad& op, const ProgressHook& hook) {
  if (op.activation == Activation::gelu) return gelu_ffn_dgrad_cpu(op, hook);
  const DType t = op.dtype;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::int64_t matrix = op.ffn * op.hidden;
    void* gate_grad = element_at(op.gate_grad, first * op.ffn, t);
    void* up_grad = element_at(op.up_grad, first * op.ffn, t);
    void* in_grad = element_at(op.in_grad, first * op.hidden, t);

    Matmul product = rows_product(t);
    product.m = rows, product.n = op.ffn, product.k = op.hidden;
    product.a = element_at(op.out_grad, first * op.hidden, t), product.b = op.w_down.of(expert, matrix, t);
    product.c = gate_grad;  // holds the gradient of act until swiglu_backward replaces it
    matmul_cpu(product, hook);

    swiglu_backward_cpu({.act = element_at(op.act, first * op.ffn, t),
                         .gate_grad = gate_grad,
                         .up_grad = up_grad,
                         .act_grad = gate_grad,
                         .gate = element_at(op.gate, first * op.ffn, t),
                         .up = element_at(op.up, first * op.ffn, t),
                         .count = rows * op.ffn,
                         .dtype = t},
                        hook);

    product.n = op.hidden, product.k = op.ffn;
    product.a = gate_grad, product.b = op.w_gate.of(expert, matrix, t), product.c = in_grad;
    matmul_cpu(product, hook);
    product.a = up_grad, product.b = op.w_up.of(expert, matrix, t), product.accumulate = true;
    matmul_cpu(product, hook);
  });
}

void grouped_ffn_wgrad_cpu(const GroupedFfnWgrad& op, const ProgressHook& hook) {
  const DType t = op.dtype;
  for_each_expert(op.offsets, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::int64_t matrix = op.ffn * op.hidden;
    // Rows are the summed dimension here: there is no row of the result to be invariant.
    Matmul product{.k = rows, .a_transposed = true, .accumulate = true, .scale = op.scale, .row_invariant = false};
    product.a_dtype = product.b_dtype = t;

    product.m = op.ffn, product.n = op.hidden;
    product.b = element_at(op.in, first * op.hidden, t);
    if (op.activation == Activation::swiglu) {
      product.a = element_at(op.gate_grad, first * op.ffn, t), product.c = op.w_gate_grad.of(expert, matrix);
      matmul_cpu(product, hook);
    }
    product.a = element_at(op.up_grad, first * op.ffn, t), product.c = op.w_up_grad.of(expert, matrix);
    matmul_cpu(product, hook);

    product.m = op.hidden, product.n = op.ffn;
    product.a = element_at(op.out_grad, first * op.hidden, t), product.b = element_at(op.act, first * op.ffn, t);
    product.c = op.w_down_grad.of(expert, matrix);
    matmul_cpu(product, hook);
  });
}

}  // namespace topomoe::kernels
