// Lines of cells with a header, as measured tables come. Internal to planner/rates.
#pragma once

#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "topomoe/error.hpp"

namespace topomoe {

inline std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (std::size_t end; (end = text.find(at)) != text.npos; text.remove_prefix(end + 1))
    parts.push_back(text.substr(0, end));
  parts.push_back(text);
  return parts;
}

// A CSV without quotes: what every table here is.
class CsvTable {
 public:
  CsvTable(std::string_view csv, std::string where, const std::vector<std::string_view>& columns)
      : where_(std::move(where)) {
    for (std::string_view line : split(csv, '\n')) {
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      lines_.push_back(line);
    }
    const auto header = split(lines_[0], ',');
    width_ = header.size();
    for (const std::string_view column : columns) {
      std::size_t at = 0;
      while (at < header.size() && header[at] != column) ++at;
      if (at == header.size())
        throw InvalidInput(where_, "no column " + std::string(column), "its first line names it");
      columns_[column] = at;
    }
  }
  template <class Row>
  void each(Row row) {
    for (line_ = 1; line_ < lines_.size(); ++line_) {
      if (lines_[line_].empty()) continue;
      cells_ = split(lines_[line_], ',');
      if (cells_.size() != width_)
        throw InvalidInput(field(""), std::to_string(cells_.size()) + " cells",
                           std::to_string(width_) + " as the header");
      row();
    }
  }
  std::string text(std::string_view column) const { return std::string(cells_[columns_.at(column)]); }
  double positive(std::string_view column) const {
    const std::string_view cell = cells_[columns_.at(column)];
    double value = 0;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    if (error != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value) || value <= 0)
      throw InvalidInput(field(column), std::string(cell), "a positive number");
    return value;
  }
  double number(std::string_view column) const {  // 0 too
    return cells_[columns_.at(column)] == "0.0" || cells_[columns_.at(column)] == "0" ? 0 : positive(column);
  }
  int whole(std::string_view column) const {
    const double value = positive(column);
    if (value != std::floor(value) || value > 1 << 24) throw InvalidInput(field(column), text(column), "1 to 2^24");
    return static_cast<int>(value);
  }
  std::string field(std::string_view column) const {
    return where_ + ": line " + std::to_string(line_ + 1) + (column.empty() ? "" : ": " + std::string(column));
  }

 private:
  std::string where_;
  std::vector<std::string_view> lines_, cells_;
  std::map<std::string_view, std::size_t> columns_;
  std::size_t width_ = 0, line_ = 0;
};

}  // namespace topomoe
