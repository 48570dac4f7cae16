// Numbers as users type them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace topomoe::cli {

// "65536", "64K", "1M", "2GiB", "1e6": K, M, G, T (with or without iB) are powers of 1024, as in nccl-tests. Throws
// InvalidInput{flag, text, ...} unless it is a finite number from 0 to 1e18.
double bytes_from(const std::string& text, const std::string& flag);

// For CLI::Option::check: throws InvalidInput{flag, text, ...} unless the text is a whole number from low to high.
// CLI11 by itself says "could not convert" of 10^12, and takes what the code means by "not given" (0).
CLI::Validator whole_number(const std::string& flag, std::int64_t low = 1, std::int64_t high = 10'000'000);
// The same for a number above 0, at most `high`.
CLI::Validator positive_number(const std::string& flag, double high);
// The same from 0 on.
CLI::Validator number_up_to(const std::string& flag, double high);

}  // namespace topomoe::cli
