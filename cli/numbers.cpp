#include "cli/numbers.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "fmt/format.h"
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

CLI::Validator whole_number(const std::string& flag, std::int64_t low, std::int64_t high) {
  const auto check = [=](const std::string& text) -> std::string {
    std::int64_t value = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || rest != text.data() + text.size() || value < low || value > high)
      throw InvalidInput(flag, text.empty() ? "empty" : text, fmt::format("a whole number from {} to {}", low, high));
    return "";
  };
  return {check, ""};
}

namespace {

CLI::Validator number(const std::string& flag, double low, bool with_low, double high) {
  const auto check = [=](const std::string& text) -> std::string {
    double value = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool above = value > low || (with_low && value == low);
    if (error != std::errc() || rest != text.data() + text.size() || !above || !(value <= high))
      throw InvalidInput(flag, text.empty() ? "empty" : text,
                         with_low ? fmt::format("a number from {:g} to {:g}", low, high)
                                  : fmt::format("a number above {:g}, at most {:g}", low, high));
    return "";
  };
  return {check, ""};
}

}  // namespace

CLI::Validator positive_number(const std::string& flag, double high) { return number(flag, 0, false, high); }
CLI::Validator number_up_to(const std::string& flag, double high) { return number(flag, 0, true, high); }

}  // namespace topomoe::cli
