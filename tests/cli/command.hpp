// Runs `topomoe` as a user does, in a folder of its own, and keeps what it says.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
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
  std::string read(const std::string& file) const;
  void write(const std::string& file, const std::string& text) const;
  std::vector<std::string> files() const;  // in the folder, sorted

  // A small plan of Mixtral for one host, as plan.json; `more` are further arguments.
  void plan_small(const std::string& output = "plan.json", const std::string& more = "");

  std::filesystem::path folder_;
};

// One line "topomoe: ..." that holds all of `words`.
void expect_one_line(const std::string& err, const std::vector<std::string>& words);

}  // namespace topomoe::testing
