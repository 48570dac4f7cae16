// nccl-tests: its table, and the JSON of -J.
//
// What stands between size and the first time differs by version (a redop or none, a root or none, an empty cell), and
// so does what follows each half (-I: four figures more, -S: a timestamp): columns are counted back from the end of the
// row, by the words of the header.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "topology/doctor/measured.hpp"
#include "topology/doctor/measured_cells.hpp"
#include "topology/read/json_text.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int kMostRanks = static_cast<int>(kMostMeasuredRanks);

// Where the times of a row stand, as the header says.
struct Columns {
  std::size_t timed = 8;   // cells from the first time on
  std::size_t second = 4;  // of them, the time of the in-place half
};

Columns columns_of(const std::vector<std::string_view>& header) {
  const auto is_time = [](std::string_view word) { return word == "time" || word == "cputime"; };
  const auto first = std::find_if(header.begin(), header.end(), is_time);
  const auto second = first == header.end() ? first : std::find_if(first + 1, header.end(), is_time);
  Columns out;
  constexpr std::ptrdiff_t kFigures = 4;  // of a half that is read: time, algbw, busbw, wrong
  if (second == header.end() || second - first < kFigures) return out;
  out.second = static_cast<std::size_t>(second - first);
  out.timed = 2 * out.second;
  if (header.back() == "timestamp") out.timed += 2;  // printed as a date and a time
  return out;
}

class TextReader {
 public:
  explicit TextReader(const std::string& where) : where_(where) { now_.where = where; }

  void line(int number, std::string_view line) {
    if (line.empty()) return;
    words_ = measured_words(line);
    place_ = fmt::format("{}: line {}", where_, number);
    if (const std::size_t at = line.find("NCCL version "); at != std::string_view::npos)
      if (const auto version = measured_words(line.substr(at + 13)); !version.empty())
        next_if_done().nccl = shown_text(version[0]);
    if (line.front() == '#')
      comment(line);
    else if (whole_cell(0) && whole_cell(1) && words_.size() > 3)
      row(number);
    else
      name(line);
  }

  std::vector<MeasuredCollective> finish() {
    next_if_done();
    if (runs_.empty())
      throw InvalidInput(first_broken_ > 0 ? fmt::format("{}: line {}", where_, first_broken_) : where_,
                         "no row of the table can be read", "output of a finished nccl-tests run, in whole lines");
    return std::move(runs_);
  }

 private:
  bool whole_cell(std::size_t i) const {
    return i < words_.size() && words_[i].size() < 19 &&
           words_[i].find_first_not_of("0123456789") == std::string_view::npos;
  }

  // A line that only stands before a table begins the next run where the last one has its rows.
  MeasuredCollective& next_if_done() {
    if (now_.rows.empty()) return now_;
    runs_.push_back(std::move(now_));
    now_ = {};
    now_.where = where_;
    columns_ = {};
    return now_;
  }

  void name(std::string_view line) {
    if (line.find("_perf") == std::string_view::npos || line.find("concluded") != std::string_view::npos) return;
    for (const std::string_view word : words_)
      if (word.find("_perf") != std::string_view::npos)
        if (const std::string operation = measured_operation(word); !operation.empty()) {
          next_if_done().operation = operation;
          return;
        }
  }

  void comment(std::string_view line) {
    if (words_.size() > 5 && words_[1] == "Rank") {
      rank(line);
    } else if (line.find("algbw") != std::string_view::npos) {
      columns_ = columns_of(words_);
    } else if (line.starts_with("# Out of bounds values")) {
      if (words_.size() > 6)
        if (const double wrong = measured_number(words_[6], place_); wrong > 0) now_.out_of_bounds = wrong;
    } else if (line.starts_with("# nThread") || line.starts_with("# Using devices")) {
      next_if_done();
    } else {
      name(line);
    }
  }

  // "#  Rank  0 Group  0 Pid  1234 on  node01 device  0 [0000:1b:00] NVIDIA H100 80GB HBM3"; before 2.13 no Group.
  void rank(std::string_view line) {
    MeasuredDevice own;
    own.rank = whole_number(words_[2], kMostRanks);
    if (own.rank < 0)
      throw InvalidInput(place_, "rank " + shown_text(words_[2].substr(0, 40)),
                         fmt::format("a number below {}", kMostRanks));
    for (std::size_t i = 3; i + 1 < words_.size() && words_[i].front() != '['; ++i) {
      if (words_[i] == "Group") own.group = std::max(0, whole_number(words_[i + 1], kMostRanks));
      if (words_[i] == "on") own.host = shown_text(words_[i + 1]);
      if (words_[i] == "device") own.device = std::max(0, whole_number(words_[i + 1], kMostRanks));
    }
    const std::size_t open = line.find('['), close = line.find(']', open == std::string_view::npos ? 0 : open);
    if (close != std::string_view::npos && open < close) {
      own.bus_id = plain_bus_id(line.substr(open + 1, close - open - 1));
      std::string_view gpu = line.substr(close + 1);
      gpu.remove_prefix(std::min(gpu.find_first_not_of(' '), gpu.size()));
      own.gpu = shown_text(gpu);
    }
    MeasuredCollective& run = next_if_done();
    run.ranks = std::max(run.ranks, own.rank + 1);
    run.devices.push_back(std::move(own));
  }

  MeasuredRow::Half half(std::size_t at) const {
    const auto cell = [&](std::size_t i) { return measured_number(words_[at + i], place_); };
    return {cell(0), cell(1), cell(2), cell(3)};
  }

