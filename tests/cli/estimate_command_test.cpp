// estimate and calibrate as users call them.

#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using Json = nlohmann::ordered_json;

struct Estimates : Command {
  Json estimate(const std::string& arguments) {
    const Said said = topomoe("estimate " + arguments + " --format json");
    EXPECT_EQ(said.code, 0) << arguments << ": " << said.err;
    return said.code == 0 ? Json::parse(said.out) : Json::object();
  }
  void refused(const std::string& arguments, const std::vector<std::string>& words) {
    const Said said = topomoe(arguments);
    EXPECT_EQ(said.code, 2) << arguments << ": " << said.out;
    EXPECT_EQ(said.out, "");
    expect_one_line(said.err, words);
    EXPECT_EQ(files(), std::vector<std::string>{}) << "something was left behind";
  }
};

const std::vector<std::string> kKeys{"time_us", "low_us", "high_us", "bound_us", "source", "bottleneck"};

TEST_F(Estimates, EveryOperation_HasTheSameSixKeysFirst) {
  for (const std::string question :
       {"alltoall --cluster $clusters/dgx-h100.json --bytes 1M",
        "all_gather --cluster $clusters/hgx-h200.json --bytes 64K",
        "reduce_scatter --cluster $clusters/dgx-b200.json --bytes 1e6 --gpus 4",
        "all_reduce --cluster $clusters/gb200-nvl72.json --bytes 1GiB --gpus 16",
        "alltoall --cluster $clusters/l40s-8x-pcie.json --bytes 16M",
        "alltoall --cluster $clusters/h100-16x8.json --bytes 0",
        "gemm --cluster $clusters/dgx-h100.json --m 4096 --n 4096 --k 4096",
        "moe_ffn --cluster $clusters/dgx-h100.json --tokens 512 --hidden 4096 --ffn 1536 --experts 128 --topk 8 --ep 4",
        "dispatch --cluster $clusters/hgx-h200.json --tokens 4096 --sms 24 --gpus 64",
        "combine --cluster $clusters/h100-2x8.json --tokens 128 --low-latency"}) {
    const Json json = estimate(question);
    std::vector<std::string> keys;
    for (const auto& item : json.items()) keys.push_back(item.key());
    ASSERT_GE(keys.size(), kKeys.size()) << question;
    EXPECT_EQ(std::vector<std::string>(keys.begin(), keys.begin() + 6), kKeys) << question;
    EXPECT_LE(json["bound_us"], json["low_us"]) << question;
    EXPECT_LE(json["low_us"], json["time_us"]) << question;
    EXPECT_LE(json["time_us"], json["high_us"]) << question;
    EXPECT_NE(json["source"], "") << question;
  }
}

// H100 x8, 512 MiB: 1,480 us measured; all-gather counts what one rank gives, an eighth of the 1,400 us buffer.
TEST_F(Estimates, Bytes_AreOneRanksSendBuffer) {
  EXPECT_NEAR(estimate("alltoall --cluster $clusters/dgx-h100.json --bytes 512M")["time_us"].get<double>(), 1480, 2);
  EXPECT_NEAR(estimate("all_gather --cluster $clusters/dgx-h100.json --bytes 64M")["time_us"].get<double>(), 1399, 3);
  EXPECT_NEAR(estimate("reduce_scatter --cluster $clusters/dgx-h100.json --bytes 512M")["time_us"].get<double>(), 1400,
              3);
  EXPECT_NEAR(estimate("alltoall --cluster $clusters/dgx-h100.json --bytes 512M --gpus 2")["time_us"].get<double>(),
              965, 3);
}

TEST_F(Estimates, Text_SaysTheSameInWords) {
  const Said said = topomoe("estimate alltoall --cluster $clusters/dgx-h100.json --bytes 1M --measured 16");
  ASSERT_EQ(said.code, 0) << said.err;
  for (const char* word :
       {"8 GPUs on one node", "1048576 bytes", "bound", "bottleneck", "measured: h100-sxm", "normal"})
    EXPECT_NE(said.out.find(word), std::string::npos) << word << "\n" << said.out;
}

