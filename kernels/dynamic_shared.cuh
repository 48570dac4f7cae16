// The block's dynamic shared memory (launch()'s shared_bytes), 16-byte aligned:
//
//   float* row = dynamic_shared<float>();
//
// A function, since `extern __shared__` is what the SIMT harness's host compiler cannot read; there it is the
// scheduler's memory.
#pragma once

namespace topomoe::kernels {

template <class T>
__device__ T* dynamic_shared() {
  static_assert(alignof(T) <= 16);
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char topomoe_dynamic_shared[];
  return reinterpret_cast<T*>(topomoe_dynamic_shared);
#else
  return static_cast<T*>(simt::dynamic_shared());
#endif
}

}  // namespace topomoe::kernels
