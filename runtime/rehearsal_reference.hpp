// The MoE layer by its definition, in double precision, for some consecutive tokens of one TP group: no groups,
// no schedule, no kernels. It goes expert by expert, so that only one expert's weights and gradients exist at a
// time; outputs and token gradients are complete after the last one and finish().
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/rehearsal_data.hpp"

namespace topomoe {

class ReferenceShare {
 public:
  // Tokens [first, last) of the group; with `fp8_dispatch` routed experts see them converted there and back. With a
  // capacity factor: among [routed_first, routed_last), which compete for it.
  ReferenceShare(const RehearsalData& data, int group, std::int64_t first, std::int64_t last, std::int64_t routed_first,
                 std::int64_t routed_last, bool fp8_dispatch = false);

  struct ExpertGradients {
    std::vector<double> gate, up, down;  // as RehearsalData::Expert
  };
  // Forward and backward of one expert over those of my tokens that chose it: their part of its gradients.
  ExpertGradients run_expert(int index);
  // The shared expert's part, after all experts: its gradients, and that of its gate [gates, hidden].
  ExpertGradients run_shared(std::vector<double>& mix_gradient);
  // The router's part. Returns its gradient [experts, hidden].
  std::vector<double> finish();

  std::vector<double> output, token_grads;  // [tokens, hidden]

 private:
  const RehearsalData& data_;
  std::size_t tokens_, hidden_, k_;
  std::vector<float> x_, dy_;
  std::vector<float> seen_;  // x as routed experts see it
  std::vector<std::int32_t> ids_;
  std::vector<bool> dropped_;    // [tokens, k]
  std::vector<double> scores_;   // [tokens, experts]
  std::vector<double> factors_;  // [tokens, 2]: of the routed experts' output, and of the shared one's
  std::vector<double> dweight_;  // [tokens, k]: gradient of each weight
  double norm(std::size_t token) const;
  void drop(int group, std::int64_t first, std::int64_t routed_first, std::int64_t routed_last);
  double weight(std::size_t slot) const;
  // One FFN of `width` for one token, which it sees as x: its output, and with `factor` times the token's output
  // gradient the gradients.
  std::vector<double> run_ffn(const RehearsalData::Expert& w, std::size_t width, const float* x, std::size_t token,
                              double factor, ExpertGradients& d);
};

}  // namespace topomoe
