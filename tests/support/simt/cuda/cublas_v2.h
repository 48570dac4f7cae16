// Stands in for cuBLAS's header, for the SIMT harness: products as plain loops, so that what surrounds them can run.
// Column-major, C (m x n) = alpha op(A) (m x k) op(B) (k x n) + beta C, summed in fp32 in index order of k.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#define CUBLAS_VER_MAJOR 13
#define CUBLAS_VER_MINOR 0
#define CUBLAS_VER_PATCH 0

struct cublasContext {};
using cublasHandle_t = cublasContext*;
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_NOT_INITIALIZED = 1, CUBLAS_STATUS_INVALID_VALUE = 7 };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };
enum libraryPropertyType { MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL };

inline const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_INITIALIZED ? "CUBLAS_STATUS_NOT_INITIALIZED" : "CUBLAS_STATUS_INVALID_VALUE";
}
inline cublasStatus_t cublasGetProperty(libraryPropertyType, int* value) { return *value = 0, CUBLAS_STATUS_SUCCESS; }
// Allocates its workspace, on a GPU.
inline cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  if (topomoe::simt::captured()) return CUBLAS_STATUS_NOT_INITIALIZED;
  return *handle = new cublasContext, CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }

namespace topomoe::simt {

inline float read(const void* matrix, cudaDataType_t type, std::int64_t at) {
  return type == CUDA_R_32F ? static_cast<const float*>(matrix)[at]
                            : __bfloat162float(static_cast<const __nv_bfloat16*>(matrix)[at]);
}

}  // namespace topomoe::simt

// Scalars are read here and now (CUBLAS_POINTER_MODE_HOST); matrices when a graph says so.
inline cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t, cublasOperation_t op_a, cublasOperation_t op_b,
                                                    std::int64_t m, std::int64_t n, std::int64_t k, const void* alpha,
                                                    const void* a, cudaDataType_t a_type, std::int64_t lda,
                                                    long long stride_a, const void* b, cudaDataType_t b_type,
                                                    std::int64_t ldb, long long stride_b, const void* beta, void* c,
                                                    cudaDataType_t c_type, std::int64_t ldc, long long stride_c,
                                                    std::int64_t batch, cublasComputeType_t, cublasGemmAlgo_t) {
  if (m < 0 || n < 0 || k < 0 || lda < (op_a == CUBLAS_OP_N ? m : k) || ldb < (op_b == CUBLAS_OP_N ? k : n) ||
      ldc < m || lda < 1 || ldb < 1 || ldc < 1 || batch < 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  const float by = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
  topomoe::simt::issue([=] {
    using topomoe::simt::read;
    for (std::int64_t each = 0; each < batch; ++each) {
      const std::int64_t in_a = each * stride_a, in_b = each * stride_b, in_c = each * stride_c;
      for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t i = 0; i < m; ++i) {
          float sum = 0.0F;
          for (std::int64_t l = 0; l < k; ++l)
            sum += read(a, a_type, in_a + (op_a == CUBLAS_OP_N ? i + l * lda : l + i * lda)) *
                   read(b, b_type, in_b + (op_b == CUBLAS_OP_N ? l + j * ldb : j + l * ldb));
          float result = by * sum;
          if (kept != 0.0F) result += kept * read(c, c_type, in_c + i + j * ldc);
          if (c_type == CUDA_R_32F) {
            static_cast<float*>(c)[in_c + i + j * ldc] = result;
          } else {
            static_cast<__nv_bfloat16*>(c)[in_c + i + j * ldc] = __float2bfloat16_rn(result);
          }
        }
      }
    }
    return cudaSuccess;
  });
  return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                                      std::int64_t m, std::int64_t n, std::int64_t k, const void* alpha, const void* a,
                                      cudaDataType_t a_type, std::int64_t lda, const void* b, cudaDataType_t b_type,
                                      std::int64_t ldb, const void* beta, void* c, cudaDataType_t c_type,
                                      std::int64_t ldc, cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  return cublasGemmStridedBatchedEx_64(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta,
                                       c, c_type, ldc, 0, 1, compute, algorithm);
}
