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

enum class Stream : std::uint64_t {
  router,
  gate,
  up,
  down,
  token,
  gradient,
  bias,
  shared_gate,
  shared_up,
  shared_down,
  mix
};

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

// The `count` largest, best first, equal ones by lower index; and by how much the last is above the first left out.
double take_best(const std::vector<double>& values, std::size_t count, std::vector<std::int32_t>& order) {
  order.resize(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  const auto at = [&](std::size_t place) { return values[static_cast<std::size_t>(order[place])]; };
  const double margin = count < order.size() ? at(count - 1) - at(count) : HUGE_VAL;
  order.resize(count);
  return margin;
}

}  // namespace

RehearsalData::RehearsalData(const LayerShape& shape, std::uint64_t seed)
    : shape_(shape), seed_(seed), router_(static_cast<std::size_t>(shape.experts * shape.hidden)) {
  fill(router_, key(seed_, Stream::router, 0), scale_of(shape_.hidden), DType::f32);
  if (shape_.router.scoring == Scoring::sigmoid) {
    constexpr double kBias = 0.1;  // against scores around a half: changes many choices, decides none
    bias_.resize(static_cast<std::size_t>(shape_.experts));
    fill(bias_, key(seed_, Stream::bias, 0), kBias, DType::f32);
  }
  mix_.resize(static_cast<std::size_t>(static_cast<int>(shape_.shared_gate) * shape_.hidden));
  fill(mix_, key(seed_, Stream::mix, 0), scale_of(shape_.hidden), DType::f32);
}

RehearsalData::Expert RehearsalData::shared() const {
  const auto size = static_cast<std::size_t>(shape_.shared_ffn * shape_.hidden);
  Expert out{std::vector<float>(size), std::vector<float>(size), std::vector<float>(size)};
  fill(out.gate, key(seed_, Stream::shared_gate, 0), scale_of(shape_.hidden), shape_.dtype);
  fill(out.up, key(seed_, Stream::shared_up, 0), scale_of(shape_.hidden), shape_.dtype);
  fill(out.down, key(seed_, Stream::shared_down, 0), scale_of(shape_.shared_ffn), shape_.dtype);
  return out;
}

std::vector<double> RehearsalData::scores(std::span<const float> row) const {
  std::vector<double> out(static_cast<std::size_t>(shape_.experts));
  for (std::size_t e = 0; e < out.size(); ++e)
    out[e] = std::inner_product(row.begin(), row.end(), &router_[e * row.size()], 0.0, std::plus<>(),
                                [](float a, float b) { return static_cast<double>(a) * static_cast<double>(b); });
  if (shape_.router.scoring == Scoring::sigmoid) {
    for (double& s : out) s = 1 / (1 + std::exp(-s));
    return out;
  }
  const double top = *std::max_element(out.begin(), out.end());
  double sum = 0;
  for (double& s : out) sum += s = std::exp(s - top);
  for (double& s : out) s /= sum;
  return out;
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
  const RouterOptions& o = shape_.router;
  const auto groups = static_cast<std::size_t>(o.groups),
             of_group = static_cast<std::size_t>(shape_.experts / o.groups);
  std::vector<std::int32_t> order;
  for (std::uint64_t attempt = 0; attempt < 64; ++attempt) {
    fill(row, key(seed_, Stream::token, static_cast<std::uint64_t>(group), static_cast<std::uint64_t>(place), attempt),
         1.0, shape_.dtype);
    std::vector<double> worth = scores(row), of_groups(groups);
    // As logits under softmax, up to a constant: that is what fp32 rounds.
    if (o.scoring == Scoring::softmax)
      for (double& w : worth) w = std::log(w);
    for (std::size_t e = 0; e < bias_.size(); ++e) worth[e] += static_cast<double>(bias_[e]);
    double margin = HUGE_VAL;
    if (o.topk_groups < o.groups) {
      for (std::size_t g = 0; g < groups; ++g) {
        std::vector<double> in(worth.begin() + static_cast<std::ptrdiff_t>(g * of_group),
                               worth.begin() + static_cast<std::ptrdiff_t>((g + 1) * of_group));
        std::sort(in.rbegin(), in.rend());
        of_groups[g] = in[0] + (o.scoring == Scoring::sigmoid && of_group > 1 ? in[1] : 0);
      }
      margin = take_best(of_groups, static_cast<std::size_t>(o.topk_groups), order);
      for (std::size_t e = 0; e < worth.size(); ++e)
        if (std::find(order.begin(), order.end(), static_cast<std::int32_t>(e / of_group)) == order.end())
          worth[e] = -HUGE_VAL;
    }
    margin = std::min(margin, take_best(worth, ids.size(), order));
    std::copy(order.begin(), order.end(), ids.begin());
    // fp32 sums of `hidden` products of this size are off by 1e-6 or so, sigmoids of them by less.
    if (margin > 1e-4) return;
  }
}

void RehearsalData::output_gradient(int group, std::int64_t place, std::span<float> row) const {
  fill(row, key(seed_, Stream::gradient, static_cast<std::uint64_t>(group), static_cast<std::uint64_t>(place)), 1.0,
       shape_.dtype);
}

}  // namespace topomoe
