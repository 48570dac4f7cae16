// Every operation on random shapes, this device against the CPU: no rows, one expert, everything to one, sizes that are
// no multiple of any tile. 20 seeds, which on the SIMT harness are as many orders of threads and blocks.
#include "kernels/convert_rows.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/mix.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/router.hpp"
#include "kernels/sum_rows.hpp"
#include "tests/kernels/expert_map_layer.hpp"
#include "tests/kernels/ffn_layer.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::test {
namespace {

constexpr unsigned kSeeds = 20;

struct Output {
  const char* what;
  Floats values;
  double bound;  // 0: the same bits
};
using Outputs = std::vector<Output>;

// Shapes: often an edge, else anything.
struct Draw : Random {
  explicit Draw(unsigned seed) : Random(seed), dtype(seed % 2 == 0 ? DType::f32 : DType::bf16) {}
  template <std::size_t N>
  int edge_or(const int (&edges)[N], int first, int last) {
    return whole(0, 1) == 0 ? edges[static_cast<std::size_t>(whole(0, static_cast<int>(N) - 1))] : whole(first, last);
  }
  std::int64_t rows() { return edge_or({0, 1, 2, 33}, 1, 60); }
  std::int64_t columns() { return edge_or({1, 7, 8, 31, 64}, 1, 200); }
  // Rows of a source, or all of them one row.
  Ints map(std::int64_t count, std::int64_t source_rows) {
    if (source_rows == 0) return Ints(static_cast<std::size_t>(count), -1);
    const int last = static_cast<int>(source_rows) - 1;
    return whole(0, 3) == 0 ? Ints(static_cast<std::size_t>(count), whole(0, last)) : wholes(count, -1, last);
  }
  DType dtype;
};

class RandomShapes : public OnDevice {
 protected:
  void expect_like_cpu(Outputs (*run)(Device&, Draw)) {
    const auto cpu = make_cpu_device();
    for (unsigned seed = 1; seed <= kSeeds; ++seed) {
      const auto device = device_under_test();
      const Outputs expected = run(*cpu, Draw(seed)), actual = run(*device, Draw(seed));
      for (std::size_t i = 0; i < actual.size(); ++i) {
        SCOPED_TRACE(::testing::Message() << actual[i].what << ", seed " << seed);
        if (actual[i].bound == 0) {
          ASSERT_TRUE(same_bits(actual[i].values, expected[i].values));
        } else {
          const Doubles values(expected[i].values.begin(), expected[i].values.end());
          ASSERT_NO_FATAL_FAILURE(
              expect_near(actual[i].values, values, actual[i].bound * (1 + largest(values)), actual[i].what));
        }
      }
    }
  }
};

TEST_F(RandomShapes, GatherRows_SameBits) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const std::int64_t rows = draw.rows(), source_rows = draw.rows(), columns = draw.columns();
    const Tensor in(device, draw.reals(source_rows * columns, draw.dtype), draw.dtype);
    const Tensor out(device, Floats(static_cast<std::size_t>(rows * columns)), draw.dtype);
    const Tensor scale(device, draw.reals(rows));
    const IntTensor map(device, draw.map(rows, source_rows));
    device.gather_rows(Lane::compute, {.out = out.data(),
                                       .in = in.data(),
                                       .source_row = map.data(),
                                       .scale = draw.whole(0, 1) == 0 ? nullptr : scale.floats(),
                                       .rows = rows,
                                       .columns = columns,
                                       .dtype = draw.dtype});
    device.synchronize(soon());
    return {{"rows", out.read(), 0}};
  });
}

