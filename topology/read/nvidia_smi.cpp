#include "topology/read/nvidia_smi.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxDevices = 96;
constexpr std::string_view kBlank = " \t\r\f\v";

struct Word {
  const char* text;
  SmiClass what;
};
// SOC: what SYS was called before NUMA nodes inside a socket; PSB: a switch on a board with two GPUs.
constexpr Word kWords[] = {{"X", SmiClass::self},  {"PIX", SmiClass::pix},   {"PXB", SmiClass::pxb},
                           {"PHB", SmiClass::phb}, {"NODE", SmiClass::node}, {"SYS", SmiClass::sys},
                           {"SOC", SmiClass::sys}, {"PSB", SmiClass::pix}};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::optional<SmiCell> cell_of(std::string_view text) {
  for (const Word& word : kWords)
    if (text == word.text) return SmiCell{word.what, 0};
  if (!text.starts_with("NV")) return std::nullopt;
  SmiCell cell{SmiClass::nvlink, 0};
  const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), cell.links);
  if (error != std::errc{} || end != text.data() + text.size() || cell.links < 1 || cell.links > 999)
    return std::nullopt;
  return cell;
}

// "GPU0", "NIC12": the word and then only digits.
bool is_numbered(std::string_view text, std::string_view word) {
  return text.size() > word.size() && text.size() <= word.size() + 4 && text.starts_with(word) &&
         std::all_of(text.begin() + static_cast<long>(word.size()), text.end(), is_digit);
}

// Without terminal colours (also where the escape character itself was lost), no-break spaces and carriage returns.
std::string plain(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const bool escape = line[i] == '\x1b' && i + 1 < line.size() && line[i + 1] == '[';
    std::size_t end = i + (escape ? 2 : 1);
    while (end < line.size() && (is_digit(line[end]) || line[end] == ';')) ++end;
    if (escape || (line[i] == '[' && end < line.size() && line[end] == 'm')) {
      i = end;
    } else if (line.substr(i).starts_with("\xc2\xa0")) {
      out += ' ';
      ++i;
    } else {
      out += line[i];
    }
  }
  return out;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t start = 0; (start = text.find_first_not_of(kBlank, start)) != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kBlank, start), text.size());
    words.emplace_back(text.substr(start, end - start));
    start = end;
  }
  return words;
}

struct Line {
  std::size_t number;
  std::vector<std::string> parts;  // between tabs an empty one counts
};

std::vector<Line> lines_of(std::string_view text) {
  std::vector<Line> lines;
  std::size_t number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string line = plain(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    line.erase(0, std::min(line.find_first_not_of(" \t*#/;>|"), line.size()));
    Line own{number, {}};
    if (line.find('\t') == std::string::npos) {
      own.parts = words_of(line);
    } else {
      for (std::string_view rest = line;;) {
        const std::size_t tab = rest.find('\t');
        const std::vector<std::string> words = words_of(rest.substr(0, tab));
        own.parts.insert(own.parts.end(), words.begin(), words.end());
        if (words.empty()) own.parts.emplace_back();
        if (tab == std::string_view::npos) break;
        rest.remove_prefix(tab + 1);
      }
    }
    if (!own.parts.empty() && !own.parts.front().empty()) lines.push_back(std::move(own));
  }
  return lines;
}

bool is_header(const Line& line) {
  return is_numbered(line.parts[0], "GPU") && (line.parts.size() < 2 || !is_digit(line.parts[1][0])) &&
         (line.parts.size() < 2 || !cell_of(line.parts[1]));
}

class Parser {
 public:
  explicit Parser(const std::string& where) : where_(where) {}

  SmiMatrix run(std::string_view text) {
    bool begun = false;
    for (const Line& line : lines_of(text)) {
      if (line.parts.size() > 1 && line.parts[1].empty()) {
        if (begun && column_of(line.parts[0]) < out_.devices.size()) read_row(line);
        continue;
      }
      if (is_header(line) && !begun) {
        read_header(line);
        begun = true;
      } else if (begun) {
        read_line(line);
      }
    }
    if (!begun)
      throw InvalidInput(where_, "no line of columns GPU0 GPU1 ...", "give all that nvidia-smi topo -m prints");
    finish();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const Line& line, const std::string& what, const std::string& value,
                         const std::string& hint) const {
    throw InvalidInput(fmt::format("{}: line {}, {}", where_, line.number, what), value, hint);
  }

  std::size_t column_of(const std::string& name) const {
    std::size_t i = 0;
    while (i < out_.devices.size() && out_.devices[i].column != name) ++i;
    return i;
  }

