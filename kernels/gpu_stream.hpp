// The CUDA stream of a GPU operation, named without CUDA headers: the contracts in this folder are
// read by code that is built where CUDA is not. GpuStream is the same type as cudaStream_t.
#pragma once

struct CUstream_st;

namespace topomoe::kernels {

using GpuStream = CUstream_st*;

}  // namespace topomoe::kernels
