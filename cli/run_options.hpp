// What `topomoe run` is asked.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace topomoe::cli {

struct RunOptions {
  std::string plan, backend = "inproc", cluster, shrink = "auto", trace, profile;
  std::vector<std::string> calibrations;
  std::string host;  // what this rank's machine is called
  bool verify = false, remap = false;
  int repeat = 0, deadline_s = 0, kind = 0;  // 0: not given
  int threads = 1;                           // of each rank's kernels on CPUs; 0: all CPUs that it may run on
  std::uint64_t seed = 1;

  std::optional<std::chrono::seconds> deadline() const {
    return deadline_s > 0 ? std::optional(std::chrono::seconds(deadline_s)) : std::nullopt;
  }
};

}  // namespace topomoe::cli
