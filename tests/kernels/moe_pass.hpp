// Map, pack, experts, combine and the way back on one device, from ids: exact mode, whose experts' offsets are counts
// read by the host, or bounded mode, where nothing is read.
#pragma once

#include <utility>
#include <vector>

#include "kernels/gather_rows.hpp"
#include "kernels/sum_rows.hpp"
#include "tests/kernels/expert_map_layer.hpp"
#include "tests/kernels/ffn_layer.hpp"

namespace topomoe::test {

struct MoeSizes {
  std::int64_t rows = 0, hidden = 0, ffn = 0;
  int k = 0, experts = 0;
  DType dtype = DType::f32;
  kernels::Activation activation = kernels::Activation::swiglu;
};

// Capacity 0: exact, for these ids alone; else so many places an expert.
struct MoePass {
  MoePass(Device& device, const MoeSizes& s, const Ints& ids, std::int64_t capacity, unsigned seed)
      : sizes(s),
        map(device,
            {.rows = s.rows,
             .capacity = capacity > 0 ? capacity : s.rows * s.k,
             .k = s.k,
             .experts = s.experts,
             .parts = capacity > 0 ? s.experts : 1},
            ids),
        experts(device, {offsets_of(ids, s.experts, capacity), s.hidden, s.ffn, s.activation}, s.dtype, seed),
        random(seed),
        tokens(device, random.reals(s.rows * s.hidden, s.dtype), s.dtype),
        out_grad(device, random.reals(s.rows * s.hidden, s.dtype), s.dtype),
        weights(device, random.reals(s.rows * s.k)),
        out(device, Floats(at(s.rows * s.hidden), 7.0F), s.dtype),
        token_grad(device, Floats(at(s.rows * s.hidden), 7.0F), s.dtype),
        place_weights(device, Floats(at(experts.shape.rows()), 7.0F)) {
    const std::int64_t matrix = s.experts * s.hidden * s.ffn;
    for (const Tensor* w : {&experts.w_gate, &experts.w_up, &experts.w_down}) w->write(random.reals(matrix, s.dtype));
  }

  // Neither waits for anything nor reads anything.
  void issue(Device& device) const {
    const std::int64_t places = experts.shape.rows();
    const auto gather = [&](const void* to, const void* from, const std::int32_t* source, const float* scale,
                            std::int64_t columns, DType dtype) {
      device.gather_rows(Lane::compute, {.out = const_cast<void*>(to),
                                         .in = from,
                                         .source_row = source,
                                         .scale = scale,
                                         .rows = places,
                                         .columns = columns,
                                         .dtype = dtype});
    };
    const auto sum = [&](const Tensor& to, const Tensor& from, const float* weight) {
      device.sum_rows(Lane::compute, {.out = to.data(),
                                      .in = from.data(),
                                      .position = map.position.data(),
                                      .weight = weight,
                                      .rows = sizes.rows,
                                      .columns = sizes.hidden,
                                      .k = sizes.k,
                                      .dtype = sizes.dtype});
    };
    device.expert_map(Lane::compute, map.map);
    gather(experts.in.data(), tokens.data(), map.source_row.data(), nullptr, sizes.hidden, sizes.dtype);
    experts.issue_forward(device, experts.in_blocks());
    sum(out, experts.out, weights.floats());
    gather(place_weights.data(), weights.data(), map.source_factor.data(), nullptr, 1, DType::f32);
    gather(experts.out_grad.data(), out_grad.data(), map.source_row.data(), place_weights.floats(), sizes.hidden,
           sizes.dtype);
    experts.issue_backward(device, 1.0F, experts.in_blocks());
    sum(token_grad, experts.in_grad, nullptr);
  }
  void run(Device& device) const {
    issue(device);
    device.synchronize(soon());
  }

  static std::vector<std::int64_t> offsets_of(const Ints& ids, int experts, std::int64_t capacity) {
    std::vector<std::int64_t> offsets{0};
    for (int e = 0; e < experts; ++e)
      offsets.push_back(offsets.back() + (capacity > 0 ? capacity : std::count(ids.begin(), ids.end(), e)));
    return offsets;
  }

  MoeSizes sizes;
  MapTensors map;
  FfnLayer experts;
  Random random;
  Tensor tokens, out_grad, weights, out, token_grad, place_weights;
};

}  // namespace topomoe::test
