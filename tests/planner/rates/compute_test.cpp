// Compute operations on one GPU: hand arithmetic, laws, figures recovered from made-up measurements.
#include "planner/rates/compute.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "planner/rates/compute_tables.hpp"
#include "planner/rates/expert_rows.hpp"
#include "planner/rates/fit.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// 1,000 TFLOP/s and 2,000 GB/s, 100 SMs: 1e9 flop and 2e6 bytes a us.
GpuSpec round_gpu() {
  GpuSpec gpu;
  gpu.name = "round", gpu.bf16_TFLOPps = 1000, gpu.fp32_TFLOPps = 100, gpu.hbm_GBps = 2000, gpu.sms = 100;
  return gpu;
}
const GpuRates kRound{1e9, 2e6, 100, 2};
const GemmFigures kPlain{2, 1, 1, 0, 0};  // 2 us of launch, peak and HBM in full, no ramp, no droop

Calibration round_calibration() {
  Calibration c;
  c.name = "round-node", c.source = "made up", c.machine.gpu = round_gpu();
  put_figures(c, GemmFit{{3, 0.9, 0.8, 200, 0.1}, 0.1});
  put_figures(c, MoeFfnFit{{}, 0.15});
  return c;
}

std::string field_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const InvalidInput& e) {
    return e.field;
  }
  return "nothing thrown";
}

TEST(Fit, FindsALine_ThroughAnOutlier) {
  const std::vector<FitFigure> figures{{0, -10, 10}, {0, -10, 10}};
  const auto fit = fit_figures(figures, 9, 0.01, [](std::span<const double> p, std::span<double> out) {
    for (std::size_t i = 0; i < 9; ++i) {
      const double x = static_cast<double>(i), y = i == 4 ? 50 : 3 - 0.5 * x;
      out[i] = p[0] + p[1] * x - y;
    }
  });
  EXPECT_NEAR(fit[0], 3, 0.02);  // least squares without robustness would be lifted by (50 - 1) / 9 = 5
  EXPECT_NEAR(fit[1], -0.5, 0.01);
}

TEST(Fit, StaysInBounds_WhenTheBestLiesBeyond) {
  const std::vector<FitFigure> figures{{0.5, 0, 1}, {0, -1, 1}};
  const auto fit = fit_figures(
      figures, 2, 1, [](std::span<const double> p, std::span<double> out) { out[0] = p[0] - 7, out[1] = p[1] - 0.25; });
  EXPECT_DOUBLE_EQ(fit[0], 1);
  EXPECT_NEAR(fit[1], 0.25, 1e-6);
}

TEST(Gemm, LargeIsFlopsOverPeak) {
  // 2 x 10240 x 10240 x 8192 flop at 1e9 a us: 1718.0 us. Bytes: 2 (10240^2 + 2 x 10240 x 8192) at 2e6 a us: 272.6 us;
  // the round maximum with sharpness 4 adds (272.6 / 1718)^4 / 4 = 0.016%.
  const GemmTime t = gemm_time(kPlain, kRound, 10240, 10240, 8192);
  EXPECT_NEAR(t.compute_us, 1718.0, 0.1);
  EXPECT_NEAR(t.memory_us, 272.6, 0.1);
  EXPECT_NEAR(t.total_us, 2 + 1718.0 * 1.00016, 0.2);
}

TEST(Gemm, OneRowReadsItsWeights) {
  // 2 x 8192 x 8192 bytes of weights at 2e6 a us: 67.1 us. Compute: two waves of 64 x 64 tiles on 100 SMs are less.
  const GemmTime t = gemm_time(kPlain, kRound, 1, 8192, 8192);
  EXPECT_NEAR(t.memory_us, 67.1, 0.1);
  EXPECT_LT(t.compute_us, t.memory_us / 5);
  EXPECT_NEAR(t.total_us, 69.1, 0.1);
}

TEST(Gemm, SmallerThanATileASm_TakesAsLongAsOneTile) {
  const GemmTime one = gemm_time(kPlain, kRound, 64, 64, 4096), all = gemm_time(kPlain, kRound, 640, 640, 4096);
  EXPECT_DOUBLE_EQ(one.compute_us, all.compute_us);  // 1 and 100 tiles on 100 SMs
}

