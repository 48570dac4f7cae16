// bench: what scripts read from it, and what it refuses.

#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using nlohmann::ordered_json;

struct BenchCommand : Command {
  ordered_json rows_of(const std::string& arguments) {
    const Said said = topomoe("bench " + arguments + " --format json --repeat 2");
    EXPECT_EQ(said.code, 0) << said.err << said.out;
    return said.code == 0 ? ordered_json::parse(said.out) : ordered_json();
  }
  ordered_json bench(const std::string& arguments) { return rows_of("alltoall --bytes 64K " + arguments); }
  ordered_json layer(const std::string& arguments) { return rows_of("moe-layer " + arguments); }
  static std::string keys_of(const ordered_json& row) {
    std::string keys;
    for (const auto& [key, value] : row.items()) keys += key + " ";
    return keys;
  }
};

TEST_F(BenchCommand, Json_HasTheKeysInOrder) {
  const ordered_json rows = bench("--tp 2 --ep 2 --per-host 2 --split replicated,sliced --chunks 1,4");
  ASSERT_EQ(rows.size(), 4U);
  for (const ordered_json& row : rows) {
    EXPECT_EQ(keys_of(row),
              "algorithm chunks ranks hosts bytes_per_rank time_us_median time_us_min time_us_max inter_bytes "
              "intra_bytes bound_us predicted_us picked inter_messages ");
    EXPECT_EQ(row.at("ranks"), 4);
    EXPECT_EQ(row.at("hosts"), 2);
    EXPECT_EQ(row.at("bytes_per_rank"), 65536);
    EXPECT_TRUE(row.at("bound_us").is_null());
    EXPECT_TRUE(row.at("predicted_us").is_null());
    EXPECT_TRUE(row.at("picked").is_null());
    EXPECT_LE(row.at("time_us_min"), row.at("time_us_median"));
    EXPECT_LE(row.at("time_us_median"), row.at("time_us_max"));
  }
  EXPECT_EQ(rows[0].at("algorithm"), "replicated flat");
  EXPECT_EQ(rows[3].at("algorithm"), "sliced flat");
  EXPECT_EQ(rows[3].at("chunks"), 4);
  // TP 2: each of two ranks injects half of what both hold.
  EXPECT_EQ(rows[0].at("inter_bytes").get<double>(), 2 * rows[2].at("inter_bytes").get<double>());
}

TEST_F(BenchCommand, Layer_HasARowAPass) {
  const ordered_json rows =
      layer("--bytes 64K --tp 2 --ep 2 --per-host 2 --split replicated,sliced --rate-GBps 1 --dtype bf16");
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(keys_of(rows[0]),
            "algorithm chunks ranks hosts bytes_per_rank time_us_median time_us_min time_us_max inter_bytes "
            "intra_bytes bound_us predicted_us picked inter_messages pass ");
  for (const int i : {0, 1, 2, 3}) {
    const ordered_json& row = rows[static_cast<std::size_t>(i)];
    EXPECT_EQ(row.at("algorithm"), i < 2 ? "replicated flat" : "sliced flat");
    EXPECT_EQ(row.at("pass"), i % 2 == 0 ? "forward" : "backward");
    EXPECT_GT(row.at("bound_us"), 0);
    EXPECT_TRUE(row.at("predicted_us").is_null());
  }
  EXPECT_EQ(rows[0].at("inter_bytes").get<double>(), 2 * rows[2].at("inter_bytes").get<double>());
  const Said text = topomoe("bench moe-layer --bytes 64K --ep 2 --forward-only --repeat 1");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find(" forward "), std::string::npos) << text.out;
  EXPECT_EQ(text.out.find(" backward "), std::string::npos) << text.out;
}

