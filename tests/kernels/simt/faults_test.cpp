// That the harness finds what it is for: each fault of faults.cu is reported, by its kind and at its line, and its
// twin without the fault passes in silence. Programs of their own: a sanitizer's report ends them.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <ostream>
#include <string>

namespace topomoe::test {
namespace {

struct Report {
  int status;
  std::string text;
};

Report run(const std::string& program, const std::string& name) {
  const std::string command = program + " " + name + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  Report report{-1, ""};
  if (pipe == nullptr) return report;
  std::array<char, 4096> piece;
  for (std::size_t n; (n = fread(piece.data(), 1, piece.size(), pipe)) > 0;) report.text.append(piece.data(), n);
  const int status = pclose(pipe);
  report.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return report;
}

// "faults.cu:12" for the line that ends with the comment `// fault: words`.
std::string line_of(const std::string& words) {
  std::ifstream source(TOPOMOE_SOURCE_DIR "/tests/kernels/simt/faults.cu");
  std::string line;
  for (int number = 1; std::getline(source, line); ++number)
    if (line.find("// fault: " + words) != std::string::npos) return "faults.cu:" + std::to_string(number);
  ADD_FAILURE() << "no line of faults.cu has the fault " << words;
  return "";
}

struct Fault {
  const char *name, *twin, *kind, *line;
  friend void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }
};

void expect_found(const char* program, const Fault& fault) {
  if (*program == 0) GTEST_SKIP() << "this build carries another sanitizer";
  const Report report = run(program, fault.name);
  EXPECT_NE(report.status, 0) << fault.name;
  EXPECT_NE(report.text.find(fault.kind), std::string::npos) << report.text;
  EXPECT_NE(report.text.find(line_of(fault.line)), std::string::npos) << report.text;
  const Report twin = run(program, fault.twin);
  EXPECT_EQ(twin.status, 0) << fault.twin;
  EXPECT_EQ(twin.text, "");
}

class Races : public ::testing::TestWithParam<Fault> {};
TEST_P(Races, AreReportedAtTheirLine) { expect_found(TOPOMOE_SIMT_FAULTS_THREAD, GetParam()); }
INSTANTIATE_TEST_SUITE_P(Simt, Races,
                         ::testing::Values(Fault{"no_barrier_before", "reverse", "data race", "no barrier before"},
                                           Fault{"no_barrier_after", "reverse_twice", "data race", "no barrier after"},
                                           Fault{"no_syncwarp", "broadcast", "data race", "no __syncwarp before"},
                                           Fault{"one_word", "word_a_block", "data race", "one word for all blocks"},
                                           Fault{"count_plainly", "count", "data race", "not atomic"}),
                         [](const auto& test) { return std::string(test.param.name); });

class Addresses : public ::testing::TestWithParam<Fault> {};
TEST_P(Addresses, AreReportedAtTheirLine) { expect_found(TOPOMOE_SIMT_FAULTS_ADDRESS, GetParam()); }
INSTANTIATE_TEST_SUITE_P(
    Simt, Addresses,
    ::testing::Values(Fault{"beyond_end", "shift", "heap-buffer-overflow", "one element beyond the end"},
                      Fault{"beyond_tile", "shared_sum", "global-buffer-overflow", "one element beyond the tile"},
                      Fault{"beyond_dynamic", "dynamic_sum", "use-after-poison", "one element beyond what"},
                      Fault{"misaligned", "copy_vectors", "misaligned address", "16 bytes from 4"}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace topomoe::test
