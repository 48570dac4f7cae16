// Failures of CUDA calls as exceptions that say what was attempted, which call failed, and where:
//
//   TOPOMOE_CUDA_TRY("copy to device", cudaMemcpyAsync(...));
//
// A CudaError is a broken promise of the device (or a bug of ours); "there is no GPU" is found out
// before, and is MissingEnvironment.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <string>

#include "topomoe/error.hpp"

namespace topomoe {

class CudaError : public Error {
 public:
  using Error::Error;
};

namespace kernels {

// what: in words; call, place: as written in the source; why: CUDA's name and text of the error.
[[noreturn]] inline void throw_cuda_error(const std::string& what, const char* call, const char* place,
                                          const std::string& why) {
  throw CudaError("cuda: " + what + ": " + why + " in " + call + " at " + place);
}

inline void try_cuda(cudaError_t status, const char* what, const char* call, const char* place) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // or the next check would report this error again, as its own
  throw_cuda_error(what, call, place, std::string(cudaGetErrorName(status)) + ", " + cudaGetErrorString(status));
}

inline void try_cublas(cublasStatus_t status, const char* what, const char* call, const char* place) {
  if (status != CUBLAS_STATUS_SUCCESS) throw_cuda_error(what, call, place, cublasGetStatusString(status));
}

}  // namespace kernels
}  // namespace topomoe

#define TOPOMOE_CUDA_TRY(what, call) \
  ::topomoe::kernels::try_cuda((call), what, #call, __FILE__ ":" TOPOMOE_STRINGIFY(__LINE__))
#define TOPOMOE_CUBLAS_TRY(what, call) \
  ::topomoe::kernels::try_cublas((call), what, #call, __FILE__ ":" TOPOMOE_STRINGIFY(__LINE__))
