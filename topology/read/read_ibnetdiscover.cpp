// What `ibnetdiscover` prints: a section for each switch and adapter with a line for each cable, or with -p a line for
// each port. Each cable stands there from both its ends, and is taken from the first.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "topology/read/ib_graph.hpp"
#include "topology/read/network_formats.hpp"
#include "topology/read/readers.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Data rate of one lane after line coding, in Gbit/s (InfiniBand Architecture Specification, volume 2).
struct LaneSpeed {
  std::string_view name;
  double Gbps;
};
constexpr LaneSpeed kLaneSpeeds[] = {{"SDR", 2},  {"DDR", 4},  {"QDR", 8},   {"FDR10", 10}, {"FDR", 14.0625 * 64 / 66},
                                     {"EDR", 25}, {"HDR", 50}, {"NDR", 100}, {"XDR", 200}};

// "4xHDR"; 0: not known.
double GBps_of(std::string_view width, std::string_view speed) {
  int lanes = 0;
  const auto [end, error] = std::from_chars(width.data(), width.data() + width.size(), lanes);
  if (error != std::errc{} || lanes < 1 || lanes > 12 || end != width.data() + width.size() - 1 || *end != 'x')
    return 0;
  for (const LaneSpeed& own : kLaneSpeeds)
    if (own.name == speed) return lanes * own.Gbps / 8;
  return 0;
}

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> out;
  while (true) {
    const std::size_t begin = text.find_first_not_of(" \t\r");
    if (begin == text.npos) return out;
    text.remove_prefix(begin);
    const std::size_t end = std::min(text.find_first_of(" \t\r"), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r"), end = text.find_last_not_of(" \t\r");
  return begin == text.npos ? "" : std::string(text.substr(begin, end - begin + 1));
}

std::string guid_of(std::string_view text) {
  if (text.starts_with("0x")) text.remove_prefix(2);
  return std::string(text);
}

struct End {
  bool is_switch = false;
  std::string guid, name;
  int port = 0;
};

class IbReader {
 public:
  explicit IbReader(const std::string& where) : where_(where) {}

  Topology read(std::string_view text) {
    while (!text.empty()) {
      const std::size_t end = text.find('\n');
      ++number_;
      line(text.substr(0, end));
      text.remove_prefix(end == text.npos ? text.size() : end + 1);
    }
    finish();
    return topology_of(graph_, where_);
  }

 private:
  [[noreturn]] void fail(std::string_view value, const std::string& hint) const {
    throw InvalidInput(fmt::format("{}: line {}", where_, number_), '"' + std::string(value.substr(0, 100)) + '"',
                       hint);
  }

  void line(std::string_view text) {
    const std::vector<std::string_view> word = words(text);
    if (word.empty() || word[0].front() == '#') return;
    if (word[0] == "CA" || word[0] == "SW" || word[0] == "RT") return port_line(text, word);
    if (word[0] == "Switch" || word[0] == "Ca" || word[0] == "Rt") return section(text, word);
    if (word[0].front() == '[') return cable_line(text);
    if (word[0].find('=') == word[0].npos) fail(text, "a line of ibnetdiscover: Switch, Ca, [port], or with -p CA, SW");
  }

  std::string_view next_quoted(std::string_view& text, char quote) const {
    const std::size_t begin = text.find(quote);
    const std::size_t end = begin == text.npos ? text.npos : text.find(quote, begin + 1);
    if (end == text.npos) fail(text, fmt::format("a text in {} {}", quote, quote));
    const std::string_view out = text.substr(begin + 1, end - begin - 1);
    text.remove_prefix(end + 1);
    return out;
  }
  int port_number(std::string_view text) const {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value > 65535) fail(text, "a port");
    return value;
  }

  // "CA 134 1 0x7cfe... 4x EDR - SW 1719 10 0x7cfe... ( 'o0001 HCA-1' - 'leaf' )"; without a cable: "SW ... 'leaf'".
  void port_line(std::string_view text, const std::vector<std::string_view>& word) {
    if (word.size() < 7) fail(text, "a line of ibnetdiscover -p has a type, LID, port, GUID, width, speed and a name");
    End own{word[0] == "SW", guid_of(word[3]), "", port_number(word[2])};
    const bool has_cable = word[6] == "-";
    if (!has_cable) {
      own.name = trimmed(next_quoted(text, '\''));
      if (own.is_switch) add_switch(own);
      return;
    }
    if (word.size() < 13 || word[11] != "(")
      fail(text, "after \"-\" the other end's type, LID, port, GUID, and ( names )");
    End far{word[7] == "SW", guid_of(word[10]), "", port_number(word[9])};
    own.name = trimmed(next_quoted(text, '\''));
    far.name = trimmed(next_quoted(text, '\''));
    add_cable(own, far, GBps_of(word[4], word[5]), word[0] == "RT" || word[7] == "RT");
  }

  // `Switch 36 "S-7cfe..." # "leaf" enhanced port 0 lid 1719 lmc 0`
  void section(std::string_view text, const std::vector<std::string_view>& word) {
    section_ = End{word[0] == "Switch", "", "", 0};
    is_router_ = word[0] == "Rt";
    section_->guid = node_guid(next_quoted(text, '"'));
    section_->name = trimmed(next_quoted(text, '"'));
    if (section_->is_switch) add_switch(*section_);
  }
  std::string node_guid(std::string_view text) const {
    if (text.size() < 3 || text[1] != '-') fail(text, "\"S-GUID\" or \"H-GUID\"");
    return std::string(text.substr(2));
  }

  // `[10] "H-7cfe..."[1](7cfe...) # "o0001 HCA-1" lid 134 4xEDR`; of an adapter: `[1](7cfe...) "S-7cfe..."[10] # lid
  // ...`
  void cable_line(std::string_view text) {
    if (!section_) fail(text, "a port before any Switch or Ca");
    std::string_view rest = text;
    End own = *section_;
    own.port = port_number(bracketed(rest));
    End far;
    const std::string_view node = next_quoted(rest, '"');
    far.is_switch = node.starts_with("S-");
    far.guid = node_guid(node);
    far.port = port_number(bracketed(rest));
    const std::string_view speed = words(rest).empty() ? "" : words(rest).back();
    far.name = trimmed(next_quoted(rest, '"'));
    const std::size_t x = speed.find('x');
    const double GBps = x == speed.npos ? 0 : GBps_of(speed.substr(0, x + 1), speed.substr(x + 1));
    add_cable(own, far, GBps, is_router_ || node.starts_with("R-"));
  }
  std::string_view bracketed(std::string_view& text) const {
    const std::size_t begin = text.find('['), end = text.find(']');
    if (begin == text.npos || end == text.npos || end < begin) fail(text, "[port]");
    const std::string_view out = text.substr(begin + 1, end - begin - 1);
    text.remove_prefix(end + 1);
    return out;
  }

  void add_switch(const End& own) {
    if (graph_.switches.emplace(own.guid, own.name).second) graph_.order.push_back(own.guid);
  }

  void add_cable(const End& a, const End& b, double GBps, bool router) {
    for (const End* end : {&a, &b})
      if (end->is_switch) add_switch(*end);
    std::pair near(a.guid, a.port), far(b.guid, b.port);
    if (far < near) std::swap(near, far);
    if (a.guid == b.guid && a.port == b.port) fail(a.guid, "a cable from a port to itself");
    if (!seen_.emplace(std::move(near), std::move(far)).second) return;
    if (router) {
      ++routers_;
    } else if (a.is_switch && b.is_switch) {
      IbGraph::Cables& all = graph_.cables[std::minmax(a.guid, b.guid)];
      ++all.count;
      all.GBps += GBps;
      all.known = all.known && GBps > 0;
    } else if (a.is_switch || b.is_switch) {
      add_port(a.is_switch ? b : a, a.is_switch ? a : b, GBps);
    } else {
      add_port(a, b, GBps);  // two adapters without a switch
      fail(a.name, fmt::format("is joined to \"{}\" without a switch: no tree", b.name));
    }
  }

  void add_port(const End& adapter, const End& leaf, double GBps) {
    if (adapter.name.find("Aggregation Node") != std::string::npos) {
      ++aggregators_;
      return;
    }
    const std::vector<std::string_view> word = words(adapter.name);
    // An adapter that nobody named describes its model: "MT4123 ConnectX6 Mellanox Technologies".
    const bool is_model = adapter.name.find("Mellanox Technologies") != std::string::npos || word.empty();
    IbGraph::Port port;
    port.host = is_model ? "adapter-" + adapter.guid : std::string(word[0]);
    if (is_model) ++unnamed_;
    port.name = word.size() > 1 && !is_model ? std::string(word[1]) : "";
    if (adapter.port > 1) port.name += fmt::format("/{}", adapter.port);
    port.leaf = leaf.guid;
    port.GBps = GBps;
    graph_.ports.push_back(std::move(port));
  }

  void finish() {
    const auto say = [&](int count, const char* what) {
      if (count > 0) graph_.warnings.push_back(fmt::format("{} {}", count, what));
    };
    say(aggregators_, "aggregation nodes inside switches are no hosts: left out");
    say(unnamed_, "adapters name no host: each counts as a host of its own");
    say(routers_, "cables to routers: left out");
  }

  const std::string& where_;
  int number_ = 0, aggregators_ = 0, unnamed_ = 0, routers_ = 0;
  bool is_router_ = false;
  std::optional<End> section_;
  std::set<std::pair<std::pair<std::string, int>, std::pair<std::string, int>>> seen_;
  IbGraph graph_;
};

}  // namespace

bool is_ibnetdiscover(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::vector<std::string_view> word = words(text.substr(0, end));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (word.empty() || word[0].front() == '#') continue;
    return ((word[0] == "CA" || word[0] == "SW") && word.size() > 6 && word[3].starts_with("0x")) ||
           word[0].starts_with("vendid=") || (word[0] == "Switch" && word.size() > 2);
  }
  return false;
}

Topology read_ibnetdiscover(std::string_view text, const std::string& where) { return IbReader(where).read(text); }

}  // namespace topomoe
