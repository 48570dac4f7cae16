// Platform files as SimGrid itself reads them: the least rate on the way between two of its hosts.
//
// In a forked child, as in simgrid_platform.hpp, and for the same reason.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace topomoe::test {

struct SimgridWay {
  double GBps = 0;
  double latency_us = 0;
};

// One for each pair of host names. Throws std::runtime_error where SimGrid fails.
std::vector<SimgridWay> simgrid_ways(const std::string& platform_file,
                                     const std::vector<std::pair<std::string, std::string>>& pairs);

}  // namespace topomoe::test