// The plan's own schedule, and one beside it; both passes of either are predicted, and one of the two is picked.
TEST_F(BenchCommand, Plan_IsBenchedAsItIs) {
  plan_small("plan.json", "--routing zipf:1.0 --fix tp=8,ep=2,etp=8 --transport flat --chunks 2");
  const std::string plan = "--plan plan.json --shrink hidden=32,ffn=32,tokens=64 ";
  ASSERT_EQ(layer(plan).size(), 2U);
  const ordered_json rows = layer(plan + "--variants sliced:flat:3 --cluster $clusters/quickstart-2xh100.json");
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0].at("ranks"), 16);
  EXPECT_EQ(rows[2].at("algorithm"), "sliced flat");
  EXPECT_EQ(rows[2].at("chunks"), 3);
  EXPECT_EQ(rows[0].at("picked"), rows[1].at("picked"));
  EXPECT_NE(rows[0].at("picked"), rows[2].at("picked"));
  for (const ordered_json& row : rows) EXPECT_GT(row.at("predicted_us"), 0);
}

TEST_F(BenchCommand, Variants_AreTakenAsGiven) {
  const ordered_json rows = bench("--ep 4 --per-host 2 --variants sliced:two_level:2,sliced:flat:1 --rate-GBps 1");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].at("algorithm"), "sliced two_level");
  EXPECT_EQ(rows[0].at("chunks"), 2);
  EXPECT_EQ(rows[1].at("algorithm"), "sliced flat");
  EXPECT_GT(rows[1].at("bound_us"), 0);
}

// What is not asked for is the plan's; the plan's own schedule is there once.
TEST_F(BenchCommand, PlanWithOptions_StandsBesideWhatTheyAskFor) {
  plan_small("plan.json", "--fix tp=8,ep=2,etp=8 --transport flat --split sliced --chunks 2 --sequence-parallel off");
  const auto algorithms = [&](const std::string& arguments) {
    std::string all;
    for (const ordered_json& row :
         layer("--plan plan.json --forward-only --shrink hidden=32,ffn=32,tokens=64 " + arguments))
      all += row.at("algorithm").get<std::string>() + " " + std::to_string(row.at("chunks").get<int>()) + "; ";
    return all;
  };
  EXPECT_EQ(algorithms("--chunks 1,2"), "sliced flat 2; sliced flat 1; ");
  EXPECT_EQ(algorithms("--split replicated"), "sliced flat 2; replicated flat 2; ");
  EXPECT_EQ(algorithms("--variants auto --split sliced --transport flat --chunks 2,4"),
            "sliced flat 2; sliced flat 4; ");
  EXPECT_EQ(algorithms("--variants sliced:flat:2,sliced:flat:1"), "sliced flat 2; sliced flat 1; ");
}

TEST_F(BenchCommand, Variants_AreOfWhatIsAskedFor) {
  for (const ordered_json& row : bench("--tp 2 --ep 2 --per-host 2 --variants auto --chunks 3"))
    EXPECT_EQ(row.at("chunks"), 3);
  for (const ordered_json& row : bench("--tp 2 --ep 2 --per-host 2 --variants all --chunks 1 --split replicated"))
    EXPECT_EQ(row.at("algorithm").get<std::string>().substr(0, 10), "replicated");
}

TEST_F(BenchCommand, SameSeed_DrawsTheSameBytes) {
  const auto bytes = [&](const std::string& seed) {
    return bench("--ep 4 --per-host 2 --skew 1.2 " + seed)[0]["inter_bytes"];
  };
  EXPECT_EQ(bytes("--seed 7"), bytes("--seed 7"));
  EXPECT_NE(bytes("--seed 7"), bytes("--seed 8"));
}

// A machine of 16 GPUs is no 16 threads: what is predicted is not judged here, only that it is there.
TEST_F(BenchCommand, Cluster_PredictsAndPicksOne) {
  const ordered_json rows =
      bench("--tp 8 --ep 2 --per-host 8 --variants auto --chunks 1,2 --cluster $clusters/h100-2x8.json");
  ASSERT_FALSE(rows.empty());
  int picked = 0;
  double least = 1e99, pick = 0;
  for (const ordered_json& row : rows) {
    least = std::min(least, row.at("predicted_us").get<double>());
    if (row.at("picked").get<bool>()) ++picked, pick = row.at("predicted_us");
  }
  EXPECT_EQ(picked, 1);
  EXPECT_GT(least, 0);
  EXPECT_LE(pick, 1.01 * least);
}