TEST(Gemm, GrowsWithEverySize_AndNeverBeatsItsBound) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> exponent(0, 15);
  const GemmFigures figures;
  for (int i = 0; i < 2000; ++i) {
    std::array<double, 3> size{};
    for (double& s : size) s = std::floor(std::exp2(exponent(random)));
    const double time = gemm_time(figures, kRound, size[0], size[1], size[2]).total_us;
    EXPECT_LE(gemm_bound_us(kRound, size[0], size[1], size[2]), time);
    for (std::size_t d = 0; d < 3; ++d) {
      auto larger = size;
      larger[d] += 1 + std::floor(larger[d] / 3);
      EXPECT_GE(gemm_time(figures, kRound, larger[0], larger[1], larger[2]).total_us, time * (1 - 1e-12));
    }
  }
}

TEST(Gemm, FitRecoversFigures) {
  const GemmFigures made{5, 0.7, 0.6, 500, 0.05};
  std::vector<GemmPoint> points;
  for (const double m : {1.0, 64.0, 1024.0, 8192.0, 32768.0})
    for (const double n : {1024.0, 8192.0})
      for (const double k : {512.0, 4096.0}) points.push_back({m, n, k, gemm_time(made, kRound, m, n, k).total_us});
  const GemmFit fit = fit_gemm(points, kRound);
  EXPECT_NEAR(fit.figures.launch_us, 5, 0.01);
  EXPECT_NEAR(fit.figures.hbm_fraction, 0.7, 1e-3);
  EXPECT_NEAR(fit.figures.peak_fraction, 0.6, 1e-3);
  EXPECT_NEAR(fit.figures.ramp_k, 500, 2);
  EXPECT_NEAR(fit.figures.droop, 0.05, 1e-3);
  EXPECT_LT(fit.spread, 1e-3);
  EXPECT_THROW(fit_gemm(std::span(points).first(4), kRound), InvalidInput);
}

TEST(ExpertLoad, CountsTilesOfEachExpert) {
  const std::vector<double> rows{0, 0.5, 1, 17, 128};
  const ExpertLoad load = expert_load(rows);
  EXPECT_DOUBLE_EQ(load.rows, 146.5);
  EXPECT_DOUBLE_EQ(load.active, 3.5);
  EXPECT_DOUBLE_EQ(load.tiles[0], 0.5 + 1 + 2 + 8);  // of 16 rows
  EXPECT_DOUBLE_EQ(load.tiles[3], 0.5 + 1 + 1 + 1);  // of 128 rows
}

TEST(ExpertRows, BalancedAreWithinARow_AndEveryChoiceIsThere) {
  for (const SpreadRequest r :
       {SpreadRequest{1000, 64, 8, 1}, SpreadRequest{16, 8, 2, 1}, SpreadRequest{7, 60, 4, 1}}) {
    const auto rows = balanced_rows(r);
    double sum = 0;
    for (const double x : rows) sum += x;
    EXPECT_DOUBLE_EQ(sum, 1.0 * r.tokens * r.top_k);
  }
  // 64 tokens, top-8 of 64: each expert 8 rows; a rank of 8 holds 8 of them.
  EXPECT_EQ(balanced_rows({64, 64, 8, 8}), std::vector<double>(8, 8));
  // 2 tokens, top-2 of 8, stride 4: experts 0 and 4, then 2 and 6.
  EXPECT_EQ(balanced_rows({2, 8, 2, 1}), (std::vector<double>{1, 0, 1, 0, 1, 0, 1, 0}));
}

TEST(ExpertRows, PowerLawKeepsTheSum_AndTimesTheBusiestRank) {
  for (std::uint64_t seed = 0; seed < 50; ++seed)
    for (const int tokens : {1, 3, 100, 5000}) {
      const SpreadRequest one{tokens, 32, 4, 1};
      SpreadRequest split = one;
      split.ep = 8;
      double all = 0, busiest = 0;
      for (const double x : power_law_rows(one, 1.2, seed)) {
        all += x;
        EXPECT_GE(x, 0);
        EXPECT_LE(x, tokens);  // a token chooses an expert once
      }
      EXPECT_DOUBLE_EQ(all, 4.0 * tokens);
      for (const double x : power_law_rows(split, 1.2, seed)) busiest += x;
      EXPECT_GE(busiest, all / 8);
      EXPECT_EQ(power_law_rows(split, 1.2, seed), power_law_rows(split, 1.2, seed));
    }
  EXPECT_NE(power_law_rows({5000, 32, 4, 1}, 1.2, 1), power_law_rows({5000, 32, 4, 1}, 1.2, 2));
}