TEST_F(Estimates, Measured_IsJudged) {
  const std::string question = "alltoall --cluster $clusters/dgx-h100.json --bytes 512M --measured ";
  EXPECT_EQ(estimate(question + "1500")["verdict"], "normal");
  EXPECT_EQ(estimate(question + "100")["verdict"], "impossible");
  EXPECT_EQ(estimate(question + "1200")["verdict"], "fast");
  const Json slow = estimate(question + "3000");
  EXPECT_EQ(slow["verdict"], "slow");
  EXPECT_NE(slow["advice"].get<std::string>().find("nvidia-smi nvlink"), std::string::npos);
}

TEST_F(Estimates, Calibration_AddsToTheBuiltInOnes_OrReplacesThem) {
  const std::string question = "alltoall --cluster $clusters/dgx-h100.json --bytes 1M --gpus 4 ";
  const Said made =
      topomoe("calibrate --from '" TOPOMOE_SOURCE_DIR
              "/tests/data/measured/nccl_tests_alltoall.txt' --cluster $clusters/dgx-h100.json --name mine -o "
              "mine.json");
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_NE(made.out.find("alltoall, 4 GPUs on 1 node: 5 knots"), std::string::npos) << made.out;
  EXPECT_NEAR(estimate(question + "--calibration mine.json")["time_us"].get<double>(), 15.40, 0.001);
  EXPECT_NE(estimate(question)["source"].get<std::string>().find("h100-sxm"), std::string::npos);
  EXPECT_EQ(estimate(question + "--no-builtin-calibration")["source"].get<std::string>().substr(0, 9), "datasheet");
}

TEST_F(Estimates, Dispatch_SaysOnHowManyNodesATokenLies) {
  const Json limited = estimate("dispatch --cluster $clusters/hgx-h200.json --gpus 64 --tokens 4096 --sms 24");
  EXPECT_NE(limited["question"].get<std::string>().find("at most 4 nodes"), std::string::npos);
  EXPECT_GT(limited["notify_us"], 0);
  const Json free =
      estimate("dispatch --cluster $clusters/hgx-h200.json --gpus 64 --tokens 4096 --sms 24 --nodes-per-token 0");
  EXPECT_GT(free["time_us"].get<double>(), 1.2 * limited["time_us"].get<double>());
}

// 256 experts are no multiple of 72 ranks: 288 are.
TEST_F(Estimates, Dispatch_TakesExpertsThatTheRanksDivide) {
  const Json json = estimate("dispatch --cluster $clusters/gb200-nvl72.json --tokens 128");
  EXPECT_NE(json["question"].get<std::string>().find("top-8 of 288 experts, 20 SMs, 72 GPUs on one node"),
            std::string::npos)
      << json["question"];
}

// Plan and estimate ask one function. 4,096 tokens a GPU, EP 8 of Mixtral-8x7B: each GPU holds one expert whole, and is
// sent 8 x 4,096 x 2 / 8 = 8,192 rows.
TEST_F(Estimates, MoeFfn_IsWhatThePlanSaysOfExperts) {
  for (const std::string phase : {"train", "prefill"}) {
    const Said planned = topomoe("plan --cluster $clusters/dgx-h100.json --model '" TOPOMOE_SOURCE_DIR
                                 "/configs/models/mixtral-8x7b.json' --phase " +
                                 phase +
                                 " --fix tp=1,ep=8,etp=1,pp=1,cp=1 --micro-batch 1 --recompute none --memory-GiB 1000 "
                                 "--split sliced --transport flat --chunks 1 --format json");
    ASSERT_EQ(planned.code, 0) << planned.err;
    double alone_us = 0;
    const Json plan = Json::parse(planned.out);
    for (const auto& step : plan["predicted_forward"]["steps"])
      if (step["name"] == "experts.0") alone_us += step["alone_us"].get<double>();
    const Json json = estimate(
        "moe_ffn --cluster $clusters/dgx-h100.json --tokens 32768 --hidden 4096 --ffn 14336 --experts 8 "
        "--topk 2 --ep 8 --phase " +
        phase);
    EXPECT_NEAR(json["in_step_us"].get<double>() / alone_us, 1, 0.01) << phase;
    EXPECT_EQ(json["kernel"], phase == "train" ? "grouped GEMMs" : "one fused kernel");
    // 2 x 8,192 x 3 x 4,096 x 14,336 flop at 989 TFLOP/s: 2,918 us.
    EXPECT_GT(json["experts_us"].get<double>(), 2918);
  }
}

