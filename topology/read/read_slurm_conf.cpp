// Slurm's topology.conf, of topology/tree (SwitchName=) and topology/block (BlockName=): who stands below which switch.
//
// Ignored: LinkSpeed (Slurm gives it no unit and does not use it) and BlockSizes (what Slurm allocates, no hardware).
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "topology/read/host_list.hpp"
#include "topology/read/network_formats.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/switch_tree.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

struct Setting {
  std::string key, value;
};

class ConfReader {
 public:
  ConfReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Topology read() {
    while (!text_.empty()) {
      const std::string line = next_line();
      std::vector<Setting> settings = settings_of(line);
      if (!settings.empty()) add(settings);
    }
    if (tree_.switches.empty() && tree_.blocks.empty())
      fail("no switch and no block", "lines \"SwitchName=... Nodes=...\" or \"BlockName=... Nodes=...\"");
    tree_.no_rates =
        has_speeds_ ? "topology.conf names no rates; its LinkSpeed has no unit" : "topology.conf names no rates";
    return topology_of(tree_, where_);
  }

 private:
  [[noreturn]] void fail(const std::string& value, const std::string& hint) const {
    throw InvalidInput(field_.empty() ? where_ : field_, value, hint);
  }

  // With those that a backslash at the end joins to it, without comments.
  std::string next_line() {
    std::string line;
    field_ = fmt::format("{}: line {}", where_, number_ + 1);
    while (true) {
      const std::size_t end = text_.find('\n');
      std::string_view part = text_.substr(0, end);
      text_.remove_prefix(end == text_.npos ? text_.size() : end + 1);
      ++number_;
      const std::size_t hash = part.find('#');
      part = part.substr(0, hash);
      while (!part.empty() && is_space(part.back())) part.remove_suffix(1);
      if (part.find('\0') != part.npos) fail("a byte 0", "a text file; is this topology.conf?");
      const bool goes_on = hash == part.npos && part.ends_with('\\');
      if (goes_on) part.remove_suffix(1);
      line += part;
      if (!goes_on || text_.empty()) return line;
      line += ' ';
    }
  }

  std::vector<Setting> settings_of(std::string_view line) const {
    std::vector<Setting> settings;
    std::size_t at = 0;
    while (true) {
      while (at < line.size() && is_space(line[at])) ++at;
      if (at == line.size()) return settings;
      std::size_t end = at;
      while (end < line.size() && !is_space(line[end]) && line[end] != '=') ++end;
      const std::string key = lower(line.substr(at, end - at));
      if (end == line.size() || line[end] != '=' || key.empty())
        fail('"' + std::string(line.substr(at, 80)) + '"', "Key=value, no space around the \"=\"");
      at = ++end;
      const bool quoted = at < line.size() && line[at] == '"';
      if (quoted) {
        end = line.find('"', ++at);
        if (end == line.npos) fail('"' + std::string(line.substr(at, 80)) + '"', "a quote that does not end");
      } else {
        while (end < line.size() && !is_space(line[end])) ++end;
      }
      for (const Setting& other : settings)
        if (other.key == key) fail('"' + key + '"', "given twice in one line");
      settings.push_back({key, std::string(line.substr(at, end - at))});
      at = quoted ? end + 1 : end;
    }
  }

  void add(const std::vector<Setting>& settings) {
    const Setting& first = settings.front();
    std::string switches, hosts;
    const bool is_block = first.key == "blockname";
    for (const Setting& own : settings) {
      if (own.key == "switches" && !is_block)
        switches = own.value;
      else if (own.key == "nodes")
        hosts = own.value;
      else if (own.key == "linkspeed" && !is_block)
        has_speeds_ = true;
      else if (own.key == "blocksizes")
        check_block_sizes(own.value);
      else if (own.key == "include")
        fail("\"Include\"", "other files are not followed; give one file");
      else if (&own != &first || (own.key != "switchname" && !is_block))
        fail('"' + own.key + '"',
             "known: SwitchName= with Switches= Nodes= LinkSpeed=, BlockName= with Nodes=, BlockSizes=");
    }
    if (first.key == "blocksizes" && settings.size() == 1) return;
    if (first.key != "switchname" && !is_block)
      fail('"' + first.key + '"', "a line begins with SwitchName=, BlockName= or BlockSizes=");
    if (first.value.empty() || lower(first.value) == "default")
      fail('"' + first.value + '"', "the name of one switch or block; values of a DEFAULT line are not taken over");
    if (is_block) {
      tree_.blocks.push_back({first.value, field_, names(hosts)});
    } else {
      tree_.switches.push_back({first.value, field_, names(switches), names(hosts)});
    }
    if (tree_.switches.size() + tree_.blocks.size() > SwitchTree::kMostNames)
      fail(std::to_string(SwitchTree::kMostNames) + " lines and more", "no cluster has so many switches");
  }

  std::vector<std::string> names(const std::string& list) {
    std::vector<std::string> out;
    if (list.empty()) return out;
    add_host_list(list, field_, SwitchTree::kMostNames - std::min(SwitchTree::kMostNames, named_), out);
    named_ += out.size();
    return out;
  }

  void check_block_sizes(const std::string& list) const {
    for (const char c : list)
      if (c != ',' && (c < '0' || c > '9')) fail('"' + list + '"', "BlockSizes: whole numbers with commas between");
  }

  std::string_view text_;
  const std::string& where_;
  std::string field_;
  int number_ = 0;
  std::size_t named_ = 0;
  bool has_speeds_ = false;
  SwitchTree tree_;
};

}  // namespace

bool is_slurm_conf(std::string_view text) {
  while (true) {
    const std::size_t at = text.find_first_not_of(" \t\r\n");
    if (at == text.npos) return false;
    text.remove_prefix(at);
    if (text.front() != '#') break;
    text.remove_prefix(std::min(text.find('\n'), text.size()));
  }
  const std::string word = lower(text.substr(0, 12));
  return word.starts_with("switchname=") || word.starts_with("blockname=") || word.starts_with("blocksizes=");
}

Topology read_slurm_conf(std::string_view text, const std::string& where) { return ConfReader(text, where).read(); }

}  // namespace topomoe
