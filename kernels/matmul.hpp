// Host GEMM behind the experts and the router: c (= or +=) scale * a x b, fp32 accumulator.
//
// Row-invariant where `row_invariant` asks for it: a row of c has the same bits whatever m is and
// wherever the row stands, so that a batch cut into chunks gives what the whole batch gives (DESIGN 8).
// The portable version has this by construction: every element is one sum in index order of k, without
// fused multiply-add, the same on every CPU. oneDNN has it neither in bf16 nor in fp32 (measured: see
// README.md), and serves the products that need not: bf16 where the CPU has it, weight gradients.
// Matrices are row-major and contiguous. Single-threaded: ranks are threads. Thread-safe.
#pragma once

#include <cstdint>

#include "topomoe/device.hpp"

namespace topomoe::kernels {

struct Matmul {
  const void* a = nullptr;  // [m, k], or [k, m] if a_transposed
  const void* b = nullptr;  // [k, n], or [n, k] if b_transposed
  void* c = nullptr;        // [m, n]
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool a_transposed = false;
  bool b_transposed = false;
  bool accumulate = false;  // the sum is complete before it is added to c
  float scale = 1.0F;
  bool row_invariant = true;
  DType a_dtype = DType::f32;
  DType b_dtype = DType::f32;
  DType c_dtype = DType::f32;
};

// The dispatch point: oneDNN where it may and can, else portable.
void matmul_cpu(const Matmul& op, const ProgressHook& progress);

// Every build has it; for callers that promise index order of k, and for tests.
void matmul_portable(const Matmul& op, const ProgressHook& progress);

// Not row-invariant. False, with nothing done, where oneDNN is not built in, or cannot do these types
// on this CPU, or would only emulate them.
bool matmul_onednn(const Matmul& op, const ProgressHook& progress);

}  // namespace topomoe::kernels
