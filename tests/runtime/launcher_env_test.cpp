// Who we are, by environment: pure, over maps that stand for one. And the bootstrap that follows from it.

#include "topomoe/launcher_env.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <thread>

#include "topomoe/bootstrap.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Environment = std::map<std::string, std::string>;

LauncherRank read(const Environment& e) {
  return read_launcher_env([&](const std::string& name) -> std::optional<std::string> {
    const auto found = e.find(name);
    return found == e.end() ? std::nullopt : std::optional(found->second);
  });
}

void expect(const Environment& e, int rank, int size, int local_rank, const std::string& source) {
  SCOPED_TRACE(source);
  const LauncherRank r = read(e);
  EXPECT_EQ(r.rank, rank);
  EXPECT_EQ(r.size, size);
  EXPECT_EQ(r.local_rank, local_rank);
  EXPECT_EQ(r.source, source);
}

std::string refused_field(const Environment& e) {
  try {
    read(e);
  } catch (const InvalidInput& error) {
    return error.field;
  }
  return "accepted";
}

const Environment kTorchrun = {{"RANK", "5"}, {"WORLD_SIZE", "8"}, {"LOCAL_RANK", "1"}};
const Environment kOpenMpi = {
    {"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}};
const Environment kSlurm = {
    {"SLURM_PROCID", "6"}, {"SLURM_STEP_NUM_TASKS", "16"}, {"SLURM_NTASKS", "16"}, {"SLURM_LOCALID", "2"}};

Environment both(Environment a, const Environment& b) {
  a.insert(b.begin(), b.end());
  return a;
}

TEST(LauncherEnv, EachLauncher_IsRead) {
  expect({}, 0, 1, 0, "single process");
  expect({{"TOPOMOE_RANK", "1"}, {"TOPOMOE_WORLD_SIZE", "2"}, {"TOPOMOE_LOCAL_RANK", "0"}}, 1, 2, 0, "TOPOMOE_RANK");
  expect(kTorchrun, 5, 8, 1, "torchrun");
  expect(kOpenMpi, 3, 4, 2, "Open MPI");
  expect(kSlurm, 6, 16, 2, "Slurm step");
  expect({{"PMI_RANK", "1"}, {"PMI_SIZE", "3"}, {"MPI_LOCALRANKID", "1"}}, 1, 3, 1, "PMI (Hydra)");
  expect({{"MV2_COMM_WORLD_RANK", "0"}, {"MV2_COMM_WORLD_SIZE", "1"}}, 0, 1, 0, "MVAPICH");
  expect({{"PALS_RANKID", "9"}, {"PALS_LOCAL_RANKID", "3"}, {"PMI_RANK", "9"}, {"PMI_SIZE", "12"}}, 9, 12, 3, "PALS");
}

TEST(LauncherEnv, Nested_InnerOneWins) {
  const Environment ours = {{"TOPOMOE_RANK", "0"}, {"TOPOMOE_WORLD_SIZE", "1"}};
  expect(both(both(ours, kTorchrun), kSlurm), 0, 1, 0, "TOPOMOE_RANK");
  expect(both(both(kTorchrun, kOpenMpi), kSlurm), 5, 8, 1, "torchrun");
  // mpirun's daemon on the second host is task 6 of its own srun step; its children inherit that.
  expect(both(kOpenMpi, kSlurm), 3, 4, 2, "Open MPI");
}

// sbatch's script is one process and not rank 0 of SLURM_NTASKS; RANK without WORLD_SIZE is someone else's.
TEST(LauncherEnv, LooksLikeOne_IsNone) {
  expect({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "16"}, {"SLURM_LOCALID", "0"}}, 0, 1, 0, "single process");
  expect({{"RANK", "colonel"}}, 0, 1, 0, "single process");
  expect({{"TOPOMOE_RANK", ""}}, 0, 1, 0, "single process");
}

TEST(LauncherEnv, LocalRankUntold_IsMinusOne) {
  expect({{"PMI_RANK", "1"}, {"PMI_SIZE", "3"}}, 1, 3, -1, "PMI (Hydra)");
}

TEST(LauncherEnv, BadValues_AreRefusedByName) {
  EXPECT_EQ(refused_field(both({{"RANK", "abc"}}, kTorchrun)), "RANK");
  EXPECT_EQ(refused_field(both({{"RANK", "8"}}, kTorchrun)), "RANK");
  EXPECT_EQ(refused_field(both({{"RANK", "-1"}}, kTorchrun)), "RANK");
  EXPECT_EQ(refused_field(both({{"RANK", "1x"}}, kTorchrun)), "RANK");
  EXPECT_EQ(refused_field(both({{"WORLD_SIZE", "0"}}, kTorchrun)), "WORLD_SIZE");
  EXPECT_EQ(refused_field(both({{"WORLD_SIZE", "99999999999"}}, kTorchrun)), "WORLD_SIZE");
  EXPECT_EQ(refused_field(both({{"LOCAL_RANK", "8"}}, kTorchrun)), "LOCAL_RANK");
  EXPECT_EQ(refused_field({{"TOPOMOE_RANK", "0"}}), "TOPOMOE_WORLD_SIZE");
  EXPECT_EQ(refused_field({{"OMPI_COMM_WORLD_RANK", "0"}}), "OMPI_COMM_WORLD_SIZE");
  EXPECT_EQ(refused_field({{"PMIX_RANK", "0"}}), "PMIX_RANK");
}

TEST(Bootstrap, OverInproc_AllGetRankZeros) {
  run_inproc(3, [](Communicator& c) {
    const Broadcast broadcast = broadcast_over(c);
    for (int turn = 0; turn < 2; ++turn) {
      int value = c.rank() == 0 ? 42 + turn : 0;
      broadcast(&value, sizeof value);
      EXPECT_EQ(value, 42 + turn);
    }
  });
}

class BootstrapFile : public ::testing::Test {
 protected:
  BootstrapFile() { std::filesystem::create_directories(folder_); }
  ~BootstrapFile() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("topomoe_bootstrap_" + std::to_string(::getpid()));
};

TEST_F(BootstrapFile, AllGetRankZeros_InOrderOfCalls) {
  run_inproc(3, [&](Communicator& c) {
    const Broadcast broadcast = broadcast_through_file((folder_ / "id").string(), c.rank());
    if (c.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    for (int turn = 0; turn < 2; ++turn) {
      int value = c.rank() == 0 ? 42 + turn : 0;
      broadcast(&value, sizeof value);
      EXPECT_EQ(value, 42 + turn);
    }
  });
}

TEST_F(BootstrapFile, NobodyWrites_DeadlineNamesTheFile_AndAnOldOneIsRefused) {
  int value = 7;
  EXPECT_THROW(
      broadcast_through_file((folder_ / "none").string(), 1, std::chrono::milliseconds(20))(&value, sizeof value),
      TransportError);
  broadcast_through_file((folder_ / "old").string(), 0)(&value, sizeof value);
  EXPECT_THROW(broadcast_through_file((folder_ / "old").string(), 0)(&value, sizeof value), InvalidInput);
}

}  // namespace
}  // namespace topomoe
