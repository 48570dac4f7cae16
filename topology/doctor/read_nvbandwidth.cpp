// nvbandwidth: its text, and the JSON of -j.
//
// Text: "Running <testcase>.", a line that describes the matrix, a line of column numbers, rows that begin with their
// number. Processes of a multi-node run are its devices.
#include <fmt/format.h>

#include "topology/doctor/measured.hpp"
#include "topology/doctor/measured_cells.hpp"
#include "topology/read/json_text.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr int kMostDevices = 65536;

// "NVIDIA H100 80GB HBM3 (00000000:1b:00)", with or without a colon before the bracket.
void read_name(std::string_view text, MeasuredDevice& own) {
  const std::size_t open = text.rfind('('), close = text.rfind(')');
  if (open != std::string_view::npos && close != std::string_view::npos && open < close) {
    own.bus_id = plain_bus_id(text.substr(open + 1, close - open - 1));
    text = text.substr(0, open);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == ':')) text.remove_suffix(1);
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  own.gpu = shown_text(text);
}

// "<number>: <name>"
bool read_numbered(std::string_view text, MeasuredDevice& own, int& number) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return false;
  const auto digits = measured_words(text.substr(0, colon));
  number = digits.size() == 1 ? whole_number(digits[0], kMostDevices) : -1;
  if (number < 0) return false;
  read_name(text.substr(colon + 1), own);
  return true;
}

void add_row(MeasuredMatrix& matrix, std::vector<double> row, const std::string& place) {
  if (!matrix.GBps.empty() && matrix.GBps.front().size() != row.size())
    throw InvalidInput(place, fmt::format("a row of {} cells", row.size()),
                       fmt::format("{}, as the rows above it", matrix.GBps.front().size()));
  if (row.empty() || (matrix.GBps.size() + 1) * row.size() > kMostMatrixCells)
    throw InvalidInput(place, fmt::format("a row of {} cells", row.size()), "a matrix of at most 2048 x 2048 devices");
  matrix.GBps.push_back(std::move(row));
}

class TextReader {
 public:
  explicit TextReader(const std::string& where) { out_.where = where; }

  void line(int number, std::string_view line) {
    const std::string place = fmt::format("{}: line {}", out_.where, number);
    const std::vector<std::string_view> words = measured_words(line);
    if (words.empty() || !row(words, place)) in_matrix_ = false, columns_ = 0;
    if (words.empty() || columns_ > 0) return;
    if (words[0] == "Running" && words.size() > 1) {
      testcase_ = shown_text(words[1].substr(0, words[1].find_last_not_of('.') + 1));
    } else if (line.find("bandwidth (GB/s)") != std::string_view::npos && !testcase_.empty()) {
      out_.matrices.push_back({testcase_, shown_text(line), {}});
      in_matrix_ = true;
    } else if ((words[0].starts_with("ERROR") || words[0].starts_with("Error") || words[0] == "ASSERT") &&
               !testcase_.empty()) {
      if (out_.failed.empty() || out_.failed.back() != testcase_) out_.failed.push_back(testcase_);
    } else if (words[0] == "Device" || words[0] == "Process") {
      device(line);
    }
  }

  MeasuredCopies finish() {
    std::erase_if(out_.matrices, [](const MeasuredMatrix& own) { return own.GBps.empty(); });
    if (out_.matrices.empty() && out_.failed.empty())
      throw InvalidInput(out_.where, "no matrix", "output of a finished nvbandwidth run");
    return std::move(out_);
  }

 private:
  // A line of column numbers, or below it a row; false where the matrix has ended.
  bool row(const std::vector<std::string_view>& words, const std::string& place) {
    if (!in_matrix_) return false;
    if (columns_ == 0) {
      for (std::size_t i = 0; i < words.size(); ++i)
        if (whole_number(words[i], kMostDevices) != static_cast<int>(i)) return false;
      columns_ = words.size();
      return true;
    }
    if (whole_number(words[0], kMostDevices) != static_cast<int>(out_.matrices.back().GBps.size())) return false;
    if (words.size() != columns_ + 1)
      throw InvalidInput(place, fmt::format("a row of {} cells", words.size() - 1),
                         fmt::format("{}, as there are columns", columns_));
    std::vector<double> cells;
    for (std::size_t i = 1; i < words.size(); ++i) cells.push_back(measured_number(words[i], place));
    add_row(out_.matrices.back(), std::move(cells), place);
    return true;
  }