TEST_F(BenchCommand, Text_HasARowAVariant) {
  const Said said = topomoe("bench alltoall --ep 2 --bytes 64K --chunks 1,2");
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(std::count(said.out.begin(), said.out.end(), '\n'), 5) << said.out;
}

#ifdef TOPOMOE_MPIEXEC
TEST_F(BenchCommand, Layer_OverProcesses_MovesTheSameBytes) {
  const std::string arguments =
      "bench moe-layer --tp 2 --ep 2 --per-host 2 --bytes 64K --chunks 1,2 --repeat 2 --format json";
  const Said said = mpirun(4, arguments + " --backend mpi");
  ASSERT_EQ(said.code, 0) << said.err;
  const ordered_json rows = ordered_json::parse(said.out), threads = ordered_json::parse(topomoe(arguments).out);
  ASSERT_EQ(rows.size(), 4U);
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (const char* key : {"algorithm", "chunks", "pass", "inter_bytes", "intra_bytes", "inter_messages"})
      EXPECT_EQ(rows[i].at(key), threads[i].at(key)) << key;
}
#endif

TEST_F(BenchCommand, BadInput_IsNamed) {
  const auto all_refused = [&](const std::string& arguments, const std::vector<std::string>& words) {
    const Said said = topomoe("bench " + arguments);
    EXPECT_EQ(said.code, 2) << arguments << said.out;
    expect_one_line(said.err, words);
  };
  const auto refused = [&](const std::string& arguments, const std::vector<std::string>& words) {
    all_refused("alltoall " + arguments, words);
  };
  all_refused("moe-layer --tp 2 --ffn 3", {"--ffn", "ETP = 2"});
  all_refused("moe-layer --ep 2 --token-bytes 16", {"hidden", "experts, 8"});
  all_refused("moe-layer --plan plan.json --tp 2", {"--plan", "--tp"});
  all_refused("moe-layer --kind 1", {"--kind", "--plan"});
  refused("--ep 2 --variants sliced:flat", {"--variants", "sliced:flat:4"});
  refused("--ep 2 --variants sliced:flat:0", {"--variants"});
  refused("--ep 2 --variants sliced:nonsense:1", {"nonsense", "flat"});
  refused("--ep 4 --transport two_level", {"--transport", "--per-host"});
  refused("--tp 8 --ep 2 --bytes 16 --token-bytes 16", {"--bytes"});
  refused("--ep 2 --token-bytes 6", {"--token-bytes"});
  refused("--ep 2 --top-k 9", {"--top-k", "8 experts"});
  refused("--ep 1", {"schedule"});
  refused("--ranks 65 --ep 65", {"--ranks", "mpi"});
  refused("--ep 2 --cluster $clusters/h100-2x8.json", {"cluster", "16 ranks", "2"});
  refused("--tp 8 --ep 2 --cluster $clusters/h100-2x8.json",
          {"--cluster", "8 on a node", "16 on a host", "--per-host 8"});
  refused("--ep 2 --variants sliced:flat:4 --chunks 2", {"--chunks", "2", "--variants"});
  refused("--ep 2 --variants sliced:flat:4 --split sliced", {"--split", "--variants"});
  refused("--ep 2 --variants auto --transport nonsense", {"nonsense", "flat"});
  refused("--tp 2 --ep 2 --variants auto --transport two_level", {"--variants", "auto", "--transport"});
  refused("--ep 2 --host x", {"--host", "x", "one process"});
  all_refused("moe-layer --ep 2 --remap", {"--remap", "--plan"});
}

}  // namespace
}  // namespace topomoe::testing
