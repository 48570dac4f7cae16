#include "topology/read/simgrid_units.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <utility>

namespace topomoe {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  return first == text.npos ? std::string_view{} : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

struct Figure {
  double value;
  std::string_view unit;
};

std::optional<Figure> figure(std::string_view text) {
  text = trimmed(text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || !std::isfinite(value) || value < 0) return std::nullopt;
  return Figure{value, trimmed(text.substr(static_cast<std::size_t>(end - text.data())))};
}

}  // namespace

std::optional<double> simgrid_GBps(std::string_view text) {
  const std::optional<Figure> own = figure(text);
  if (!own) return std::nullopt;
  std::string_view unit = own->unit;
  double factor = 1e-9;
  if (!unit.empty()) {
    const bool bits = unit.ends_with("bps");
    if (!bits && !unit.ends_with("Bps")) return std::nullopt;
    if (bits) factor /= 8;
    unit.remove_suffix(3);
    if (!unit.empty()) {
      const std::size_t step = unit.front() == 'K' ? 0 : std::string_view("kMGTPEZY").find(unit.front());
      if (step == std::string_view::npos || unit.size() > 2 || (unit.size() == 2 && unit[1] != 'i'))
        return std::nullopt;
      factor *= std::pow(unit.size() == 2 ? 1024.0 : 1000.0, static_cast<double>(step + 1));
    }
  }
  const double GBps = own->value * factor;
  return std::isfinite(GBps) ? std::optional(GBps) : std::nullopt;
}

std::optional<double> simgrid_latency_us(std::string_view text) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1e6},  {"ps", 1e-6}, {"ns", 1e-3},  {"us", 1},      {"ms", 1e3},
      {"s", 1e6}, {"m", 60e6},  {"h", 3600e6}, {"d", 86400e6}, {"w", 7 * 86400e6}};
  const std::optional<Figure> own = figure(text);
  if (!own) return std::nullopt;
  for (const auto& [unit, us] : kUnits)
    if (unit == own->unit && std::isfinite(own->value * us)) return own->value * us;
  return std::nullopt;
}

bool add_radical(std::string_view radical, std::string_view prefix, std::string_view suffix, std::size_t most,
                 std::vector<std::string>& names) {
  const auto number = [](std::string_view digits) -> std::optional<std::uint64_t> {
    std::uint64_t value = 0;
    digits = trimmed(digits);
    const char* last = digits.data() + digits.size();
    const auto [end, error] = std::from_chars(digits.data(), last, value);
    return digits.size() <= 18 && error == std::errc{} && end == last ? std::optional(value) : std::nullopt;
  };
  while (true) {
    const std::size_t comma = radical.find_first_of(",;");
    const std::string_view part = radical.substr(0, comma);
    const std::size_t dash = part.find('-');
    const auto first = number(part.substr(0, dash)), last = dash == part.npos ? first : number(part.substr(dash + 1));
    if (!first || !last || *last < *first) return false;
    if (*last - *first >= most || names.size() + (*last - *first) >= most) return false;
    for (std::uint64_t i = *first; i <= *last; ++i) {
      std::string& name = names.emplace_back(prefix);
      name += std::to_string(i);
      name += suffix;
    }
    if (comma == radical.npos) return true;
    radical.remove_prefix(comma + 1);
  }
}

}  // namespace topomoe