TEST_F(RandomShapes, SumRowsAndRowDots_SameBits) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const std::int64_t rows = draw.rows(), source_rows = draw.rows(), columns = draw.columns();
    const int k = draw.whole(1, 16);
    const Tensor in(device, draw.reals(source_rows * columns, draw.dtype), draw.dtype);
    const Tensor out(device, draw.reals(rows * columns, draw.dtype), draw.dtype);
    const Tensor a(device, draw.reals(rows * columns, draw.dtype), draw.dtype);
    const Tensor weight(device, draw.reals(rows * k)), dots(device, Floats(static_cast<std::size_t>(rows * k)));
    const IntTensor position(device, draw.map(rows * k, source_rows));
    device.sum_rows(Lane::compute, {.out = out.data(),
                                    .in = in.data(),
                                    .position = position.data(),
                                    .weight = draw.whole(0, 1) == 0 ? nullptr : weight.floats(),
                                    .rows = rows,
                                    .columns = columns,
                                    .k = k,
                                    .accumulate = draw.whole(0, 1) == 0,
                                    .dtype = draw.dtype});
    device.row_dots(Lane::compute, {.out = dots.floats(),
                                    .a = a.data(),
                                    .b = in.data(),
                                    .position = position.data(),
                                    .rows = rows,
                                    .columns = columns,
                                    .k = k,
                                    .dtype = draw.dtype});
    device.synchronize(soon());
    return {{"sums", out.read(), 0}, {"dots", dots.read(), 0}};
  });
}

TEST_F(RandomShapes, ExpertMap_SameEverywhere) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const std::int64_t rows = draw.rows();
    const int of_part = draw.edge_or({1, 2}, 1, 8), parts = draw.edge_or({1, 33}, 1, 12), k = draw.whole(1, 16);
    const int experts = of_part * parts;
    const Ints ids = draw.whole(0, 3) == 0 ? Ints(at(rows * k), draw.whole(0, experts - 1))  // all to one
                                           : draw.wholes(rows * k, -1, experts);             // some are no experts
    const MapTensors tensors(device,
                             {.rows = rows,
                              .capacity = draw.whole(0, 1) == 0 ? rows * k : draw.whole(0, 20),
                              .k = k,
                              .experts = experts,
                              .parts = parts,
                              .order = draw.whole(0, 1) == 0 ? kernels::PairOrder::token : kernels::PairOrder::slot},
                             ids);
    device.expert_map(Lane::compute, tensors.map);
    device.synchronize(soon());
    const MapResult map = tensors.read();
    const auto floats = [](const Ints& values) { return Floats(values.begin(), values.end()); };
    return {{"counts", floats(map.counts), 0},
            {"offsets", floats(map.offsets), 0},
            {"position", floats(map.position), 0},
            {"source row", floats(map.source_row), 0},
            {"source factor", floats(map.source_factor), 0},
            {"overflow", {static_cast<float>(map.overflow)}, 0}};
  });
}

TEST_F(RandomShapes, ToFp8AndBack_SameBits) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const std::int64_t rows = draw.rows(), columns = draw.edge_or({128, 256, 384, 144}, 1, 300);
    Floats values = draw.reals(rows * columns, draw.dtype);
    for (float& v : values) v = std::ldexp(v, draw.whole(-30, 30));
    for (int i = draw.whole(0, 3); i > 0 && !values.empty(); --i)
      values[at(draw.whole(0, static_cast<int>(values.size()) - 1))] = draw.whole(0, 1) == 0 ? HUGE_VALF : 0.0F;
    const Tensor in(device, values, draw.dtype), out(device, Floats(values.size()), draw.dtype);
    const ByteTensor codes(device, Bytes(values.size()));
    const Tensor scales(device, Floats(at(rows * kernels::scales_of(columns))));
    device.to_fp8(Lane::compute, {.out = codes.data(),
                                  .scales = scales.floats(),
                                  .in = in.data(),
                                  .rows = rows,
                                  .columns = columns,
                                  .dtype = draw.dtype});
    device.from_fp8(Lane::compute, {.out = out.data(),
                                    .in = codes.data(),
                                    .scales = scales.floats(),
                                    .rows = rows,
                                    .columns = columns,
                                    .dtype = draw.dtype});
    device.synchronize(soon());
    const Bytes written = codes.read();
    Floats back = out.read();
    for (float& v : back) v = std::isnan(v) ? -1e30F : v;  // which NaN is nobody's promise
    return {{"codes", Floats(written.begin(), written.end()), 0}, {"scales", scales.read(), 0}, {"back", back, 0}};
  });
}

