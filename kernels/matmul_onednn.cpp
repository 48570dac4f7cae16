// GEMM by oneDNN's matmul primitive, one thread, cut into blocks so that progress is made meanwhile.
//
// Which kernel oneDNN takes, and with it the order of its sums, depends on the number of rows: callers
// that promise row invariance do not come here.
#include <omp.h>

#include <algorithm>
#include <array>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <tuple>

#include "kernels/matmul.hpp"
#include "kernels/row_span.hpp"

namespace topomoe::kernels {
namespace {

using dnnl::memory;

constexpr std::int64_t kBlockRows = 64;
// Half a millisecond at 64 GFLOP/s, which one AVX-512 core reaches.
constexpr std::int64_t kBlockFlops = 32 << 20;

// oneDNN runs an OpenMP team per call; our ranks are threads already. Also keeps the number of threads
// that oneDNN plans for, and so the bits, independent of OMP_NUM_THREADS.
class OneOpenMpThread {
 public:
  OneOpenMpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneOpenMpThread() { omp_set_num_threads(before_); }
  OneOpenMpThread(const OneOpenMpThread&) = delete;
  OneOpenMpThread& operator=(const OneOpenMpThread&) = delete;

 private:
  int before_;
};

memory::data_type data_type(DType t) { return t == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16; }

// One block: its size, and the strides of the matrices that it is cut from.
struct Block {
  std::int64_t m, n, k, a_stride, b_stride, c_stride;
  bool a_transposed, b_transposed, accumulate;
  float scale;
  DType dtype, c_dtype;
  auto key() const {
    return std::tie(m, n, k, a_stride, b_stride, c_stride, a_transposed, b_transposed, accumulate, scale, dtype,
                    c_dtype);
  }
  bool operator<(const Block& other) const { return key() < other.key(); }
};

// The primitive and the memory objects it is called with; null pointers until set.
struct Prepared {
  dnnl::matmul primitive;
  memory a, b, c;
};

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

// Strides of a row-major matrix and of a transposed one.
memory::dims strides(std::int64_t stride, bool transposed) {
  return transposed ? memory::dims{1, stride} : memory::dims{stride, 1};
}

std::optional<Prepared> prepare(const Block& block) {
  const memory::desc a({block.m, block.k}, data_type(block.dtype), strides(block.a_stride, block.a_transposed));
  const memory::desc b({block.k, block.n}, data_type(block.dtype), strides(block.b_stride, block.b_transposed));
  const memory::desc c({block.m, block.n}, data_type(block.c_dtype), strides(block.c_stride, false));
  dnnl::primitive_attr attributes;
  if (block.scale != 1.0F) attributes.set_output_scales(0, {block.scale});
  if (block.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attributes.set_post_ops(sum);
  }
  try {
    const dnnl::matmul::primitive_desc description({a, b, c}, attributes, engine());
    return Prepared{dnnl::matmul(description), memory(a, engine(), nullptr), memory(b, engine(), nullptr),
                    memory(c, engine(), nullptr)};
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_unimplemented) return std::nullopt;
    throw;
  }
}

// Null where oneDNN has no implementation.
Prepared* find_or_prepare(const Block& block) {
  constexpr std::size_t kMostPrepared = 1024;
  thread_local std::map<Block, std::optional<Prepared>> prepared;
  auto found = prepared.find(block);
  if (found == prepared.end()) {
    if (prepared.size() >= kMostPrepared) prepared.clear();
    found = prepared.emplace(block, prepare(block)).first;
  }
  return found->second ? &*found->second : nullptr;
}

std::int64_t block_columns(std::int64_t n, std::int64_t k) {
  const std::int64_t columns = kBlockFlops / (2 * kBlockRows * std::max<std::int64_t>(k, 1));
  return std::clamp<std::int64_t>(columns / 16 * 16, 16, std::max<std::int64_t>(n, 16));
}

// oneDNN takes what it only reads as void* too.
void* mutable_at(const void* base, std::int64_t element, DType dtype) {
  return const_cast<void*>(element_at(base, element, dtype));
}

bool can_do(const Matmul& op) {
  if (op.a_dtype != op.b_dtype || op.k == 0) return false;
  // Without the instructions oneDNN has no bf16 or emulates it at half the speed of the portable GEMM.
  static const bool has_bf16 = dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core_bf16;
  return op.a_dtype == DType::f32 || has_bf16;
}

}  // namespace

bool matmul_onednn(const Matmul& op, const ProgressHook& progress) {
  if (!can_do(op)) return false;
  const OneOpenMpThread one_thread;
  thread_local dnnl::stream stream(engine());
  const std::int64_t columns = block_columns(op.n, op.k);
  for (std::int64_t row = 0; row < op.m; row += kBlockRows) {
    for (std::int64_t column = 0; column < op.n; column += columns) {
      const std::int64_t a_stride = op.a_transposed ? op.m : op.k;
      const std::int64_t b_stride = op.b_transposed ? op.k : op.n;
      Prepared* block =
          find_or_prepare({std::min(kBlockRows, op.m - row), std::min(columns, op.n - column), op.k, a_stride, b_stride,
                           op.n, op.a_transposed, op.b_transposed, op.accumulate, op.scale, op.a_dtype, op.c_dtype});
      if (block == nullptr) return false;  // depends on types only, so it is the first block or none
      block->a.set_data_handle(mutable_at(op.a, op.a_transposed ? row : row * a_stride, op.a_dtype));
      block->b.set_data_handle(mutable_at(op.b, op.b_transposed ? column * b_stride : column, op.b_dtype));
      block->c.set_data_handle(mutable_at(op.c, row * op.n + column, op.c_dtype));
      block->primitive.execute(stream,
                               {{DNNL_ARG_SRC, block->a}, {DNNL_ARG_WEIGHTS, block->b}, {DNNL_ARG_DST, block->c}});
      progress();
    }
  }
  return true;
}

}  // namespace topomoe::kernels
