#include "kernels/bench/ffn_onednn.hpp"

#include <omp.h>

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "kernels/row_span.hpp"

namespace topomoe::bench {
namespace {

using dnnl::memory;
using kernels::element_at;

enum class Then { nothing, swish, multiply };

dnnl::primitive_attr attributes(Then then, const memory::desc& out) {
  dnnl::post_ops ops;
  if (then == Then::swish) ops.append_eltwise(1.0F, dnnl::algorithm::eltwise_swish, 1.0F, 0.0F);
  if (then == Then::multiply) ops.append_binary(dnnl::algorithm::binary_mul, out);
  dnnl::primitive_attr attr;
  attr.set_post_ops(ops);
  return attr;
}

// rows x [n, k]^T for as many weights as were added, and what follows.
struct Product {
  Product(const dnnl::engine& engine, std::int64_t rows, std::int64_t n, std::int64_t k, memory::data_type type,
          Then then)
      : in({rows, k}, type, memory::format_tag::ab),
        out({rows, n}, type, memory::format_tag::ab),
        plain({k, n}, type, memory::format_tag::ba),
        description({in, memory::desc({k, n}, type, memory::format_tag::any), out}, attributes(then, out), engine),
        primitive(description) {}
  void add(dnnl::stream& stream, const void* w) {
    const dnnl::engine engine = stream.get_engine();
    memory from(plain, engine, const_cast<void*>(w));
    weights.emplace_back(description.weights_desc(), engine);
    dnnl::reorder(from, weights.back()).execute(stream, from, weights.back());
    stream.wait();
  }
  // `by`: of Then::multiply.
  void run(dnnl::stream& stream, std::size_t weight, const void* a, void* c, void* by = nullptr) const {
    const dnnl::engine engine = stream.get_engine();
    std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, memory(in, engine, const_cast<void*>(a))},
                                              {DNNL_ARG_WEIGHTS, weights[weight]},
                                              {DNNL_ARG_DST, memory(out, engine, c)}};
    if (by != nullptr) arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, memory(out, engine, by));
    primitive.execute(stream, arguments);
  }
  memory::desc in, out, plain;
  dnnl::matmul::primitive_desc description;
  dnnl::matmul primitive;
  std::vector<memory> weights;
};

struct Experts {
  Experts(const kernels::GroupedFfn& op, std::int64_t its_experts, std::int64_t its_rows)
      : count(its_experts),
        rows(its_rows),
        engine(dnnl::engine::kind::cpu, 0),
        stream(engine),
        type(op.dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16),
        gate(engine, rows, op.ffn, op.hidden, type, Then::swish),
        up(engine, rows, op.ffn, op.hidden, type, Then::multiply),
        down(engine, rows, op.hidden, op.ffn, type, Then::nothing) {
    const std::int64_t matrix = op.ffn * op.hidden;
    for (std::int64_t e = 0; e < count; ++e) {
      gate.add(stream, op.w_gate.of(e, matrix, op.dtype));
      up.add(stream, op.w_up.of(e, matrix, op.dtype));
      down.add(stream, op.w_down.of(e, matrix, op.dtype));
    }
  }
  void run(const kernels::GroupedFfn& op) {
    for (std::int64_t e = 0; e < count; ++e) {
      const auto i = static_cast<std::size_t>(e);
      const std::int64_t wide = e * rows * op.hidden, narrow = e * rows * op.ffn;
      const void* in = element_at(op.in, wide, op.dtype);
      void* const silu = element_at(op.gate, narrow, op.dtype);
      void* const act = element_at(op.act, narrow, op.dtype);
      gate.run(stream, i, in, silu);
      up.run(stream, i, in, act, silu);
      down.run(stream, i, act, element_at(op.out, wide, op.dtype));
    }
    stream.wait();
  }
  std::int64_t count, rows;
  dnnl::engine engine;
  dnnl::stream stream;
  memory::data_type type;
  Product gate, up, down;
};

}  // namespace

std::function<void()> onednn_ffn(const kernels::GroupedFfn& op, std::int64_t experts, std::int64_t rows, int threads) {
  omp_set_num_threads(threads);
  return [op, state = std::make_shared<Experts>(op, experts, rows)] { state->run(op); };
}

}  // namespace topomoe::bench