TEST_F(RandomShapes, OrderedSum_SameBits) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const std::int64_t rows = draw.rows(), columns = draw.columns();
    const int blocks = draw.whole(0, 5);
    const Tensor in(device, draw.reals(blocks * rows * columns, draw.dtype), draw.dtype);
    const Tensor out(device, draw.reals(rows * columns, draw.dtype), draw.dtype);
    device.ordered_sum(
        Lane::compute,
        {.out = out.data(), .in = in.data(), .rows = rows, .columns = columns, .blocks = blocks, .dtype = draw.dtype});
    device.synchronize(soon());
    return {{"sums", out.read(), 0}};
  });
}

// Forward to the bit; what losses are made of, and backward, use the device's own exp() in places.
TEST_F(RandomShapes, RouterForwardAndBackward) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const std::int64_t rows = draw.rows(), hidden = draw.columns();
    const int of_group = draw.edge_or({1, 2}, 1, 20), groups = draw.edge_or({1, 33}, 1, 8);
    const int experts = groups * of_group, topk_groups = draw.whole((groups + 1) / 2, groups);
    const int k = draw.whole(1, std::min(topk_groups * of_group, kernels::kMaxTopK));
    const bool renormalize = draw.whole(0, 1) == 0;
    const RouterOptions options{.scoring = draw.whole(0, 1) == 0 ? Scoring::sigmoid : Scoring::softmax,
                                .groups = groups,
                                .topk_groups = topk_groups,
                                .scale = 1.5F};
    // All to one: the bias decides alone.
    Floats biases = draw.reals(experts);
    if (draw.whole(0, 2) == 0) biases[static_cast<std::size_t>(draw.whole(0, experts - 1))] = 100.0F;
    const auto zeros = [&](std::int64_t count) { return Tensor(device, Floats(static_cast<std::size_t>(count))); };
    const Tensor tokens(device, draw.reals(rows * hidden, draw.dtype), draw.dtype);
    const Tensor weight(device, draw.reals(experts * hidden)), bias(device, biases);
    const Tensor logits = zeros(rows * experts), weights = zeros(rows * k), sums = zeros(experts + 1);
    const IntTensor ids(device, Ints(static_cast<std::size_t>(rows * k), -7));
    device.router(Lane::compute, {.tokens = tokens.data(),
                                  .weight = weight.data(),
                                  .bias = draw.whole(0, 1) == 0 ? nullptr : bias.floats(),
                                  .logits = logits.floats(),
                                  .ids = ids.data(),
                                  .weights = weights.floats(),
                                  .loss_sums = sums.floats(),
                                  .rows = rows,
                                  .hidden = hidden,
                                  .experts = experts,
                                  .k = k,
                                  .renormalize = renormalize,
                                  .options = options,
                                  .dtype = draw.dtype});
    const Tensor weight_grads(device, draw.reals(rows * k)), score_grads(device, draw.reals(experts));
    const Tensor logit_grads = zeros(rows * experts), weight_grad(device, draw.reals(experts * hidden));
    const Tensor token_grads(device, draw.reals(rows * hidden, draw.dtype), draw.dtype);
    device.router_backward(Lane::compute, {.tokens = tokens.data(),
                                           .weight = weight.data(),
                                           .logits = logits.floats(),
                                           .ids = ids.data(),
                                           .weight_grads = weight_grads.floats(),
                                           .score_grads = draw.whole(0, 1) == 0 ? nullptr : score_grads.floats(),
                                           .z_grad = draw.whole(0, 1) == 0 ? 0.0F : 0.25F,
                                           .logit_grads = logit_grads.floats(),
                                           .token_grads = token_grads.data(),
                                           .weight_grad = weight_grad.floats(),
                                           .weight_grad_scale = 0.5F,
                                           .rows = rows,
                                           .hidden = hidden,
                                           .experts = experts,
                                           .k = k,
                                           .renormalize = renormalize,
                                           .options = options,
                                           .dtype = draw.dtype});
    device.synchronize(soon());
    const Ints chosen = ids.read();
    return {{"logits", logits.read(), 0},
            {"ids", Floats(chosen.begin(), chosen.end()), 0},
            {"weights", weights.read(), 0},
            {"loss sums", sums.read(), 1e-5},
            {"logit gradients", logit_grads.read(), 1e-5},
            {"token gradients", token_grads.read(), 1e-5 + 2 * unit_roundoff(draw.dtype)},
            {"weight gradient", weight_grad.read(), 1e-5}};
  });
}

