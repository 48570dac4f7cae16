// The texts in which SimGrid writes figures: "125MBps", "50us", radical="0-9,12".
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

// GB/s (1e9 bytes/s). Bps in bytes, bps in bits, with k M G T P E Z Y of powers of 10 and Ki Mi Gi ... of powers of 2;
// without a unit bytes/s. Nothing for what is no such figure, is not finite or below 0.
std::optional<double> simgrid_GBps(std::string_view text);
// Microseconds. ps ns us ms s m h d w; without a unit seconds.
std::optional<double> simgrid_latency_us(std::string_view text);

// prefix + number + suffix for each number of "0-9,12" (';' parts like ','), added to `names`. False for what is no
// such list, and where there would be more than `most`.
bool add_radical(std::string_view radical, std::string_view prefix, std::string_view suffix, std::size_t most,
                 std::vector<std::string>& names);

}  // namespace topomoe