TEST(ExpertRows, RejectsByName) {
  EXPECT_EQ(field_of([] { balanced_rows({0, 8, 2, 1}); }), "tokens");
  EXPECT_EQ(field_of([] { balanced_rows({8, 8, 9, 1}); }), "top_k");
  EXPECT_EQ(field_of([] { power_law_rows({8, 8, 2, 3}, 1.2, 0); }), "ep");
  EXPECT_EQ(field_of([] { power_law_rows({8, 8, 2, 1}, 1, 0); }), "alpha");
}

TEST(MoeFfn, FewRowsReadTheWeightsOfActiveExperts) {
  // 4 experts with a row each, gated, hidden 4096, ffn 2048: 4 x 3 x 4096 x 2048 x 2 bytes at 2e6 x 0.5 a us = 201.3
  // us.
  MoeFfnFigures f;
  f.launch_us = 0, f.per_1024_k_us = 0, f.weight_hbm_fraction = 0.5;
  const std::vector<double> rows{1, 1, 1, 1, 0, 0, 0, 0};
  const MoeFfnTime t = moe_ffn_time(f, kRound, expert_load(rows), {4096, 2048, 3});
  EXPECT_NEAR(t.weights_us, 201.3, 0.1);
  EXPECT_NEAR(t.total_us, 201.3, 3);
}

TEST(MoeFfn, ManyRowsAreFlopsOverPeak) {
  // 8 experts of 16,384 rows: 2 x 131,072 x 3 x 4096 x 2048 flop at 1e9 x 0.5 a us = 13,194 us and less for the rest.
  MoeFfnFigures f;
  f.launch_us = 0, f.per_1024_k_us = 0, f.peak_fraction = 0.5, f.ramp_k = 0, f.l2_GBps = 1e6, f.stream_hbm_fraction = 1;
  const MoeFfnTime t = moe_ffn_time(f, kRound, expert_load(std::vector<double>(8, 16384)), {4096, 2048, 3});
  EXPECT_NEAR(t.compute_us, 13194, 10);
  EXPECT_GT(t.total_us, 13194);
  EXPECT_LT(t.total_us, 13194 * 1.15);
}

TEST(MoeFfn, MoreOfAnythingTakesLonger_AndNothingBeatsTheBound) {
  std::mt19937 random(11);
  std::uniform_int_distribution<int> rows(0, 3000), experts(1, 40);
  std::uniform_real_distribution<double> width(6, 13);
  const MoeFfnFigures f;
  for (int i = 0; i < 500; ++i) {
    std::vector<double> load(static_cast<std::size_t>(experts(random)));
    for (double& r : load) r = rows(random);
    const MoeFfnShape shape{std::floor(std::exp2(width(random))), std::floor(std::exp2(width(random))), 2 + i % 2};
    const double time = moe_ffn_time(f, kRound, expert_load(load), shape).total_us;
    EXPECT_LE(moe_ffn_bound_us(kRound, expert_load(load), shape), time);
    auto more = load;
    more[0] += 100;
    EXPECT_GE(moe_ffn_time(f, kRound, expert_load(more), shape).total_us, time);
    more = load, more.push_back(1);
    EXPECT_GT(moe_ffn_time(f, kRound, expert_load(more), shape).total_us, time);
    MoeFfnShape larger = shape;
    larger.foreign_rows = 100;
    EXPECT_GT(moe_ffn_time(f, kRound, expert_load(load), larger).total_us, time);
  }
}

