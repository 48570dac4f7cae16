// The CUDA runtime's functions that communicator_nccl.cpp calls, over fake streams: see fake_gpu.hpp.

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstring>

#include "tests/runtime/fake_gpu.hpp"

extern "C" {
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return stream->idle() ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = new std::byte[bytes];
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  delete[] static_cast<std::byte*>(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  stream->add([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  stream->add([=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "fake"; }
const char* cudaGetErrorString(cudaError_t) { return "fake"; }
const char* cublasGetStatusString(cublasStatus_t) { return "fake"; }
}
