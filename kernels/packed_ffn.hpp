// Experts with packed weights: GroupedFfn's forward, on all threads of a pool, gate, up and SwiGLU in one pass.
//
// pack_ffn copies the weights of a rank's experts into the order that the kernels of one instruction set read
// (packed_matrix.hpp); whoever changes weights packs again. gate and up of the operation may be null: inference saves
// neither. A row's bits depend on nothing but the row, in bf16 too.
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

  // Rows and results of `op`; its weights are not read.
  void forward(const GroupedFfn& op, ThreadPool& pool, ProductScratch& scratch, const ProgressHook& hook) const;

 private:
  CpuIsa isa_;
  PackedShape gate_up_, down_;
  std::int64_t experts_ = 0;
  LargeMemory memory_;
};

}  // namespace topomoe::kernels