TEST(MoeFfn, FitRecoversFigures) {
  const MoeFfnFigures made{40, 9, 4, 0.6, 0.5, 0.5, 4000, 100};
  std::vector<MoeFfnPoint> points;
  for (const double rows : {0.0, 1.0, 40.0, 300.0, 6000.0})
    for (const double experts : {2.0, 64.0})
      for (const double ffn : {512.0, 4096.0})
        for (const double foreign : {0.0, 1000.0, 50000.0}) {
          MoeFfnPoint p;
          p.load = expert_load(std::vector<double>(static_cast<std::size_t>(experts), rows));
          p.shape = {2048, ffn, 3, foreign, 100};
          p.time_us = moe_ffn_time(made, kRound, p.load, p.shape).total_us;
          points.push_back(p);
        }
  const MoeFfnFigures f = fit_moe_ffn(points, kRound).figures;
  EXPECT_NEAR(f.launch_us, 40, 0.1);
  EXPECT_NEAR(f.foreign_us, 9, 0.1);
  EXPECT_NEAR(f.per_1024_k_us, 4, 0.05);
  EXPECT_NEAR(f.weight_hbm_fraction, 0.6, 0.01);
  EXPECT_NEAR(f.stream_hbm_fraction, 0.5, 0.01);
  EXPECT_NEAR(f.peak_fraction, 0.5, 0.01);
  EXPECT_NEAR(f.l2_GBps, 4000, 100);
}

TEST(ComputeTables, ReadByColumnName_AndSayWhichCellIsWrong) {
  const auto rows = read_gemm_table("k,system,m,n,latency_us,extra\r\n64,h100_sxm,1,2,3.5,x\r\n\r\n", "g.csv");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].system, "h100_sxm");
  EXPECT_EQ(rows[0].point.k, 64);
  EXPECT_EQ(rows[0].point.time_us, 3.5);
  const std::string head = "system,m,n,k,latency_us\n";
  EXPECT_EQ(field_of([&] { read_gemm_table(head + "a,1,2,3,4\na,1,-2,3,4\n", "g.csv"); }), "g.csv: line 3: n");
  EXPECT_EQ(field_of([&] { read_gemm_table(head + "a,1,2,3\n", "g.csv"); }), "g.csv: line 2");
  EXPECT_EQ(field_of([&] { read_gemm_table("system,m,n,latency_us\n", "g.csv"); }), "g.csv");
  EXPECT_EQ(field_of([&] { read_gemm_table("", "g.csv"); }), "g.csv");
}

TEST(ComputeTables, MoeRowKnowsWhoseRowsAreWhose) {
  const std::string head =
      "system,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,distribution,latency_us\n";
  const auto rows = read_moe_kernel_table(
      head + "x,64,2048,768,8,64,2,8,balanced,30\nx,64,2048,768,8,64,1,1,power_law_1.2,30\n", "m.csv");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_DOUBLE_EQ(rows[0].point.load.rows, 64);                 // 8 experts of 8 rows
  EXPECT_DOUBLE_EQ(rows[0].point.shape.foreign_rows, 512 - 64);  // of 64 x 8 choices
  EXPECT_DOUBLE_EQ(rows[0].point.shape.ffn, 384);
  EXPECT_NEAR(rows[1].point.load.rows, 512, 1e-9);
  EXPECT_DOUBLE_EQ(rows[1].point.shape.foreign_rows, 0);
  EXPECT_EQ(field_of([&] { read_moe_kernel_table(head + "x,64,2048,768,8,64,2,8,zipf,30\n", "m.csv"); }),
            "m.csv: line 2: distribution");
  EXPECT_EQ(field_of([&] { read_moe_kernel_table(head + "x,6.5,2048,768,8,64,2,8,balanced,30\n", "m.csv"); }),
            "m.csv: line 2: num_tokens");
}

TEST(ComputeTables, FiguresPassThroughTheCalibrationFile) {
  const Calibration back = read_calibration(write_calibration(round_calibration()), "c.json");
  EXPECT_EQ(gemm_of(back).figures.ramp_k, 200);
  EXPECT_EQ(moe_ffn_of(back).figures.l2_GBps, MoeFfnFigures{}.l2_GBps);
  EXPECT_EQ(moe_ffn_of(back).spread, 0.15);
  Calibration torn = back;
  torn.figures.erase("gemm.ramp_k");
  EXPECT_EQ(field_of([&] { gemm_of(torn); }), "calibration round-node: figures");
}

