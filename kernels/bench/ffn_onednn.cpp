#include "kernels/bench/ffn_onednn.hpp"

#include <omp.h>

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "kernels/row_span.hpp"

namespace topomoe::bench {
namespace {

using dnnl::memory;
using kernels::element_at;

// rows x [n, k]^T, for as many weights as were added.
struct Product {
  Product(const dnnl::engine& engine, std::int64_t rows, std::int64_t n, std::int64_t k, memory::data_type type)
      : in({rows, k}, type, memory::format_tag::ab),
        out({rows, n}, type, memory::format_tag::ab),
        plain({k, n}, type, memory::format_tag::ba),
        description({in, memory::desc({k, n}, type, memory::format_tag::any), out}, engine),
        primitive(description) {}
  void add(dnnl::stream& stream, const void* w) {
    const dnnl::engine engine = stream.get_engine();
    memory from(plain, engine, const_cast<void*>(w));
    weights.emplace_back(description.weights_desc(), engine);
    dnnl::reorder(from, weights.back()).execute(stream, from, weights.back());
    stream.wait();
  }
  void run(dnnl::stream& stream, std::size_t weight, const void* a, void* c) const {
    const dnnl::engine engine = stream.get_engine();
    primitive.execute(stream, {{DNNL_ARG_SRC, memory(in, engine, const_cast<void*>(a))},
                               {DNNL_ARG_WEIGHTS, weights[weight]},
                               {DNNL_ARG_DST, memory(out, engine, c)}});
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
        gate_up(engine, rows, op.ffn, op.hidden, type),
        down(engine, rows, op.hidden, op.ffn, type) {
    const std::int64_t matrix = op.ffn * op.hidden;
    for (std::int64_t e = 0; e < count; ++e) {
      gate_up.add(stream, op.w_gate.of(e, matrix, op.dtype));
      gate_up.add(stream, op.w_up.of(e, matrix, op.dtype));
      down.add(stream, op.w_down.of(e, matrix, op.dtype));
    }
  }
  void run(const kernels::GroupedFfn& op) {
    for (std::int64_t e = 0; e < count; ++e) {
      const auto i = static_cast<std::size_t>(e);
      const std::int64_t wide = e * rows * op.hidden, narrow = e * rows * op.ffn;
      const void* in = element_at(op.in, wide, op.dtype);
      gate_up.run(stream, 2 * i, in, element_at(op.gate, narrow, op.dtype));
      gate_up.run(stream, 2 * i + 1, in, element_at(op.up, narrow, op.dtype));
      down.run(stream, i, element_at(op.act, narrow, op.dtype), element_at(op.out, wide, op.dtype));
    }
    stream.wait();
  }
  std::int64_t count, rows;
  dnnl::engine engine;
  dnnl::stream stream;
  memory::data_type type;
  Product gate_up, down;
};

}  // namespace

std::function<void()> onednn_ffn(const kernels::GroupedFfn& op, std::int64_t experts, std::int64_t rows, int threads) {
  omp_set_num_threads(threads);
  return [op, state = std::make_shared<Experts>(op, experts, rows)] { state->run(op); };
}

}  // namespace topomoe::bench