  void row(int number) {
    constexpr std::size_t kLeast = 3, kMost = 5;  // size, count, type; and redop, root
    const std::size_t cells = words_.size();
    if (cells < kLeast + columns_.timed || cells > kMost + columns_.timed) {
      ++now_.rows_left_out;
      if (first_broken_ == 0) first_broken_ = number;
      return;
    }
    if (now_.rows.size() >= kMostMeasuredRows)
      throw InvalidInput(place_, "more rows", fmt::format("at most {}", kMostMeasuredRows));
    const std::size_t first = cells - columns_.timed;
    now_.rows.push_back({measured_number(words_[0], place_), half(first), half(first + columns_.second)});
  }

  const std::string& where_;
  std::string place_;
  std::vector<std::string_view> words_;
  Columns columns_;
  MeasuredCollective now_;
  std::vector<MeasuredCollective> runs_;
  int first_broken_ = 0;
};

using Json = nlohmann::ordered_json;

// Each process names only the first of its GPUs; nthreads x ngpus says how many follow it.
void read_devices(const Json& list, int each, MeasuredCollective& out) {
  for (const Json& value : list) {
    if (out.devices.size() + static_cast<std::size_t>(each) > kMostMeasuredRanks)
      throw InvalidInput(out.where + ": devices", "too many", fmt::format("at most {}", kMostMeasuredRanks));
    MeasuredDevice own;
    own.rank = json_whole(value, "rank", static_cast<int>(out.devices.size()), kMostRanks);
    own.group = json_whole(value, "group", 0, kMostRanks);
    own.host = json_text(value, "hostname");
    if (own.host.empty()) own.host = json_text(value, "host");
    own.device = json_whole(value, "device", 0, kMostRanks);
    own.bus_id = plain_bus_id(json_text(value, "device_hex"));
    for (const char* key : {"device_info", "device_name", "name"})
      if (own.gpu.empty()) own.gpu = json_text(value, key);
    for (int i = 0; i < each; ++i) {
      out.ranks = std::max(out.ranks, own.rank + 1);
      out.devices.push_back(own);
      ++own.rank, ++own.device;
      own.bus_id.clear();
    }
  }
}

MeasuredRow::Half read_half(const Json& row, const char* key, const std::string& place) {
  MeasuredRow::Half out{kNone, kNone, kNone, kNone};
  const auto at = row.find(key);
  if (at == row.end() || !at->is_object()) return out;
  const auto number = [&](const char* field) {
    return at->contains(field) ? measured_number(at->at(field), place + key + "." + field) : kNone;
  };
  out = {number("time"), number("alg_bw"), number("bus_bw"), number("nwrong")};
  for (const char* other : {"time_us", "cpu_time"})
    if (std::isnan(out.time_us)) out.time_us = number(other);
  return out;
}

}  // namespace

std::vector<MeasuredCollective> read_nccl_tests_text(std::string_view text, const std::string& where) {
  TextReader reader(where);
  each_measured_line(text, [&](int number, std::string_view line) { reader.line(number, line); });
  return reader.finish();
}

MeasuredCollective read_nccl_tests_json(std::string_view text, const std::string& where) {
  const Json json = parse_description(text, where);
  MeasuredCollective out;
  out.where = where;
  const auto results = json.is_object() ? json.find("results") : json.end();
  if (results == json.end() || !results->is_array())
    throw InvalidInput(where + ": results", "missing", "nccl-tests writes them with -J, nvbandwidth -j is known too");
  if (const auto args = json.find("args"); args != json.end()) {
    if (args->is_array() && !args->empty() && args->front().is_string())
      out.operation = measured_operation(args->front().get<std::string>());
    if (args->is_string()) out.operation = measured_operation(args->get<std::string>());
  }
  for (const char* key : {"test", "collective", "name"})
    if (out.operation.empty()) out.operation = measured_operation(json_text(json, key));
  if (const auto nccl = json.find("nccl_version"); nccl != json.end())
    out.nccl = nccl->is_number_integer() ? nccl->dump() : json_text(json, "nccl_version");
  const Json none;
  const Json& config = json.contains("config") ? json.at("config") : none;
  constexpr int kMostGpusOfAProcess = 1024;
  const int each = std::max(1, json_whole(config, "nthreads", 1, kMostGpusOfAProcess)) *
                   std::max(1, json_whole(config, "ngpus", 1, kMostGpusOfAProcess));
  for (const Json* holder : {&json, &config})
    if (holder->is_object() && holder->contains("devices") && holder->at("devices").is_array())
      read_devices(holder->at("devices"), each, out);
  for (const Json& row : *results) {
    const std::string place = fmt::format("{}: results[{}].", where, out.rows.size());
    if (!row.is_object() || !row.contains("size")) {
      ++out.rows_left_out;
      continue;
    }
    if (out.operation.empty()) out.operation = measured_operation(json_text(row, "experiment_name"));
    if (out.rows.size() >= kMostMeasuredRows)
      throw InvalidInput(place, "more rows", fmt::format("at most {}", kMostMeasuredRows));
    out.rows.push_back({measured_number(row.at("size"), place + "size"), read_half(row, "out_of_place", place),
                        read_half(row, "in_place", place)});
  }
  if (out.rows.empty()) throw InvalidInput(where + ": results", "no row", "output of a finished nccl-tests run");
  if (const auto wrong = json.find("out_of_bounds"); wrong != json.end() && wrong->is_object())
    out.out_of_bounds = json_whole(*wrong, "count", 0, std::numeric_limits<int>::max());
  return out;
}

}  // namespace topomoe
