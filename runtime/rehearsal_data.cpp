#include "runtime/rehearsal_data.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/bf16.hpp"

namespace topomoe {
namespace {

// SplitMix64's finisher: neighbouring inputs give unrelated outputs.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

enum class Stream : std::uint64_t { router, gate, up, down, token, gradient };

std::uint64_t key(std::uint64_t seed, Stream stream, std::uint64_t a, std::uint64_t b = 0, std::uint64_t c = 0) {
  return mix(mix(mix(mix(seed) + static_cast<std::uint64_t>(stream)) + a) + mix(b + (c << 40)));
}

// Uniform in [-scale, scale).
void fill(std::span<float> out, std::uint64_t stream, double scale, DType dtype) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double unit = static_cast<double>(mix(stream + i) >> 11) * 0x1p-52 - 1.0;
    out[i] = static_cast<float>(scale * unit);
    if (dtype == DType::bf16) out[i] = kernels::to_float(kernels::to_bf16(out[i]));
  }
}

double scale_of(std::int64_t width) { return 2.0 / std::sqrt(static_cast<double>(width)); }

}  // namespace

RehearsalData::RehearsalData(const LayerShape& shape, std::uint64_t seed)
    : shape_(shape), seed_(seed), router_(static_cast<std::size_t>(shape.experts * shape.hidden)) {
  fill(router_, key(seed_, Stream::router, 0), scale_of(shape_.hidden), DType::f32);
}

RehearsalData::Expert RehearsalData::expert(int index) const {
  const auto size = static_cast<std::size_t>(shape_.ffn * shape_.hidden), e = static_cast<std::size_t>(index);
  Expert out{std::vector<float>(size), std::vector<float>(size), std::vector<float>(size)};
  fill(out.gate, key(seed_, Stream::gate, e), scale_of(shape_.hidden), shape_.dtype);
  fill(out.up, key(seed_, Stream::up, e), scale_of(shape_.hidden), shape_.dtype);
  fill(out.down, key(seed_, Stream::down, e), scale_of(shape_.ffn), shape_.dtype);
  return out;
}

void RehearsalData::token(int group, std::int64_t place, std::span<float> row, std::span<std::int32_t> ids) const {
  const auto experts = static_cast<std::size_t>(shape_.experts), hidden = static_cast<std::size_t>(shape_.hidden);
  std::vector<double> logits(experts);
  std::vector<std::int32_t> order(experts);
  for (std::uint64_t attempt = 0; attempt < 64; ++attempt) {
    fill(row, key(seed_, Stream::token, static_cast<std::uint64_t>(group), static_cast<std::uint64_t>(place), attempt),
         1.0, shape_.dtype);
    for (std::size_t e = 0; e < experts; ++e) {
      const float* const w = &router_[e * hidden];
      logits[e] = std::inner_product(row.begin(), row.end(), w, 0.0, std::plus<>(),
                                     [](float a, float b) { return static_cast<double>(a) * static_cast<double>(b); });
    }
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    std::copy_n(order.begin(), ids.size(), ids.begin());
    if (ids.size() == experts) return;
    // fp32 sums of `hidden` products of this size are off by 1e-6 or so.
    if (logits[static_cast<std::size_t>(order[ids.size() - 1])] - logits[static_cast<std::size_t>(order[ids.size()])] >
        1e-4)
      return;
  }
}

void RehearsalData::output_gradient(int group, std::int64_t place, std::span<float> row) const {
  fill(row, key(seed_, Stream::gradient, static_cast<std::uint64_t>(group), static_cast<std::uint64_t>(place)), 1.0,
       shape_.dtype);
}

}  // namespace topomoe
