// Numbers as users type them.
#pragma once

#include <string>

namespace topomoe::cli {

// "65536", "64K", "1M", "2GiB", "1e6": K, M, G, T (with or without iB) are powers of 1024, as in nccl-tests. Throws
// InvalidInput{flag, text, ...} unless it is a finite number from 0 to 1e18.
double bytes_from(const std::string& text, const std::string& flag);

}  // namespace topomoe::cli
