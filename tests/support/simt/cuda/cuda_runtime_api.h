// Stands in for CUDA's header of that name where kernels are compiled for the SIMT harness: what of the runtime this
// project calls, over host memory. Streams hold nothing back: each call is done when it returns. Only events can be
// made to wait, for tests of whoever waits for them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#define CUDART_VERSION 13000  // whose interface this follows

struct CUstream_st {
  std::shared_ptr<bool> stalled = std::make_shared<bool>(false);  // what is recorded meanwhile happens afterwards
};
struct CUevent_st {
  std::shared_ptr<const bool> behind;  // null: it has happened
};
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;

// Numbers are CUDA's own.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth) {}
};
struct cudaDeviceProp {
  char name[256];
};
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace topomoe::simt {
// What the last failed call had to say.
inline std::string& failure() {
  static std::string words = "no error";
  return words;
}
inline cudaError_t failed(cudaError_t error, const std::string& words) {
  failure() = words;
  return error;
}
}  // namespace topomoe::simt

inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unknown error";
}
inline const char* cudaGetErrorString(cudaError_t) { return topomoe::simt::failure().c_str(); }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }  // calls here report what they did themselves

inline cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* ordinal) { return *ordinal = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::strcpy(properties->name, "SIMT harness");
  return cudaSuccess;
}

// Exactly the bytes asked for, so that AddressSanitizer knows their end; uninitialised memory is NaN.
inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  constexpr std::align_val_t kAlignment{256};
  *memory = bytes == 0 ? nullptr : ::operator new(bytes, kAlignment, std::nothrow);
  if (bytes > 0 && *memory == nullptr)
    return topomoe::simt::failed(cudaErrorMemoryAllocation, "no " + std::to_string(bytes) + " bytes left");
  if (bytes > 0) std::memset(*memory, 0xFF, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  ::operator delete (memory, std::align_val_t{256});
  return cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) { return cudaMalloc(memory, bytes); }
inline cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return *stream = new CUstream_st, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = new CUevent_st, cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->behind = stream != nullptr && *stream->stalled ? stream->stalled : nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
  return event->behind && *event->behind ? cudaErrorNotReady : cudaSuccess;
}
