// Runs `topomoe` as a user does, in a folder of its own, and keeps what it says.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace topomoe::testing {

struct Said {
  int code = -1;
  std::string out, err;
};

class Command : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Arguments as a shell reads them. `$clusters` and `$models` are the folders of configs/.
  Said topomoe(const std::string& arguments) { return shell("\"" TOPOMOE_BINARY "\" " + arguments); }
  Said shell(const std::string& line);
#ifdef TOPOMOE_MPIEXEC
  Said mpirun(int ranks, const std::string& arguments) { return mpirun({{ranks, arguments}}); }
  // So many ranks with these arguments each, in order of ranks.
  Said mpirun(const std::vector<std::pair<int, std::string>>& ranks);
#endif
  std::string read(const std::string& file) const;
  void write(const std::string& file, const std::string& text) const;
  std::vector<std::string> files() const;  // in the folder, sorted

  // Two hosts of two "GPUs", whose NICs have this rate; all rates are far above what threads do, so that no measured
  // time lies below its bound.
  void write_cluster(const std::string& file, const std::string& nic_GBps = "10000");
  // A small plan of Mixtral for one host, as plan.json; `more` are further arguments.
  void plan_small(const std::string& output = "plan.json", const std::string& more = "");

  std::filesystem::path folder_;
};

// One line "topomoe: ..." that holds all of `words`.
void expect_one_line(const std::string& err, const std::vector<std::string>& words);

}  // namespace topomoe::testing
