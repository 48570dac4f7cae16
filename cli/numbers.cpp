#include "cli/numbers.hpp"

#include <cmath>
#include <cstdlib>
#include <string_view>

#include "topomoe/error.hpp"

namespace topomoe::cli {

double bytes_from(const std::string& text, const std::string& flag) {
  const auto fail = [&] {
    throw InvalidInput(flag, text.empty() ? "empty" : text, "bytes from 0 to 1e18, as 65536, 64K, 16M or 2G");
  };
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str()) fail();
  const std::string_view unit = end;
  if (!unit.empty() && unit != "B") {
    const auto power = std::string_view("KMGT").find(unit.front());
    const std::string_view rest = unit.substr(1);
    if (power == std::string_view::npos || (!rest.empty() && rest != "iB" && rest != "B")) fail();
    if (rest == "B")
      throw InvalidInput(flag, text, "KB, MB and GB may mean 1000 or 1024: write 64K or 64KiB for 1024, 64e3 for 1000");
    value *= std::pow(1024.0, static_cast<double>(power + 1));
  }
  if (!std::isfinite(value) || value < 0 || value > 1e18) fail();
  return value;
}

}  // namespace topomoe::cli
