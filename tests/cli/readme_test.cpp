// The README's commands are run, so that they cannot rot: every line in a ```sh block that starts with
// `build/release/topomoe`, in order, in one folder. The two set-up commands are what brought us here.

#include <fstream>
#include <sstream>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

std::vector<std::string> commands_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> commands;
  std::string line;
  bool inside = false;
  while (std::getline(file, line)) {
    if (line.starts_with("```")) inside = line == "```sh";
    const auto at = line.find("build/release/topomoe");
    if (inside && !line.starts_with("#") && at != std::string::npos) commands.push_back(line);
  }
  return commands;
}

struct ReadmeCommands : Command {
  void each_works(const std::string& path) {
    const auto commands = commands_of(TOPOMOE_SOURCE_DIR "/" + path);
    ASSERT_FALSE(commands.empty());
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sizes for people, too slow under sanitizers; run_command_test.cpp runs small ones";
#endif
    ASSERT_EQ(shell("ln -s '" TOPOMOE_SOURCE_DIR "/configs' configs && mkdir -p build/release && ln -s '" TOPOMOE_BINARY
                    "' build/release/topomoe")
                  .code,
              0);
    for (const std::string& command : commands) {
#ifndef TOPOMOE_MPIEXEC
      if (command.starts_with("mpirun")) continue;
#endif
      const Said said = shell(
          "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
          "OMPI_MCA_mpi_yield_when_idle=1; " +
          command);
      EXPECT_EQ(said.code, 0) << command << "\n" << said.err;
    }
  }
};

TEST_F(ReadmeCommands, OfTheReadme_Work) { each_works("README.md"); }
TEST_F(ReadmeCommands, OfTheCliFolder_Work) { each_works("cli/README.md"); }

}  // namespace
}  // namespace topomoe::testing
