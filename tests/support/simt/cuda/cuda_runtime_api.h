// Stands in for CUDA's header of that name where kernels are compiled for the SIMT harness: what of the runtime this
// project calls, over host memory. Streams hold nothing back: each call is done when it returns; or, while a graph is
// captured (on any stream), is kept for the graph's launches, and what would wait, allocate or touch host memory is
// refused. Only events can be made to wait, for tests of whoever waits for them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#define CUDART_VERSION 13000  // whose interface this follows

struct CUstream_st {
  std::shared_ptr<bool> stalled = std::make_shared<bool>(false);  // what is recorded meanwhile happens afterwards
};
struct CUevent_st {
  std::shared_ptr<const bool> behind;  // null: it has happened
};
struct CUgraph_st {
  std::vector<std::function<void()>> calls;
};
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraph_st*;

// Numbers are CUDA's own.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorIllegalState = 401
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

// The graph that is being captured, if one is.
inline std::unique_ptr<CUgraph_st>& captured() {
  static std::unique_ptr<CUgraph_st> graph;
  return graph;
}
// The last error of a graph's calls.
inline cudaError_t& graph_error() {
  static cudaError_t error = cudaSuccess;
  return error;
}
// Calls f now, or with the graph. Returns what it returns, or success.
template <class F>
cudaError_t issue(F f) {
  if (!captured()) return f();
  captured()->calls.emplace_back([f = std::move(f)] {
    if (const cudaError_t error = f(); error != cudaSuccess) graph_error() = error;
  });
  return cudaSuccess;
}
// Calls f, unless a graph is captured.
template <class F>
cudaError_t outside_capture(const char* call, F&& f) {
  if (captured()) return failed(cudaErrorStreamCaptureUnsupported, std::string(call) + " while a graph is captured");
  return f();
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
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorIllegalState: return "cudaErrorIllegalState";
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
  if (topomoe::simt::captured())
    return topomoe::simt::failed(cudaErrorStreamCaptureUnsupported, "cudaMalloc while a graph is captured");
  *memory = bytes == 0 ? nullptr : ::operator new(bytes, kAlignment, std::nothrow);
  if (bytes > 0 && *memory == nullptr)
    return topomoe::simt::failed(cudaErrorMemoryAllocation, "no " + std::to_string(bytes) + " bytes left");
  if (bytes > 0) std::memset(*memory, 0xFF, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  return topomoe::simt::outside_capture("cudaFree", [&] {
    ::operator delete (memory, std::align_val_t{256});
    return cudaSuccess;
  });
}
inline cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) { return cudaMalloc(memory, bytes); }
inline cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  const auto copy = [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return cudaSuccess;
  };
  if (kind == cudaMemcpyDeviceToDevice) return topomoe::simt::issue(copy);
  return topomoe::simt::outside_capture("cudaMemcpyAsync of host memory", copy);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  return topomoe::simt::issue([=] {
    if (bytes > 0) std::memset(to, value, bytes);
    return cudaSuccess;
  });
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return *stream = new CUstream_st, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return topomoe::simt::outside_capture("cudaStreamSynchronize", [] { return cudaSuccess; });
}
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
  return topomoe::simt::outside_capture(
      "cudaEventQuery", [&] { return event->behind && *event->behind ? cudaErrorNotReady : cudaSuccess; });
}

enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal };
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return topomoe::simt::outside_capture("cudaStreamBeginCapture", [] {
    topomoe::simt::captured() = std::make_unique<CUgraph_st>();
    return cudaSuccess;
  });
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = topomoe::simt::captured().release();
  if (*graph == nullptr) return topomoe::simt::failed(cudaErrorIllegalState, "no graph is captured");
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraph_st(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  topomoe::simt::graph_error() = cudaSuccess;
  for (const auto& call : exec->calls) call();
  return topomoe::simt::graph_error();
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
