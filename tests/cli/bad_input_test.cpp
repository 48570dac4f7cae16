// What cannot be used is refused by name: exit 1 (no answer) or 2 (bad input), one line with field, value and way out,
// and no output file, not even a part of one.

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

const std::string kPlan =
    "plan -o plan.json --model $models/mixtral-8x7b.json --cluster $clusters/quickstart-2xh100.json ";

struct BadInput : Command {
  void refused(const std::string& arguments, int code, const std::vector<std::string>& words) {
    const auto before = files();
    const Said said = topomoe(arguments);
    EXPECT_EQ(said.code, code) << said.err;
    EXPECT_EQ(said.out, "");
    expect_one_line(said.err, words);
    EXPECT_EQ(files(), before) << "something was left behind";
  }
};

TEST_F(BadInput, TruncatedXml_IsNamedWithItsFile) {
  const std::string whole = shell("cat $clusters/h100-host.nccl.xml").out;
  ASSERT_GT(whole.size(), 1000U);
  write("cut.xml", whole.substr(0, whole.size() / 2));
  refused("topo show cut.xml --svg out.svg", 2, {"cut.xml"});
  refused("plan -o plan.json --model $models/mixtral-8x7b.json --cluster cut.xml", 2, {"cut.xml"});
}

TEST_F(BadInput, ModelWithoutExperts_IsNamed) {
  write("dense.json", R"({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32})");
  refused("plan -o plan.json --model dense.json --cluster $clusters/quickstart-2xh100.json", 2,
          {"dense.json", "llama"});
  write("none.json",
        R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": false, "num_experts_per_tok": 2})");
  refused("plan -o plan.json --model none.json --cluster $clusters/quickstart-2xh100.json", 2,
          {"none.json", "num_local_experts"});
}

// 8 experts, EP=3
TEST_F(BadInput, EpThatDoesNotDivideTheExperts_NamesBoth) { refused(kPlan + "--fix ep=3", 1, {"ep", "3", "8"}); }

TEST_F(BadInput, WorldThatNoLayoutFits_IsInfeasible) { refused(kPlan + "--fix tp=8,ep=8,pp=8", 1, {"infeasible"}); }

TEST_F(BadInput, MemoryThatCannotFit_NamesTheLimitAndTheNearestFix) {
  refused(kPlan + "--memory-GiB 2", 1, {"infeasible", "memory", "GiB"});
}

TEST_F(BadInput, PlanForAnotherRankCount_NamesBoth) {
#ifdef TOPOMOE_MPIEXEC
  plan_small();
  refused("run plan.json --backend mpi --trace trace.json", 2, {"ranks", "1", "16", "mpirun --oversubscribe -n 16"});
#else
  GTEST_SKIP() << "built without MPI";
#endif
}

TEST_F(BadInput, WrongFingerprint_NamesBoth) {
  plan_small();
  refused("run plan.json --cluster $clusters/dgx-a100.json --trace trace.json", 1,
          {"fingerprint", "dgx-a100.json", "plan again"});
}

TEST_F(BadInput, TooManyRanksForThreads_NamesTheWayOut) {
  const Said said = topomoe("plan -o big.json --model $models/mixtral-8x7b.json --cluster $clusters/h100-16x8.json");
  ASSERT_EQ(said.code, 0) << said.err;
  refused("run big.json", 2, {"ranks", "128", "64"});
}

TEST_F(BadInput, TruncatedPlan_IsNamedWithItsFile) {
  plan_small();
  const std::string whole = read("plan.json");
  write("cut.json", whole.substr(0, whole.size() / 2));
  refused("explain cut.json", 2, {"cut.json"});
  refused("run cut.json", 2, {"cut.json"});
}

TEST_F(BadInput, CommandLine_IsExitCodeTwo) {
  refused("", 2, {"command"});
  refused("plan --cluster $clusters/quickstart-2xh100.json", 2, {"--model"});
  refused("plan --nonsense", 2, {"command line"});
  refused(kPlan + "--phase training", 2, {"--phase", "training", "train"});
  refused(kPlan + "--routing zipf:x", 2, {"--routing", "zipf:x"});
  refused(kPlan + "--format yaml", 2, {"format"});
  refused("topo show", 2, {"no file", "--live"});
  refused("topo show nowhere.json", 2, {"nowhere.json"});
  refused("run nowhere.json --backend smoke-signals", 2, {"backend"});
}

