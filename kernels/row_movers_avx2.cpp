#if defined(__x86_64__)
#include "kernels/simd_avx2.hpp"
// After the instructions that it is written over.
#include "kernels/row_movers_simd.hpp"

namespace topomoe::kernels {

RowMovers row_movers_avx2() { return simd_row_movers(); }

}  // namespace topomoe::kernels
#endif
