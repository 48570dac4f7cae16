// emit: what bash, JSON and Open MPI's mpirun make of the files.

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using nlohmann::json;

// 2 hosts of 8.
const char* const kPlan =
    "plan --cluster $clusters/h100-2x8.json --model $models/mixtral-8x7b.json --fix pp=1 --split sliced "
    "--transport flat --recompute full --max zero=1 -o plan.json";  // Megatron-LM has no ZeRO above 1

TEST_F(Command, EmitMegatron_IsAnArrayThatBashReads) {
  ASSERT_EQ(topomoe(kPlan).code, 0);
  const Said said = topomoe("emit megatron plan.json -o megatron.sh");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(said.out, "");
  EXPECT_NE(said.err.find("megatron does not express"), std::string::npos) << "also on stderr";
  const Said read = shell("bash -c '. ./megatron.sh && printf \"%s\\n\" \"${MEGATRON_ARGS[@]}\"'");
  ASSERT_EQ(read.code, 0) << read.err;
  EXPECT_EQ(read.out.rfind("--tensor-model-parallel-size\n", 0), 0u) << read.out;
  EXPECT_NE(read.out.find("\n--num-experts\n8\n"), std::string::npos) << read.out;
}

TEST_F(Command, EmitScripts_AreValidBash) {
  ASSERT_EQ(topomoe(kPlan).code, 0);
  for (const std::string target : {"megatron", "nccl-env", "torchrun", "slurm"}) {
    ASSERT_EQ(topomoe("emit " + target + " plan.json --hosts 'n[1-2]' -o out.sh").code, 0);
    const Said checked = shell("bash -n out.sh");
    EXPECT_EQ(checked.code, 0) << target << checked.err;
  }
}

TEST_F(Command, EmitSlurm_WritesOneHostLineARank) {
  // scontrol and srun stand-ins; the names come in the plan's order, which is not that of the alphabet.
  ASSERT_EQ(topomoe(kPlan).code, 0);
  ASSERT_EQ(topomoe("emit slurm plan.json --hosts 'n9,n1' -o job.sh").code, 0);
  write("scontrol", "#!/bin/bash\n[ \"$1 $2 $3\" = 'show hostnames n[9,1]' ] && printf 'n9\\nn1\\n'\n");
  write("srun", "#!/bin/bash\necho \"$@\"\ncat \"$SLURM_HOSTFILE\"\n");
  const Said said = shell("chmod +x scontrol srun && PATH=$PWD:$PATH SLURM_JOB_ID=7 bash job.sh program");
  ASSERT_EQ(said.code, 0) << said.err;
  std::string expected =
      "--ntasks=16 --distribution=arbitrary bash -c RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID "
      "WORLD_SIZE=$SLURM_NTASKS exec \"$@\" rank program\n";
  for (int rank = 0; rank < 16; ++rank) expected += rank < 8 ? "n9\n" : "n1\n";
  EXPECT_EQ(said.out, expected);
}

TEST_F(Command, EmitDeepspeed_IsJson) {
  ASSERT_EQ(topomoe(std::string(kPlan) + " --fix etp=1,cp=1").code, 0);
  const Said said = topomoe("emit deepspeed plan.json");
  ASSERT_EQ(said.code, 0) << said.err;
  EXPECT_EQ(json::parse(said.out).at("train_batch_size"), 256);
  const Said wrapped = topomoe("emit deepspeed plan.json --format json");
  const json all = json::parse(wrapped.out);
  EXPECT_EQ(all.at("text"), said.out);
  EXPECT_FALSE(all.at("not_expressed").empty());
}

TEST_F(Command, EmitRankfile_IsObeyedByMpirun) {
  if (shell("mpirun --version | grep -q 'Open MPI'").code != 0) GTEST_SKIP() << "no mpirun of Open MPI";
  ASSERT_EQ(topomoe(kPlan).code, 0);
  ASSERT_EQ(topomoe("emit rankfile plan.json --hosts n9,n1 -o ranks").code, 0);
  // Hosts that are this machine under other names: the remote shell runs its command right here, with a folder for
  // temporary files of its own, which two daemons of one machine would else both create.
  write("rsh", "#!/bin/bash\nmkdir -p \"$PWD/$1\"\nexport TMPDIR=\"$PWD/$1\"\nshift\nexec bash -c \"$*\"\n");
  const Said said = shell(
      "chmod +x rsh && OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout 60 mpirun --oversubscribe "
      "--mca plm_rsh_agent $PWD/rsh --display-map --host n1:8,n9:8 --rankfile ranks -n 16 "
      "bash -c 'echo ran $OMPI_COMM_WORLD_RANK'");
  std::map<int, std::string> host_of;
  std::istringstream lines(said.out);
  std::string host;
  for (std::string line; std::getline(lines, line);) {
    const auto node = line.find("Data for node: "), rank = line.find("Process rank: ");
    if (node != std::string::npos) host = line.substr(node + 15, line.find_first_of(" \t", node + 15) - node - 15);
    if (rank != std::string::npos) host_of[std::stoi(line.substr(rank + 14))] = host;
  }
  ASSERT_EQ(host_of.size(), 16u) << said.out << said.err;
  for (const auto& [rank, where] : host_of) EXPECT_EQ(where, rank < 8 ? "n9" : "n1") << rank;
  for (int rank = 0; rank < 16; ++rank)
    EXPECT_NE(said.out.find("ran " + std::to_string(rank) + "\n"), std::string::npos) << rank;
}

TEST_F(Command, Emit_WhatATargetCannotRun_IsOneLineAndExitOne) {
  ASSERT_EQ(topomoe("plan --cluster $clusters/h100-2x8.json --model $models/mixtral-8x7b.json --phase prefill "
                    "-o plan.json")
                .code,
            0);
  const Said said = topomoe("emit megatron plan.json -o out.sh");
  EXPECT_EQ(said.code, 1);
  expect_one_line(said.err, {"megatron cannot run this plan", "prefill"});
  EXPECT_EQ(files(), (std::vector<std::string>{"plan.json"}));
}

TEST_F(Command, Emit_Nonsense_IsUsage) {
  ASSERT_EQ(topomoe(kPlan).code, 0);
  Said said = topomoe("emit rankfile plan.json --hosts 'a;b'");
  EXPECT_EQ(said.code, 2);
  expect_one_line(said.err, {"--hosts", "a;b"});
  said = topomoe("emit slurm plan.json --hosts 'n[1-3]'");
  EXPECT_EQ(said.code, 2);
  expect_one_line(said.err, {"--hosts", "3 names", "2 hosts"});
  said = topomoe("emit rankfile plan.json --cluster $clusters/gb200-nvl72.json");
  EXPECT_EQ(said.code, 2);
  expect_one_line(said.err, {"--cluster", "GPUs on a host", "8 ranks"});
  EXPECT_EQ(topomoe("emit fax plan.json").code, 2);
  EXPECT_EQ(topomoe("emit slurm no.json").code, 2);
}

}  // namespace
}  // namespace topomoe::testing