// 0 is not "any", and 10^12 GPUs is no number that "could not be converted".
TEST_F(BadInput, NumbersOutOfRange_NameTheRange) {
  for (const char* number : {"0", "-8", "1000000000000", "1e3", "8.5", "x", "\"\""}) {
    refused(kPlan + "--gpus " + number, 2, {"--gpus", "a whole number from 1 to 10000000"});
    refused(kPlan + "--sequence " + number, 2, {"--sequence", "a whole number from 1 to"});
  }
  refused(kPlan + "--global-batch 0", 2, {"--global-batch", "0"});
  refused(kPlan + "--chunks 65", 2, {"--chunks", "65", "64"});
  for (const char* GiB : {"0", "-1", "nan", "inf", "x"})
    refused(kPlan + "--memory-GiB " + GiB, 2, {"--memory-GiB", GiB});
  refused("estimate alltoall --cluster $clusters/dgx-h100.json --bytes 1M --gpus 0", 2, {"--gpus", "0"});
  refused("explain", 2, {"plan", "missing", "--glossary"});
}

TEST_F(BadInput, OutputThatCannotBeWritten_IsNamed) {
  refused("plan -o nowhere/plan.json --model $models/mixtral-8x7b.json --cluster $clusters/quickstart-2xh100.json", 2,
          {"-o", "nowhere/plan.json"});
  refused("topo show $clusters/quickstart-2xh100.json --svg .", 2, {"--svg"});
}

// By whatever name: what is read stays as it is, and nothing is begun.
TEST_F(BadInput, OutputThatIsAnInput_IsRefusedAndLeftAlone) {
  ASSERT_EQ(shell("cp $clusters/quickstart-2xh100.json here.json && cp $models/mixtral-8x7b.json model.json && "
                  "ln -s here.json link.json && mkdir folder && printf '1 2 3 4 5 6 7 8' > counts.txt")
                .code,
            0);
  plan_small();
  const std::string cluster = read("here.json"), model = read("model.json"), plan = read("plan.json");
  const std::string ask = "--cluster here.json --model model.json ";
  refused("plan " + ask + "-o here.json", 2, {"-o", "here.json", "--cluster reads"});
  refused("plan " + ask + "-o folder/../here.json", 2, {"-o", "--cluster reads"});
  refused("plan " + ask + "-o link.json", 2, {"-o", "link.json", "--cluster reads"});
  refused("plan " + ask + "-o ./model.json", 2, {"-o", "--model reads"});
  refused("plan " + ask + "--routing counts.txt -o counts.txt", 2, {"-o", "--routing reads"});
  refused("whatif " + ask + "--html here.json", 2, {"--html", "--cluster reads"});
  refused("whatif " + ask + "--set routing=uniform,counts.txt -o counts.txt", 2, {"-o", "--set routing reads"});
  refused("topo show here.json --svg ./here.json", 2, {"--svg", "here.json"});
  refused("topo show here.json --svg a.svg --dot folder/../a.svg", 2, {"--dot", "--svg writes"});
  refused("emit rankfile plan.json -o plan.json", 2, {"-o", "plan.json"});
  refused("run plan.json --trace plan.json", 2, {"--trace", "plan.json"});
  refused("run plan.json --cluster here.json --profile-out here.json", 2, {"--profile-out", "--cluster reads"});
  refused("profile --cluster here.json -o here.json", 2, {"-o", "--cluster reads"});
  refused("calibrate --from here.json -o here.json", 2, {"-o", "--from reads"});
  EXPECT_EQ(read("here.json"), cluster);
  EXPECT_EQ(read("model.json"), model);
  EXPECT_EQ(read("plan.json"), plan);
}

// Before half a minute of measuring, not after it.
TEST_F(BadInput, OutputInNoFolder_IsNamedBeforeTheWork) {
  write_cluster("cluster.json");
  refused("profile --cluster cluster.json --seconds 86400 -o nowhere/c.json", 2, {"-o", "nowhere/c.json", "no folder"});
}

TEST_F(BadInput, SizesThatCannotRun_NameTheField) {
  plan_small();
  refused("run plan.json --shrink hidden=0", 2, {"--shrink"});
  refused("run plan.json --shrink width=3", 2, {"--shrink", "tokens=N"});
  refused("run plan.json --repeat 0", 2, {"--repeat"});
}

TEST_F(BadInput, DispatchDType_NamesWhatIsKnown) {
  refused("plan --model $models/mixtral-8x7b.json --cluster $clusters/quickstart-2xh100.json --dispatch-dtype fp4", 2,
          {"--dispatch-dtype", "fp4", "as_job, fp8"});
}

}  // namespace
}  // namespace topomoe::testing