  // "Device 0: NVIDIA H100 (00000000:1b:00)", "Process  3 (node01): device 1: NVIDIA GB200 (00000008:01:00)"
  void device(std::string_view line) {
    if (out_.devices.size() >= static_cast<std::size_t>(kMostDevices)) return;
    MeasuredDevice own;
    if (line.starts_with("Device")) {
      if (!read_numbered(line.substr(6), own, own.rank)) return;
      own.device = own.rank;
    } else {
      const std::size_t open = line.find('('), close = line.find("): device ");
      if (open == std::string_view::npos || close == std::string_view::npos || open > close) return;
      const auto number = measured_words(line.substr(7, open - 7));
      own.rank = number.size() == 1 ? whole_number(number[0], kMostDevices) : -1;
      if (own.rank < 0 || !read_numbered(line.substr(close + 10), own, own.device)) return;
      own.host = shown_text(line.substr(open + 1, close - open - 1));
    }
    out_.devices.push_back(std::move(own));
  }

  MeasuredCopies out_;
  std::string testcase_;
  bool in_matrix_ = false;   // below a description
  std::size_t columns_ = 0;  // 0: their line has not been seen
};

using Json = nlohmann::ordered_json;

}  // namespace

MeasuredCopies read_nvbandwidth_text(std::string_view text, const std::string& where) {
  TextReader reader(where);
  each_measured_line(text, [&](int number, std::string_view line) { reader.line(number, line); });
  return reader.finish();
}

MeasuredCopies read_nvbandwidth_json(std::string_view text, const std::string& where) {
  const Json json = parse_description(text, where);
  const Json none;
  const Json& root = json.is_object() && json.contains("nvbandwidth") ? json.at("nvbandwidth") : none;
  if (!root.is_object() || !root.contains("testcases") || !root.at("testcases").is_array())
    throw InvalidInput(where + ": nvbandwidth.testcases", "missing", "nvbandwidth writes them with -j");
  MeasuredCopies out;
  out.where = where;
  if (root.contains("GPU Device list") && root.at("GPU Device list").is_array())
    for (const Json& value : root.at("GPU Device list")) {
      MeasuredDevice own;
      if (!value.is_string() || out.devices.size() >= static_cast<std::size_t>(kMostDevices)) continue;
      if (!read_numbered(value.get<std::string>(), own, own.rank)) {
        own.rank = static_cast<int>(out.devices.size());
        read_name(value.get<std::string>(), own);
      }
      own.device = own.rank;
      out.devices.push_back(std::move(own));
    }
  for (const Json& test : root.at("testcases")) {
    MeasuredMatrix matrix{json_text(test, "name"), json_text(test, "bandwidth_description"), {}};
    if (matrix.testcase.empty()) continue;
    if (json_text(test, "status") == "Error") out.failed.push_back(matrix.testcase);
    if (json_text(test, "status") != "Passed" || !test.contains("bandwidth_matrix") ||
        !test.at("bandwidth_matrix").is_array())
      continue;
    for (const Json& row : test.at("bandwidth_matrix")) {
      const std::string place = fmt::format("{}: {}: row {}", where, matrix.testcase, matrix.GBps.size());
      std::vector<double> cells;
      if (row.is_array())
        for (const Json& cell : row) cells.push_back(measured_number(cell, place));
      add_row(matrix, std::move(cells), place);
    }
    if (!matrix.GBps.empty()) out.matrices.push_back(std::move(matrix));
  }
  if (out.matrices.empty() && out.failed.empty())
    throw InvalidInput(where, "no testcase that passed", "output of a finished nvbandwidth run");
  return out;
}

}  // namespace topomoe
