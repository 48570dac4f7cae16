// The set-up scripts as far as they can be tried without setting up: they parse, and refuse what they do not know.

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

struct Scripts : Command {};

TEST_F(Scripts, AllOfThem_Parse) {
  for (const char* script : {"examples/quickstart.sh", "tests/run.sh", ".ci/run", "cmake/install-debian-packages.sh"}) {
    const Said said = shell("bash -n '" TOPOMOE_SOURCE_DIR "/" + std::string(script) + "'");
    EXPECT_EQ(said.code, 0) << script << ": " << said.err;
  }
}

TEST_F(Scripts, RunSh_UnknownFlag_IsRefused) {
  const Said said = shell("bash '" TOPOMOE_SOURCE_DIR "/tests/run.sh' --everything");
  EXPECT_EQ(said.code, 2);
  expect_one_line(said.err, {"--everything", "--all-archs"});
}

}  // namespace
}  // namespace topomoe::testing