TEST_F(Estimates, Nonsense_IsRefusedInOneLine) {
  const std::string h100 = " --cluster $clusters/dgx-h100.json ";
  refused("estimate broadcast" + h100 + "--bytes 1", {"operation", "broadcast", "alltoall"});
  refused("estimate alltoall" + h100, {"--bytes", "missing"});
  for (const std::string bytes : {"-1", "nan", "inf", "1e30", "ten", "1KB", "1X"})
    refused("estimate alltoall" + h100 + "--bytes=" + bytes, {"--bytes", bytes});
  refused("estimate alltoall" + h100 + "--bytes 1 --gpus=-8", {"--gpus"});
  refused("estimate alltoall" + h100 + "--bytes 1 --gpus 1000000000000", {"--gpus", "a whole number from 1 to"});
  refused("estimate alltoall" + h100 + "--bytes 1 --measured nan", {"--measured"});
  refused("estimate alltoall" + h100 + "--bytes 1 --measured=-3", {"--measured"});
  refused("estimate alltoall" + h100 + "--bytes 1 --calibration nowhere.json", {"nowhere.json"});
  refused("estimate gemm" + h100 + "--m 1 --n 1 --k 1 --bytes 1M", {"--bytes", "no part of gemm", "alltoall"});
  refused("estimate alltoall" + h100 + "--bytes 1M --ffn 64", {"--ffn", "no part of alltoall", "moe_ffn"});
  refused("estimate alltoall --bytes 1", {"--cluster"});
  refused("estimate gemm" + h100 + "--m 8 --n 8", {"--k"});
  refused("estimate gemm" + h100 + "--m 8 --n 8 --k=-1", {"--k"});
  refused("estimate moe_ffn" + h100 + "--tokens 8 --experts 10 --ep 4", {"--ep", "10"});
  for (const std::string tokens : {"1e11", "0.5", "0", "nan"})
    refused("estimate moe_ffn" + h100 + "--tokens " + tokens, {"--tokens"});
  refused("estimate combine" + h100 + "--tokens 8 --experts=-5", {"experts", "-5"});
  refused("estimate combine" + h100 + "--tokens 8 --experts 256 --gpus 3", {"experts", "3"});
  refused("estimate moe_ffn" + h100 + "--tokens 8 --phase serve", {"--phase", "serve", "decode"});
  refused("estimate dispatch" + h100, {"--tokens"});
  refused("estimate dispatch" + h100 + "--tokens 8 --dtype int4", {"--dtype"});
  refused("estimate dispatch --cluster $clusters/l40s-8x-pcie.json --tokens 8", {"NVLink"});
  refused("estimate alltoall --bytes 1 --cluster '" TOPOMOE_SOURCE_DIR
          "/tests/data/topology/nccl-template-without-gpus.xml'",
          {"nvlink", "unknown"});
  refused("calibrate --from nowhere.csv -o out.json", {"nowhere.csv"});
  refused("calibrate --from '" TOPOMOE_SOURCE_DIR "/tests/data/measured/nccl_tests_alltoall.txt' -o out.json",
          {"--cluster"});
  refused("calibrate --from '" TOPOMOE_SOURCE_DIR "/README.md' -o out.json", {"README.md"});
}

}  // namespace
}  // namespace topomoe::testing
