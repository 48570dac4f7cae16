// How a router turns logits into experts and weights, and which losses keep it balanced. All defaults together are
// the plain router: softmax, any expert, no loss.
#pragma once

#include <cstdint>
#include <string_view>

namespace topomoe {

enum class Scoring : std::uint8_t { softmax, sigmoid };  // how the router turns logits into scores

struct RouterOptions {
  Scoring scoring = Scoring::softmax;
  // Group-limited routing: experts in `groups` equal parts, of which a token may reach the `topk_groups` best. A
  // group's worth is that of its best expert under softmax (DeepSeek-V2, arXiv 2405.04434, 2.1.2: device-limited
  // routing), the sum of its two best under sigmoid (DeepSeek-V3, arXiv 2412.19437, 2.1.2); bias included.
  int groups = 1, topk_groups = 1;
  float scale = 1;  // routed_scaling_factor: of each weight, after renormalizing
  // Coefficients; 0: no such loss. Both are means over the tokens that one rank routes in one pass (Megatron's
  // default: per micro-batch, no exchange of counts), whatever sequences they belong to.
  //   balance: experts x sum_e f_e P_e, f_e the share of all choices that fell on e (before any capacity, and with
  //   the bias), P_e the mean of the scores of e, a token's scores scaled to sum 1 (Switch, arXiv 2101.03961, (4)).
  //   z: mean of (log sum_e exp logit_e)^2 (ST-MoE, arXiv 2202.08906, (5)).
  float balance_loss = 0, z_loss = 0;
  bool losses() const { return balance_loss != 0 || z_loss != 0; }
  bool operator==(const RouterOptions&) const = default;
};

// Throws InvalidInput("<where>: <field>", ...) unless groups fit the experts and coefficients are finite.
void check(const RouterOptions& options, int experts, int top_k, std::string_view where);

}  // namespace topomoe