TEST_F(RandomShapes, MixForwardAndBackward) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const std::int64_t rows = draw.rows(), columns = draw.columns();
    const auto gate = static_cast<SharedGate>(draw.whole(0, 2));
    const int gates = kernels::gates_of(gate);
    const auto row_tensor = [&] { return Tensor(device, draw.reals(rows * columns, draw.dtype), draw.dtype); };
    const Tensor tokens = row_tensor(), shared = row_tensor(), out = row_tensor(), routed = row_tensor();
    const Tensor weight(device, draw.reals(gates * columns));
    device.mix(Lane::compute, {.tokens = tokens.data(),
                               .weight = weight.floats(),
                               .shared = shared.data(),
                               .out = out.data(),
                               .routed = routed.data(),
                               .rows = rows,
                               .columns = columns,
                               .gate = gate,
                               .dtype = draw.dtype});
    device.synchronize(soon());
    const double bound = 1e-5 + 2 * unit_roundoff(draw.dtype);
    Outputs outputs{{"mixed", out.read(), bound}, {"routed", routed.read(), 0}};
    if (gate == SharedGate::none) return outputs;
    const Tensor out_grad = row_tensor(), routed_grad = row_tensor(), shared_grad = row_tensor();
    const Tensor token_grad = row_tensor(), logit_grads(device, draw.reals(rows * gates));
    const Tensor weight_grad(device, draw.reals(gates * columns));
    device.mix_backward(Lane::compute, {.tokens = tokens.data(),
                                        .weight = weight.floats(),
                                        .out_grad = out_grad.data(),
                                        .routed = routed.data(),
                                        .shared = shared.data(),
                                        .routed_grad = routed_grad.data(),
                                        .shared_grad = shared_grad.data(),
                                        .token_grad = token_grad.data(),
                                        .logit_grads = logit_grads.floats(),
                                        .weight_grad = weight_grad.floats(),
                                        .weight_grad_scale = 0.5F,
                                        .rows = rows,
                                        .columns = columns,
                                        .gate = gate,
                                        .dtype = draw.dtype});
    device.synchronize(soon());
    outputs.insert(outputs.end(), {{"routed gradient", routed_grad.read(), bound},
                                   {"shared gradient", shared_grad.read(), bound},
                                   {"token gradient", token_grad.read(), bound},
                                   {"logit gradients", logit_grads.read(), 1e-5},
                                   {"weight gradient", weight_grad.read(), 1e-5}});
    return outputs;
  });
}

// Products are the library's (on the harness, plain loops); activations and where each expert's rows lie are ours.
TEST_F(RandomShapes, GroupedFfnForwardAndBackward) {
  expect_like_cpu([](Device& device, Draw draw) -> Outputs {
    const int experts = draw.edge_or({1, 2}, 1, 6);
    std::vector<std::int64_t> offsets{0};
    const int only = draw.whole(0, 2) == 0 ? draw.whole(0, experts - 1) : -1;  // all rows to it
    for (int e = 0; e < experts; ++e) {
      const std::int64_t rows = draw.rows() / 4;
      offsets.push_back(offsets.back() + (only < 0 || only == e ? rows : 0));
    }
    const auto activation = draw.whole(0, 1) == 0 ? kernels::Activation::swiglu : kernels::Activation::gelu;
    const FfnLayer layer(device, {offsets, draw.whole(1, 20), draw.whole(1, 20), activation}, draw.dtype,
                         static_cast<unsigned>(draw.whole(1, 1000)));
    layer.forward(device);
    layer.backward(device, 0.5F);
    // bf16: a rounding of gate and up of some units in the last place, through a product of 20 terms.
    const double bound = draw.dtype == DType::f32 ? 1e-5 : 16 * unit_roundoff(draw.dtype);
    return {{"out", layer.out.read(), bound},
            {"token gradient", layer.in_grad.read(), bound},
            {"w_gate gradient", layer.w_gate_grad.read(), bound},
            {"w_up gradient", layer.w_up_grad.read(), bound},
            {"w_down gradient", layer.w_down_grad.read(), bound}};
  });
}

}  // namespace
}  // namespace topomoe::test