TEST(ComputeModel, SaysWhereItsFiguresAreFrom) {
  const std::vector<Calibration> known{round_calibration()};
  const ComputeModel same(round_gpu(), DType::bf16, known);
  EXPECT_EQ(same.gemm(4096, 4096, 4096).source, "measured: round-node (made up)");
  GpuSpec half = round_gpu();
  half.name = "half", half.bf16_TFLOPps = 500, half.hbm_GBps = 500, half.sms = 80;
  const Estimate scaled = ComputeModel(half, DType::bf16, known).gemm(4096, 4096, 4096);
  EXPECT_EQ(scaled.source, "scaled from round (measured): BF16 x0.50, HBM x0.25, SMs x0.80");
  const Estimate bare = ComputeModel(half, DType::bf16, {}).gemm(4096, 4096, 4096);
  EXPECT_EQ(bare.source, "datasheet: half, efficiencies assumed");
  // Less trust, wider band.
  const Estimate measured = same.gemm(4096, 4096, 4096);
  EXPECT_LT(measured.high_us / measured.time_us, scaled.high_us / scaled.time_us);
  EXPECT_LT(scaled.high_us / scaled.time_us, bare.high_us / bare.time_us);
  const std::vector<double> rows(8, 512);
  EXPECT_NE(same.expert_ffn(rows, 4096, 2048, 3, FfnKernel::fused, FfnPass::dgrad).source.find("not measured"),
            std::string::npos);
  EXPECT_NE(ComputeModel(round_gpu(), DType::f32, known).gemm(64, 64, 64).source.find("fp32"), std::string::npos);
}

TEST(ComputeModel, ACurveOfThisShapeComesFirst) {
  std::vector<Calibration> known{round_calibration()};
  known[0].curves.push_back({.operation = "gemm",
                             .size_unit = "rows",
                             .parameters = {{"n", 4096}, {"k", 7168}},
                             .knots = {{64, 100}, {1024, 400}},
                             .spread = 0.02});
  const ComputeModel model(round_gpu(), DType::bf16, known);
  const Estimate e = model.gemm(64, 4096, 7168);
  EXPECT_NEAR(e.time_us, 100, 1e-9);
  EXPECT_NEAR(e.high_us, 105, 1e-9);  // runs of one GPU differ by 5%
  // Between two m the model's shape: half-way in log m its time, times the mean of what both ends are over it.
  const ComputeModel alone(round_gpu(), DType::bf16, std::vector<Calibration>{round_calibration()});
  const auto over = [&](double m, double us) { return us / alone.gemm(m, 4096, 7168).time_us; };
  EXPECT_NEAR(model.gemm(256, 4096, 7168).time_us,
              alone.gemm(256, 4096, 7168).time_us * std::sqrt(over(64, 100) * over(1024, 400)), 1e-6);
  EXPECT_EQ(e.source, "measured: round-node, gemm n 4096 k 7168 (made up)");
  for (const Estimate& other : {model.gemm(2048, 4096, 7168), model.gemm(256, 7168, 4096),
                                ComputeModel(round_gpu(), DType::f32, known).gemm(256, 4096, 7168)})
    EXPECT_EQ(other.source.find("gemm n"), std::string::npos) << other.source;
}

TEST(ComputeModel, TakesTheClosestGpu) {
  std::vector<Calibration> known{round_calibration(), round_calibration()};
  known[0].name = "far", known[0].machine.gpu.bf16_TFLOPps = 100, known[0].machine.gpu.name = "far";
  EXPECT_EQ(ComputeModel(round_gpu(), DType::bf16, known).gemm(64, 64, 64).source, "measured: round-node (made up)");
}

TEST(ComputeModel, NamesTheRateThatItMisses) {
  GpuSpec gpu = round_gpu();
  gpu.sms = 0;
  EXPECT_EQ(field_of([&] { ComputeModel(gpu, DType::bf16, {}); }), "gpu round: sms");
  gpu = round_gpu(), gpu.fp32_TFLOPps = 0;
  EXPECT_EQ(field_of([&] { ComputeModel(gpu, DType::f32, {}); }), "gpu round: fp32_TFLOPps");
}

