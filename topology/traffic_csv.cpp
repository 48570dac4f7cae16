// A matrix of bytes as a spreadsheet writes it.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>

#include "topomoe/error.hpp"
#include "topomoe/pattern_load.hpp"

namespace topomoe {
namespace {

// 128 MiB of numbers; flow by flow that many pairs take seconds.
constexpr int kMostGpus = 4096;
constexpr double kMostBytes = 1e18;

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return text;
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Out of range is a number, and one that is refused as such.
  if (end != text.data() + text.size() || text.empty()) return std::nullopt;
  return error == std::errc() ? value : INFINITY;
}

class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  // The next line with anything in it, and its cells; false at the end.
  bool next(std::vector<std::string_view>& cells) {
    while (!rest_.empty()) {
      const std::size_t end = rest_.find('\n');
      std::string_view line = rest_.substr(0, end);
      rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
      if (trimmed(line).empty()) continue;
      cells.clear();
      for (std::size_t comma = 0; comma != std::string_view::npos;) {
        comma = line.find(',');
        cells.push_back(trimmed(line.substr(0, comma)));
        if (comma != std::string_view::npos) line = line.substr(comma + 1);
      }
      return true;
    }
    return false;
  }

 private:
  std::string_view rest_;
};

std::string brief(std::string_view text) { return fmt::format("\"{}\"", text.substr(0, 40)); }

}  // namespace

TrafficMatrix read_traffic_csv(std::string_view text, const std::string& where, int gpus) {
  if (gpus > kMostGpus)
    throw InvalidInput(where, fmt::format("a matrix for {} GPUs", gpus),
                       fmt::format("at most {}; larger clusters: --pattern alltoall, rail or pairs", kMostGpus));
  TrafficMatrix out;
  out.gpus = gpus, out.source = where;
  const auto n = static_cast<std::size_t>(gpus);
  const std::string size = fmt::format("{} x {} numbers, the GPUs of this cluster", n, n);
  Lines lines(text.substr(text.starts_with("\xef\xbb\xbf") ? 3 : 0));
  std::vector<std::string_view> cells;
  std::size_t row = 0;
  for (bool first_line = true; lines.next(cells); first_line = false) {
    // A line of names: nothing in it after a possible name of its own is a number.
    if (first_line && !number(cells.back())) {
      bool names = true;
      for (const std::string_view cell : cells) names = names && !number(cell);
      if (names) continue;
    }
    const bool named = cells.size() == n + 1 && !number(cells.front());
    if (row == n) throw InvalidInput(where, fmt::format("more than {} rows", n), size);
    if (cells.size() != n + (named ? 1 : 0))
      throw InvalidInput(where, fmt::format("row {} has {} columns", row + 1, cells.size() - (named ? 1 : 0)), size);
    for (std::size_t column = 0; column < n; ++column) {
      const std::string_view cell = cells[column + (named ? 1 : 0)];
      const std::optional<double> value = number(cell);
      const auto at = [&] { return fmt::format("{}: row {}, column {}", where, row + 1, column + 1); };
      if (!value) throw InvalidInput(at(), brief(cell), "a number of bytes");
      if (!(*value >= 0) || *value > kMostBytes) throw InvalidInput(at(), brief(cell), "0 to 1e18 bytes");
      out.bytes.push_back(*value);
    }
    ++row;
  }
  if (row != n) throw InvalidInput(where, fmt::format("{} rows", row), size);
  return out;
}

}  // namespace topomoe
