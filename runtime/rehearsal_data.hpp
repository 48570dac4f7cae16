// Weights and tokens of a rehearsal, from a seed: any rank can draw any part of them, and no two disagree.
//
// A token is named by its TP group and its place among the tokens that the group holds, so that it is the same
// whoever holds it. Values are uniform, scaled so that activations stay near 1, and rounded to the layer's dtype.
// A token whose last chosen and first unchosen expert (or group) are nearer than fp32 can tell is drawn again: routing
// in double precision is then the routing that every device finds. Under sigmoid scoring there is a selection bias, as
// DeepSeek-V3's routers have one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "topomoe/moe_layer.hpp"

namespace topomoe {

class RehearsalData {
 public:
  RehearsalData(const LayerShape& shape, std::uint64_t seed);

  const LayerShape& shape() const { return shape_; }
  const std::vector<float>& router() const { return router_; }        // [experts, hidden]
  const std::vector<float>& selection_bias() const { return bias_; }  // [experts], or empty
  const std::vector<float>& mix() const { return mix_; }              // [gates of shape.shared_gate, hidden]
  // Scores of a token's experts, in double.
  std::vector<double> scores(std::span<const float> row) const;
  // One expert: gate and up [ffn, hidden], down [hidden, ffn].
  struct Expert {
    std::vector<float> gate, up, down;
  };
  Expert expert(int index) const;
  Expert shared() const;  // of width shape.shared_ffn
  // Fills one row [hidden] and its experts [top_k], best first.
  void token(int group, std::int64_t place, std::span<float> row, std::span<std::int32_t> ids) const;
  void output_gradient(int group, std::int64_t place, std::span<float> row) const;

 private:
  LayerShape shape_;
  std::uint64_t seed_;
  std::vector<float> router_, bias_, mix_;
};

}  // namespace topomoe