TEST(ComputeModel, AttentionIsFlopsOverPeakTimesEfficiency) {
  const ComputeModel model(round_gpu(), DType::bf16, {});
  // 4 x 8192 x 8192 x 32 x 128 flop = 1.0995e12, half of it when causal, where a query sees 4,096 keys on average:
  // 0.63 / (1 + (280 / 4096)^1.5) = 0.6189 of 1e9 a us: 888.2 us and the launch.
  AttentionShape s{1, 8192, 8192, 32, 8, 128, true, false};
  const double launch = GemmFigures{}.launch_us;
  EXPECT_NEAR(model.attention(s).time_us, 888.2 + launch, 0.5);
  s.causal = false;  // 0.63 / (1 + (280 / 8192)^1.5) = 0.6260: 1,756.3 us
  EXPECT_NEAR(model.attention(s).time_us, 1756.3 + launch, 0.5);
  // Backward: 2.5 times the flops at 0.58 / (1 + (430 / 4096)^1.2) = 0.5437: 2,527.9 us.
  s.causal = true, s.backward = true;
  EXPECT_NEAR(model.attention(s).time_us, 2527.9 + launch, 1);
  // Decoding: one query reads 32,768 keys and values of 8 heads x 128: 134.2 MB a sequence, x 16 at 2e6 x 0.85: 1263
  // us.
  const Estimate decode = model.attention({16, 1, 32768, 32, 8, 128, true, false});
  EXPECT_NEAR(decode.time_us, 1263, 8);
  EXPECT_EQ(decode.bottleneck, "HBM");
}

// FlashAttention-3's paper, figures 5 and 6 (16,384 tokens, 16 heads of 128, H100), TFLOP/s.
TEST(ComputeModel, ShortSequencesAreSlowInAttention_AsPublished) {
  GpuSpec h100 = round_gpu();
  h100.bf16_TFLOPps = 989, h100.hbm_GBps = 3350, h100.sms = 132;
  const ComputeModel model(h100, DType::bf16, {});
  struct Published {
    double sequence, forward, causal, backward;
  };
  for (const auto& [sequence, forward, causal, backward] :
       {Published{512, 467, 292, 316}, Published{1024, 565, 423, 424}, Published{2048, 625, 521, 501},
        Published{4096, 638, 579, 542}, Published{8192, 646, 602, 559}, Published{16384, 648, 616, 561}}) {
    AttentionShape s{16384 / sequence, sequence, sequence, 16, 16, 128, false, false};
    const double flops = 4 * 16384 * sequence * 16 * 128;  // 1e6 a us is a TFLOP/s
    const auto TFLOPps = [&](double of) { return of / (model.attention(s).time_us - GemmFigures{}.launch_us) * 1e-6; };
    EXPECT_NEAR(TFLOPps(flops) / forward, 1, 0.055) << sequence;
    s.causal = true;
    EXPECT_NEAR(TFLOPps(flops / 2) / causal, 1, 0.055) << sequence;
    s.causal = false, s.backward = true;
    EXPECT_NEAR(TFLOPps(2.5 * flops) / backward, 1, 0.02) << sequence;
  }
}

TEST(ComputeModel, AttentionOfFewBlocks_LeavesSmsIdle) {
  const ComputeModel model(round_gpu(), DType::bf16, {});
  // 100 SMs: 1,024 queries are 8 blocks a head. 25 heads are 200 blocks; 5 heads 40, of which 60 SMs have nothing, so
  // that a fifth of the work takes half as long.
  const auto time = [&](double heads) {
    return model.attention({1, 1024, 4096, heads, heads, 128, false, false}).time_us - GemmFigures{}.launch_us;
  };
  EXPECT_NEAR(time(5) / time(25), 0.5, 1e-9);
}

