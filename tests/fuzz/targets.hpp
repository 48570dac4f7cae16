// What is fuzzed: every format that topomoe reads.
//
// Those of the table of formats (topology/read/formats.cpp) are found there: a new reader is fuzzed without any edit.
// Readers of anything else have a line in targets.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace topomoe::fuzz {

struct Target {
  std::string name;                // as the table calls it, "any" for the recognition of formats
  void (*other)(std::string_view)  // of readers that make no topology; null: read_topology as that format
      = nullptr;
  std::vector<std::string> seeds{};  // where no file of the test data is one
};

std::vector<Target> targets();

// One input: read, and all that is done with what was read. Throws nothing where all is well; InvalidInput is well.
// std::logic_error names the promise that was broken.
void run(const Target&, std::string_view text);

}  // namespace topomoe::fuzz
