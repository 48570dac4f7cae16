// Experts with packed weights: GroupedFfn's forward on all threads of a pool, gate, up and SwiGLU in one pass.
//
// Made once from the weights of a rank's experts, in the order that the kernels of one instruction set read
// (packed_matrix.hpp): a copy; whoever changes weights packs again. gate, up and act of the operation may be null,
// which spares writing them: inference keeps none. A row's bits depend on nothing but the row, in bf16 too: not on the
// number of rows, nor of threads. What it ignores: backward, which reads the weights as they are.
#pragma once

#include "kernels/grouped_ffn.hpp"
#include "kernels/large_memory.hpp"
#include "kernels/packed_product.hpp"

namespace topomoe::kernels {

class PackedFfn {
 public:
  // Shapes and weights of `op`; its rows are not read. Throws MissingEnvironment where there is no memory.
  PackedFfn(const GroupedFfn& op, CpuIsa isa, ThreadPool& pool, const ProgressHook& hook);
  std::size_t bytes() const;

  // Rows and results of `op`, of the same shape; its weights are not read. Thread-safe, pool and scratch apart.
  // Allocates where the scratch has to grow, else nothing.
  void forward(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch, const ProgressHook& hook) const;

 private:
  std::size_t expert_bytes() const { return gate_up_.bytes() + down_.bytes(); }
  // Two ways to share the work out, the same bits. By rows, which has what lies between the products stay in the cache
  // of one thread; by columns, product after product, where there are too few rows for all threads.
  void by_columns(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch, const ProgressHook& hook) const;
  void by_rows(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch, const ProgressHook& hook) const;

  CpuIsa isa_;
  PackedShape gate_up_, down_;
  std::int64_t experts_ = 0;
  LargeMemory memory_;
};

}  // namespace topomoe::kernels