// One GEMM is a group of one, as many experts of equal rows as one count, and a group never beats flops over peak.
TEST(GroupedGemm, AddsUpItsMembers) {
  const GemmFigures f;
  const std::vector<GroupedGemm> one{{300, 4096, 2048}}, four(4, one[0]), counted{{300, 4096, 2048, 4}};
  EXPECT_DOUBLE_EQ(grouped_gemm_time(f, kRound, one).total_us, gemm_time(f, kRound, 300, 4096, 2048).total_us);
  EXPECT_NEAR(grouped_gemm_time(f, kRound, four).total_us, grouped_gemm_time(f, kRound, counted).total_us, 1e-9);
  // 64 of 16 rows x 64 columns: a tile each, 64 of 100 SMs. Alone each would take as long as one tile a SM.
  const std::vector<GroupedGemm> small{{16, 64, 4096, 64}};
  EXPECT_DOUBLE_EQ(grouped_gemm_time(kPlain, kRound, small).compute_us,
                   gemm_time(kPlain, kRound, 16, 64, 4096).compute_us);
  // Large members lose nothing by being apart: 8 x 4,096 rows against 32,768.
  const std::vector<GroupedGemm> large{{4096, 4096, 7168, 8}};
  EXPECT_NEAR(grouped_gemm_time(f, kRound, large).total_us / gemm_time(f, kRound, 32768, 4096, 7168).total_us, 1, 0.01);
  EXPECT_EQ(grouped_gemm_time(f, kRound, {}).total_us, 0);
}

// 8 experts of 4,096 rows, gated, hidden 4,096, ffn 14,336: 2 x 32,768 x 3 x 4,096 x 14,336 = 1.1545e13 flop,
// 11,545 us at peak. Grouped GEMMs 0.80 of peak with the round calibration's droop, the fused kernel's default 0.69.
TEST(ComputeModel, ExpertsAreGroupedGemms_OrOneFusedKernel) {
  const std::vector<Calibration> known{round_calibration()};
  const ComputeModel model(round_gpu(), DType::bf16, known);
  const std::vector<double> rows(8, 4096);
  const Estimate grouped = model.expert_ffn(rows, 4096, 14336, 3, FfnKernel::grouped_gemm);
  const Estimate fused = model.expert_ffn(rows, 4096, 14336, 3, FfnKernel::fused);
  EXPECT_NE(grouped.source.find("grouped GEMMs"), std::string::npos);
  EXPECT_NE(fused.source.find("Triton"), std::string::npos);
  EXPECT_GT(grouped.time_us, 11545 / 0.8);
  EXPECT_LT(grouped.time_us, fused.time_us);
  // One pass of wgrad adds to fp32 gradients, 8 bytes a weight: 8 x 3 x 4,096 x 14,336 x 8 bytes at 2e6 x 0.9 a us are
  // 6,264 us, which few rows do not hide.
  const std::vector<double> few(8, 1);
  EXPECT_NEAR(model.expert_ffn(few, 4096, 14336, 3, FfnKernel::grouped_gemm, FfnPass::wgrad).time_us, 6264, 70);
  // Means below a row read so many weights less.
  const std::vector<double> less(8, 0.25);
  EXPECT_LT(model.expert_ffn(less, 4096, 14336, 3, FfnKernel::grouped_gemm).time_us,
            0.3 * model.expert_ffn(few, 4096, 14336, 3, FfnKernel::grouped_gemm).time_us);
}

TEST(ComputeModel, EveryEstimateIsInOrder) {
  const std::vector<Calibration> known{round_calibration()};
  std::mt19937 random(5);
  std::uniform_real_distribution<double> exponent(0, 14);
  const auto draw = [&] { return std::floor(std::exp2(exponent(random))); };
  for (const auto& model : {ComputeModel(round_gpu(), DType::bf16, known), ComputeModel(round_gpu(), DType::f32, {})})
    for (int i = 0; i < 200; ++i) {
      const std::vector<double> rows{draw(), draw(), draw()};
      for (const Estimate& e : {model.gemm(draw(), draw(), draw()),
                                model.expert_ffn(rows, draw(), draw(), 3, FfnKernel::grouped_gemm, FfnPass::wgrad),
                                model.memory_bound(1e6 * draw()), model.copy(draw()),
                                model.attention({1, draw(), 16384, 8, 8, 64, true, i % 2 == 0})}) {
        EXPECT_LE(0, e.bound_us);
        EXPECT_LE(e.bound_us, e.low_us);
        EXPECT_LE(e.low_us, e.time_us);
        EXPECT_LE(e.time_us, e.high_us);
        EXPECT_FALSE(e.source.empty());
        EXPECT_FALSE(e.bottleneck.empty());
      }
    }
}

