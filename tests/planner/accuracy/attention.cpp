// Attention against published figures of FlashAttention-3 on H100, BF16, 16 heads of 128, 16,384 tokens: those of its
// paper (arXiv 2407.08608, figures 5 and 6), which the law was made of, and another group's run of its forward
// (pytorch/benchmark, pull request 2391), which it was not.
#include <fmt/format.h>

#include "planner/rates/compute.hpp"
#include "tests/planner/accuracy/machines.hpp"
#include "tests/planner/accuracy/tables.hpp"

namespace topomoe::accuracy {

void attention(Report& report) {
  struct Published {
    double sequence, forward, causal, backward, other_forward;  // TFLOP/s
  };
  const ComputeModel model(h100_sxm(), DType::bf16, {});
  std::vector<Pair> paper, other;
  for (const Published& p : {Published{512, 467, 292, 316, 430}, Published{1024, 565, 423, 424, 517},
                             Published{2048, 625, 521, 501, 566}, Published{4096, 638, 579, 542, 590},
                             Published{8192, 646, 602, 559, 614}, Published{16384, 648, 616, 561, 621}}) {
    const AttentionShape forward{16384 / p.sequence, p.sequence, p.sequence, 16, 16, 128, false, false};
    AttentionShape causal = forward, backward = forward;
    causal.causal = true, backward.backward = true;
    const double flops = 4 * 16384 * p.sequence * 16 * 128;
    const auto pair = [&](const char* group, const AttentionShape& shape, double of, double TFLOPps) {
      const Estimate e = model.attention(shape);
      return Pair{group,    fmt::format("sequence {:.0f}", p.sequence), e.time_us, of / TFLOPps * 1e-6, e.low_us,
                  e.high_us};
    };
    paper.push_back(pair("forward", forward, flops, p.forward));
    paper.push_back(pair("forward, causal", causal, flops / 2, p.causal));
    paper.push_back(pair("backward", backward, 2.5 * flops, p.backward));
    other.push_back(pair("forward", forward, flops, p.other_forward));
  }
  report.table("Attention, H100 BF16, FlashAttention-3's paper (the law was made of these)", 0, paper);
  report.table("Attention, H100 BF16, FlashAttention-3 as others ran it (nothing fitted on it)", 0, other);
}

}  // namespace topomoe::accuracy
