#include "topology/read/amd_smi.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "topology/read/plain_text.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxGpus = 96;
constexpr std::string_view kBlank = " \t\r\f\v";

// A bandwidth that no link has, in MB/s: 100 TB/s.
constexpr double kMostMBps = 1e8;

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::size_t start = 0; (start = line.find_first_not_of(kBlank, start)) != std::string_view::npos;) {
    const std::size_t end = std::min(line.find_first_of(kBlank, start), line.size());
    words.push_back(line.substr(start, end - start));
    start = end;
  }
  return words;
}

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

enum class Table { none, links, hops, bandwidth, other };

// What a line begins; nothing where it is no title.
std::optional<Table> title(std::string_view line) {
  const auto has = [&](std::string_view words) { return line.find(words) != std::string_view::npos; };
  if (has("Link Type between two GPUs") || has("LINK TYPE TABLE")) return Table::links;
  if (has("Hops between two GPUs") || has("HOPS TABLE")) return Table::hops;
  if (has("NUMA BW TABLE") || has("Bandwidth between two GPUs")) return Table::bandwidth;
  if (has("between two GPUs") || has(" TABLE:")) return Table::other;
  if (line.starts_with("====")) return Table::none;
  return std::nullopt;
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  AmdSmi run() {
    for (std::size_t start = 0; start < text_.size();) {
      const std::size_t end = std::min(text_.find('\n', start), text_.size());
      ++line_;
      take(text_.substr(start, end - start));
      start = end + 1;
    }
    if (out_.gpus.empty() || out_.links.empty())
      throw InvalidInput(where_, "no table of link types",
                         "all that rocm-smi --showtopo or amd-smi topology prints, \"Link Type\" among it");
    const std::size_t count = out_.gpus.size();
    for (std::size_t a = 0; a < count; ++a)
      if (!seen_[a])
        throw InvalidInput(where_, "no row for " + one_line(out_.gpus[a]), "the table of link types was cut off");
    for (std::size_t a = 0; a < count; ++a)
      for (std::size_t b = 0; b < count; ++b)
        if (out_.links[out_.at(a, b)] != out_.links[out_.at(b, a)])
          throw InvalidInput(where_ + ": link types", out_.gpus[a] + " and " + out_.gpus[b],
                             "XGMI one way and not the other: was the table edited?");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string_view found, const std::string& hint) const {
    throw InvalidInput(fmt::format("{}: line {}", where_, line_), '"' + one_line(found) + '"', hint);
  }

  void take(std::string_view line) {
    if (const std::optional<Table> next = title(line)) {
      table_ = *next;
      columns_.clear();
      rows_ = 0;
      return;
    }
    const std::vector<std::string_view> words = words_of(line);
    if (words.empty()) return;
    if (take_numa(line, words) || table_ == Table::none || table_ == Table::other) return;
    if (columns_.empty())
      take_header(words);
    else
      take_row(words);
  }

  // "GPU[1] : (Topology) Numa Node: 1"
  bool take_numa(std::string_view line, const std::vector<std::string_view>& words) {
    if (!words[0].starts_with("GPU[") || line.find("Numa Node:") == std::string_view::npos)
      return words[0].starts_with("GPU[");
    const std::string_view inside =
        words[0].substr(4, words[0].find(']') - std::min<std::size_t>(words[0].find(']'), 4));
    const auto gpu = number<std::size_t>(inside);
    const auto node = number<int>(words.back());
    if (!gpu || !node || *node < -1 || *node > 4095) fail(line, "\"GPU[0] : (Topology) Numa Node: 0\"");
    if (*gpu >= out_.gpus.size()) fail(words[0], fmt::format("the tables have {} GPUs", out_.gpus.size()));
    out_.numa[*gpu] = *node;
    return true;
  }

  void take_header(const std::vector<std::string_view>& words) {
    if (words.size() > kMaxGpus) fail(words[kMaxGpus], fmt::format("at most {} GPUs", kMaxGpus));
    columns_.assign(words.begin(), words.end());
    if (out_.gpus.empty()) {
      out_.gpus = columns_;
      std::vector<std::string> sorted = columns_;
      std::sort(sorted.begin(), sorted.end());
      if (const auto twin = std::adjacent_find(sorted.begin(), sorted.end()); twin != sorted.end())
        fail(*twin, "two columns of one name");
      const std::size_t cells = columns_.size() * columns_.size();
      out_.hops.assign(cells, 0);
      out_.MBps.assign(cells, 0);
      out_.numa.assign(columns_.size(), -1);
      seen_.assign(columns_.size(), false);
    } else if (out_.gpus != columns_) {
      fail(words[0], "other GPUs than in the table before");
    }
    if (table_ == Table::links) out_.links.assign(columns_.size() * columns_.size(), AmdLink::unknown);
  }

  void take_row(const std::vector<std::string_view>& words) {
    const auto row = std::find(columns_.begin(), columns_.end(), words[0]);
    if (row == columns_.end()) fail(words[0], "a row of one of the columns' GPUs");
    if (words.size() != columns_.size() + 1)
      fail(words[0], fmt::format("{} cells in this row, and {} columns", words.size() - 1, columns_.size()));
    const auto a = static_cast<std::size_t>(row - columns_.begin());
    for (std::size_t b = 0; b < columns_.size(); ++b) take_cell(a, b, words[b + 1]);
    if (table_ == Table::links) seen_[a] = true;
    if (++rows_ == columns_.size()) table_ = Table::none;  // what people paste may go on
  }

  void take_cell(std::size_t a, std::size_t b, std::string_view cell) {
    const std::size_t at = out_.at(a, b);
    if (table_ == Table::links) {
      out_.links[at] = link_of(a, b, cell);
    } else if (table_ == Table::hops) {
      const auto hops = number<int>(cell);
      if (cell != "N/A" && cell != "SELF" && (!hops || *hops < 0 || *hops > 1000)) fail(cell, "a number of hops");
      out_.hops[at] = hops.value_or(0);
    } else if (cell != "N/A" && cell != "SELF" && cell != "0") {  // "50000-50000": least and most
      const std::size_t dash = cell.find('-');
      const auto least = number<double>(cell.substr(0, dash));
      const auto most = dash == std::string_view::npos ? least : number<double>(cell.substr(dash + 1));
      if (!least || !most || !(*least >= 0 && *most >= *least && *most <= kMostMBps))
        fail(cell, "MB/s, least and most: 50000-50000");
      out_.MBps[at] = *most;
    }
  }

  AmdLink link_of(std::size_t a, std::size_t b, std::string_view cell) const {
    if (a == b) {
      if (cell != "0" && cell != "SELF" && cell != "N/A") fail(cell, "a GPU and itself: 0 or SELF");
      return AmdLink::self;
    }
    if (cell == "XGMI") return AmdLink::xgmi;
    if (cell == "PCIE" || cell == "PCIe") return AmdLink::pcie;
    if (cell != "N/A" && cell != "UNKNOWN") fail(cell, "XGMI, PCIE or N/A");
    return AmdLink::unknown;
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t line_ = 0;
  Table table_ = Table::none;
  std::vector<std::string> columns_;  // of this table; empty: its header has not come
  std::size_t rows_ = 0;
  std::vector<bool> seen_;  // rows of the table of link types
  AmdSmi out_;
};

}  // namespace

AmdSmi parse_amd_smi(std::string_view text, const std::string& where) { return Parser(text, where).run(); }

}  // namespace topomoe
