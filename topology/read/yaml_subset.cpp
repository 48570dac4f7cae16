#include "topology/read/yaml_subset.hpp"

#include <algorithm>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

struct Line {
  std::size_t indent;
  std::string_view text;  // without indentation, comment and trailing space
  int number;
};

class YamlReader {
 public:
  YamlReader(std::string_view text, const std::string& where) : where_(where) { split(text); }

  Yaml read() {
    if (lines_.empty()) throw InvalidInput(where_, "empty", "a YAML text");
    Yaml root = block(lines_[0].indent, 0);
    if (at_ < lines_.size()) fail(lines_[at_], "its indentation fits nothing above");
    return root;
  }

 private:
  [[noreturn]] void fail(const Line& line, const std::string& hint) const { fail(line.number, line.text, hint); }
  [[noreturn]] void fail(int number, std::string_view text, const std::string& hint) const {
    throw InvalidInput(where_ + ": line " + std::to_string(number), '"' + std::string(text.substr(0, 80)) + '"', hint);
  }

  void split(std::string_view text) {
    for (int number = 1; !text.empty(); ++number) {
      const std::size_t end = text.find('\n');
      std::string_view line = text.substr(0, end);
      text.remove_prefix(end == text.npos ? text.size() : end + 1);
      line = line.substr(0, comment(line));
      while (!line.empty() && (line.back() == ' ' || line.back() == '\r' || line.back() == '\t')) line.remove_suffix(1);
      const std::size_t indent = line.find_first_not_of(' ');
      if (indent == line.npos) continue;
      const Line own{indent, line.substr(indent), number};
      if (own.text.front() == '\t') fail(own, "tabs do not indent in YAML; use spaces");
      if (own.text == "---" && lines_.empty()) continue;
      if (own.text == "---" || own.text == "..." || own.text.front() == '%') fail(own, "one document, no directives");
      lines_.push_back(own);
    }
  }

  // Where the comment begins; quotes hide it.
  static std::size_t comment(std::string_view line) {
    char quote = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const char c = line[i];
      const bool begins = i == 0 || line[i - 1] == ' ' || line[i - 1] == '\t' || line[i - 1] == '[';
      if (quote != 0)
        quote = c == quote ? '\0' : quote;
      else if ((c == '"' || c == '\'') && begins)
        quote = c;
      else if (c == '#' && begins)
        return i;
    }
    return line.npos;
  }

  static bool is_item(std::string_view text) { return text == "-" || text.starts_with("- "); }

  // Where the key ends: at its colon; npos: no key.
  static std::size_t key_end(std::string_view text) {
    std::size_t from = 0;
    if (text.front() == '"' || text.front() == '\'') {
      from = text.find(text.front(), 1);
      if (from == text.npos) return text.npos;
    }
    const std::size_t colon = text.find(": ", from);
    return colon != text.npos ? colon : text.ends_with(':') ? text.size() - 1 : text.npos;
  }

  // What stands at this indentation from here on.
  Yaml block(std::size_t indent, int depth) {
    const Line& first = lines_[at_];
    if (depth > 32) fail(first, "at most 32 levels");
    if (is_item(first.text)) return list(indent, depth);
    if (key_end(first.text) != first.text.npos) return map(indent, depth);
    ++at_;
    return value(first.text, first.number);
  }

  Yaml list(std::size_t indent, int depth) {
    Yaml out{Yaml::Kind::list, lines_[at_].number, "", {}, {}};
    while (at_ < lines_.size() && lines_[at_].indent == indent && is_item(lines_[at_].text)) {
      Line& line = lines_[at_];
      const std::size_t rest = line.text.find_first_not_of(' ', 1);
      if (rest == line.text.npos) {
        ++at_;
        if (at_ == lines_.size() || lines_[at_].indent <= indent) fail(line, "an item without a value");
        out.list.push_back(block(lines_[at_].indent, depth + 1));
      } else {  // the rest of the line is a line of its own, further in
        line.text.remove_prefix(rest);
        line.indent += rest;
        out.list.push_back(block(line.indent, depth + 1));
      }
    }
    return out;
  }

  Yaml map(std::size_t indent, int depth) {
    Yaml out{Yaml::Kind::map, lines_[at_].number, "", {}, {}};
    while (at_ < lines_.size() && lines_[at_].indent == indent && !is_item(lines_[at_].text)) {
      const Line line = lines_[at_];
      const std::size_t end = key_end(line.text);
      if (end == line.text.npos) fail(line, "\"key: value\"");
      const std::string key = value(line.text.substr(0, end), line.number).text;
      if (key.empty() || out.find(key) != nullptr) fail(line, "a key, and each once");
      std::string_view rest = line.text.substr(end + 1);
      rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
      ++at_;
      if (!rest.empty()) {
        out.map.push_back({key, value(rest, line.number)});
        continue;
      }
      // A list may stand as far out as its key.
      const bool inside = at_ < lines_.size() &&
                          (lines_[at_].indent > indent || (lines_[at_].indent == indent && is_item(lines_[at_].text)));
      out.map.push_back(
          {key, inside ? block(lines_[at_].indent, depth + 1) : Yaml{Yaml::Kind::text, line.number, "", {}, {}}});
    }
    return out;
  }

  // Of items with commas between; quotes hide them.
  static std::size_t comma_after_item(std::string_view text) {
    const std::size_t first = text.find_first_not_of(' ');
    const char quote = text[first];
    if (quote != '"' && quote != '\'') return text.find(',');
    const std::size_t end = text.find(quote, first + 1);
    return end == text.npos ? text.npos : text.find(',', end);
  }

  Yaml value(std::string_view text, int number) const {
    Yaml out{Yaml::Kind::text, number, "", {}, {}};
    if (text.empty()) return out;
    const char c = text.front();
    if (c == '"' || c == '\'') {
      if (text.size() < 2 || text.back() != c || text.substr(1, text.size() - 2).find_first_of("\"'\\") != text.npos)
        fail(number, text, "a quoted text in one line, without quotes and backslashes in it");
      out.text = text.substr(1, text.size() - 2);
    } else if (c == '[') {
      if (text.back() != ']') fail(number, text, "a list in one line: [a, b]");
      out.kind = Yaml::Kind::list;
      std::string_view inner = text.substr(1, text.size() - 2);
      while (inner.find_first_not_of(' ') != inner.npos) {
        const std::size_t comma = comma_after_item(inner);
        std::string_view item = inner.substr(0, comma);
        inner.remove_prefix(comma == inner.npos ? inner.size() : comma + 1);
        while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
        while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
        if (item.empty()) fail(number, text, "an empty item");
        const bool quoted = item.front() == '"' || item.front() == '\'';
        if (!quoted && item.find_first_of("[]{}") != item.npos)
          fail(number, text, "lists in lists are not read, and names with brackets stand in quotes");
        out.list.push_back(value(item, number));
      }
    } else if (c == '{' && text.back() == '}' && text.find_first_not_of(' ', 1) == text.size() - 1) {
      out.kind = Yaml::Kind::map;
    } else if (std::string_view("{&*!|>@`%").find(c) != std::string_view::npos) {
      fail(number, text, "anchors, tags, block texts and {maps in one line} are not read");
    } else {
      out.text = text;
    }
    return out;
  }

  const std::string& where_;
  std::vector<Line> lines_;
  std::size_t at_ = 0;
};

}  // namespace

Yaml read_yaml_subset(std::string_view text, const std::string& where) { return YamlReader(text, where).read(); }

}  // namespace topomoe