  void read_header(const Line& line) {
    std::size_t i = 0;
    for (; i < line.parts.size(); ++i) {
      const std::string& name = line.parts[i];
      if (name.empty() || name == "CPU" || name == "NUMA" || name == "GPU") break;  // "CPU Affinity", "GPU NUMA ID"
      if (name.starts_with("GPU") && !is_numbered(name, "GPU"))
        fail(line, "columns", '"' + name.substr(0, 40) + '"', "GPU and a number; have two columns run together?");
      if (column_of(name) < out_.devices.size())
        fail(line, "columns", name.substr(0, 40) + " twice", "each device has one column");
      if (out_.devices.size() == kMaxDevices)
        fail(line, "columns", fmt::format("more than {}", kMaxDevices), "one host a file");
      out_.devices.push_back({name, is_numbered(name, "GPU"), false, "", "", "", ""});
    }
    for (; i < line.parts.size(); ++i) {
      has_cpu_ = has_cpu_ || line.parts[i] == "CPU";
      has_numa_ =
          has_numa_ || (line.parts[i] == "NUMA" && i + 1 < line.parts.size() && line.parts[i + 1] == "Affinity");
    }
    out_.cells.assign(out_.devices.size() * out_.devices.size(), {});
  }

  void read_line(const Line& line) {
    std::string name = line.parts[0];
    if (name.ends_with(':') && line.parts.size() == 2) {  // "NIC0: mlx5_0"
      name.pop_back();
      if (const std::size_t own = column_of(name); own < out_.devices.size()) out_.devices[own].os_name = line.parts[1];
      return;
    }
    if (is_header(line)) fail(line, "columns", "a second matrix", "one host a file; cut the file in two");
    if (column_of(name) < out_.devices.size())
      read_row(line);
    else if (is_numbered(name, "GPU") || is_numbered(name, "NIC"))
      fail(line, "row " + name, "no such column", "give all that nvidia-smi topo -m prints");
  }

  void read_row(const Line& line) {
    const std::size_t count = out_.devices.size(), row = column_of(line.parts[0]);
    SmiDevice& own = out_.devices[row];
    if (own.has_row) fail(line, "row " + own.column, "given twice", "one host a file");
    own.has_row = true;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string place = fmt::format("row {}, column {}", own.column, out_.devices[i].column);
      if (i + 1 >= line.parts.size())
        fail(line, "row " + own.column, fmt::format("{} of {} cells", i, count), "cut off? give the whole output");
      const std::string& text = line.parts[i + 1];
      const std::optional<SmiCell> cell = cell_of(text);
      if (!cell) fail(line, place, text.empty() ? "empty" : '"' + text.substr(0, 40) + '"', hint_for(text));
      if ((cell->what == SmiClass::self) != (i == row))
        fail(line, place, text, "X stands where row and column are one device; has the row lost a cell?");
      out_.cells[row * count + i] = *cell;
      own.row += (i == 0 ? "" : " ") + text;
    }
    if (!own.gpu) return;
    const auto extra = [&](std::size_t i) {
      const std::string text = count + 1 + i < line.parts.size() ? line.parts[count + 1 + i] : "";
      return text == "N/A" ? "" : text;
    };
    if (has_cpu_) own.cpu_affinity = extra(0);
    if (has_numa_) own.numa_affinity = extra(has_cpu_ ? 1 : 0);
  }

  static std::string hint_for(const std::string& text) {
    for (std::size_t i = 1; i < text.size(); ++i)
      if (cell_of(text.substr(0, i)) && cell_of(text.substr(i)))
        return fmt::format("two cells have run together ({} and {}): put the tab between them back", text.substr(0, i),
                           text.substr(i));
    return text.empty() ? "a cell is missing; give the output as it was printed"
                        : "one of X NV# PIX PXB PHB NODE SYS; cut off, or has a column moved?";
  }

  // What one half says, the other says too.
  void finish() {
    const std::size_t count = out_.devices.size();
    for (const SmiDevice& device : out_.devices)
      if (device.gpu && !device.has_row)
        throw InvalidInput(where_ + ": row " + device.column, "missing", "cut off? give the whole output");
    for (std::size_t a = 0; a < count; ++a)
      for (std::size_t b = a + 1; b < count; ++b) {
        SmiCell& upper = out_.cells[a * count + b];
        SmiCell& lower = out_.cells[b * count + a];
        if (upper.what == SmiClass::unknown) upper = lower;
        if (lower.what == SmiClass::unknown) lower = upper;
        if (upper != lower)
          throw InvalidInput(fmt::format("{}: {} and {}", where_, out_.devices[a].column, out_.devices[b].column),
                             smi_word(upper) + " one way, " + smi_word(lower) + " the other",
                             "both halves of the matrix say the same; was it edited, or has a column moved?");
      }
  }

  const std::string& where_;
  SmiMatrix out_;
  bool has_cpu_ = false, has_numa_ = false;
};

}  // namespace

std::string smi_word(const SmiCell& cell) {
  if (cell.what == SmiClass::nvlink) return fmt::format("NV{}", cell.links);
  for (const Word& word : kWords)
    if (word.what == cell.what) return word.text;
  return "nothing";
}

bool looks_like_nvidia_smi(std::string_view text) {
  bool header = false;
  for (const Line& line : lines_of(text.substr(0, 1U << 20))) {
    if (!header)
      header = is_header(line);
    else if (is_numbered(line.parts[0], "GPU"))
      return line.parts.size() > 1;
  }
  return false;
}

SmiMatrix parse_nvidia_smi(std::string_view text, const std::string& where) { return Parser(where).run(text); }

}  // namespace topomoe
