#if defined(__x86_64__)
#include "kernels/simd_avx2.hpp"
// After the instructions that it is written over.
#include "kernels/router_logits_simd.hpp"
#include "kernels/router_simd.hpp"

namespace topomoe::kernels {

void route_rows_avx2(const Router& op, std::int64_t first, std::int64_t last) { route_simd(op, first, last); }
void add_logits_avx2(const LogitBlock& block) { add_logits_simd(block); }

}  // namespace topomoe::kernels
#endif