TEST(ComputeModel, NothingToDoTakesNoTime) {
  const ComputeModel model(round_gpu(), DType::bf16, {});
  EXPECT_EQ(model.gemm(0, 64, 64).time_us, 0);
  EXPECT_EQ(model.expert_ffn(std::vector<double>{0, 0}, 64, 64, 3, FfnKernel::fused).time_us, 0);
  EXPECT_EQ(model.memory_bound(0).time_us, 0);
  EXPECT_EQ(model.attention({}).time_us, 0);
}

// Two experts share the rows: knots at 64 and 1024 rows each.
Calibration expert_calibration() {
  Calibration c;
  c.name = "here", c.source = "made up", c.machine.gpu = round_gpu();
  c.curves.push_back({.operation = "expert_forward",
                      .size_unit = "rows",
                      .parameters = {{"hidden", 1024}, {"ffn", 512}, {"experts", 2}},
                      .knots = {{128, 500}, {2048, 4000}},
                      .spread = 0.2});
  return c;
}
Estimate forward(const ComputeModel& m, std::vector<double> rows, double hidden = 1024,
                 FfnPass pass = FfnPass::forward) {
  return m.expert_ffn(rows, hidden, 512, 3, FfnKernel::grouped_gemm, pass);
}

TEST(ExpertCurve, AtItsKnots_IsTheTime) {
  const std::vector<Calibration> all{expert_calibration()};
  const ComputeModel m(round_gpu(), DType::bf16, all);
  EXPECT_TRUE(m.experts_measured());
  EXPECT_NEAR(forward(m, {64, 64}).time_us, 500, 1e-6);
  EXPECT_NEAR(forward(m, {1024, 1024}).time_us, 4000, 1e-6);
  EXPECT_NE(forward(m, {64, 64}).source.find("measured: here, expert_forward"), std::string::npos);
  EXPECT_NEAR(forward(m, {64, 64}).high_us, 600, 1e-6);  // the curve's own spread
  const double between = forward(m, {256, 256}).time_us;
  EXPECT_GT(between, 500);
  EXPECT_LT(between, 4000);
  // The fused kernel of serving stacks is not what was measured, but nearer to it than another GPU's.
  EXPECT_NEAR(m.expert_ffn(std::vector<double>{64, 64}, 1024, 512, 3, FfnKernel::fused).time_us, 500, 1e-6);
}

// As far above the model as the nearest shape is, at as many rows; beyond the last knot as there.
TEST(ExpertCurve, OfAnotherShape_IsScaled) {
  const std::vector<Calibration> all{expert_calibration()};
  const ComputeModel m(round_gpu(), DType::bf16, all), plain(round_gpu(), DType::bf16, {});
  const double over = 4000 / forward(plain, {1024, 1024}).time_us;
  EXPECT_NEAR(forward(m, {1024, 1024}, 2048).time_us, over * forward(plain, {1024, 1024}, 2048).time_us, 1e-6);
  EXPECT_NEAR(forward(m, {4096, 4096}).time_us, over * forward(plain, {4096, 4096}).time_us, 1e-6);
  EXPECT_NE(forward(m, {1024}, 2048).source.find("scaled from measured: here"), std::string::npos);
}

TEST(ExpertCurve, OfAnotherPassDTypeOrDevice_IsNotTaken) {
  std::vector<Calibration> all{expert_calibration()};
  const ComputeModel m(round_gpu(), DType::bf16, all), plain(round_gpu(), DType::bf16, {});
  EXPECT_EQ(forward(m, {64, 64}, 1024, FfnPass::wgrad).time_us, forward(plain, {64, 64}, 1024, FfnPass::wgrad).time_us);
  EXPECT_FALSE(ComputeModel(round_gpu(), DType::f32, all).experts_measured());
  EXPECT_FALSE(m.with_weight_bytes(1).experts_measured());
  all[0].machine.gpu.name = "other";
  EXPECT_FALSE(ComputeModel(round_gpu(), DType::bf16, all).experts_measured());
}

}  // namespace
}  // namespace topomoe
