#include "topology/read/simai_network.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "topology/read/network_formats.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxBytes = 256U << 20;

using Words = std::vector<std::string_view>;

// At most `most` of them.
Words words(std::string_view line, std::size_t most) {
  constexpr std::string_view kSpace = " \t\r\f\v";
  Words out;
  while (out.size() < most) {
    const std::size_t begin = line.find_first_not_of(kSpace);
    if (begin == line.npos) break;
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find_first_of(kSpace), line.size());
    out.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
  return out;
}

std::optional<int> whole(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// "2880Gbps" -> 2880 and "Gbps".
std::optional<double> number(std::string_view text, std::string_view& unit) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc{} || !std::isfinite(value) || value < 0) return std::nullopt;
  unit = text.substr(static_cast<std::size_t>(end - text.data()));
  return value;
}

// ns-3's units of rates: k, M, G, T, also with i; b or B; ps or /s.
std::optional<double> GBps_of(std::string_view text) {
  std::string_view unit;
  const std::optional<double> value = number(text, unit);
  if (!value || unit.empty()) return std::nullopt;
  double scale = 1e-9;
  constexpr std::string_view kPrefixes = "kMGT";
  const char first = unit.front() == 'K' ? 'k' : unit.front();
  if (const std::size_t power = kPrefixes.find(first); power != kPrefixes.npos) {
    unit.remove_prefix(1);
    const bool binary = unit.starts_with('i');
    if (binary) unit.remove_prefix(1);
    scale *= std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  if (unit == "bps" || unit == "b/s") return *value * scale / 8;
  if (unit == "Bps" || unit == "B/s") return *value * scale;
  return std::nullopt;
}

// A number alone is in seconds, as ns-3 takes it.
std::optional<double> us_of(std::string_view text) {
  std::string_view unit;
  const std::optional<double> value = number(text, unit);
  if (!value) return std::nullopt;
  constexpr std::pair<std::string_view, double> kUnits[] = {{"s", 1e6},   {"ms", 1e3},  {"us", 1}, {"ns", 1e-3},
                                                            {"ps", 1e-6}, {"fs", 1e-9}, {"", 1e6}};
  for (const auto& [name, us] : kUnits)
    if (unit == name) return *value * us;
  return std::nullopt;
}

class SimaiParser {
 public:
  SimaiParser(std::string_view text, const std::string& where) : rest_(text), where_(where) {
    if (text.size() > kMaxBytes) throw InvalidInput(where, fmt::format("{} bytes", text.size()), "at most 256 MiB");
  }

  SimaiNetwork run() {
    read_header();
    read_switches();
    while (next_line())
      if (!read_link()) break;
    const auto found = network_.links.size();
    const auto said = static_cast<std::size_t>(links_);
    if (found < said)
      throw InvalidInput(where_, fmt::format("{} links", found),
                         fmt::format("the first line says {}: cut off, or miscounted", said));
    if (found > said)
      warn(fmt::format("the first line says {} links and there are {}: all are taken (simulators stop after {})", said,
                       found, said));
    if (lossy_ > 0) warn(fmt::format("{} links with an error rate: loss is not modelled", lossy_));
    return std::move(network_);
  }

 private:
  using Kind = SimaiNetwork::Kind;

  [[noreturn]] void fail(const std::string& found, const std::string& hint) const {
    throw InvalidInput(fmt::format("{}: line {}", where_, line_), found, hint);
  }
  [[noreturn]] void fail_at(std::string_view found, const std::string& hint) const {
    fail(fmt::format("\"{:.40}\"", found), hint);
  }
  void warn(const std::string& line) { network_.warnings.push_back(line); }

  // The next line with something in it.
  bool next_line() {
    while (!rest_.empty()) {
      const std::size_t end = rest_.find('\n');
      text_ = rest_.substr(0, end);
      rest_.remove_prefix(end == rest_.npos ? rest_.size() : end + 1);
      ++line_;
      if (text_.find_first_not_of(" \t\r\f\v") != text_.npos) return true;
    }
    return false;
  }

  int count(std::string_view text, const char* what, int most) const {
    const std::optional<int> value = whole(text);
    if (!value || *value > most) fail_at(text, fmt::format("{}: a whole number, at most {}", what, most));
    return *value;
  }

  void read_header() {
    if (!next_line()) throw InvalidInput(where_, "empty", "nodes, switches and links in the first line");
    const Words own = words(text_, 16);
    if (own.size() != 3 && own.size() < 5)
      fail_at(text_,
              "nodes, GPUs of a server, NVSwitches, switches, links and kind of GPU (SimAI), or nodes, switches and "
              "links (ns-3)");
    network_.has_gpus = own.size() != 3;
    const int nodes = count(own[0], "nodes", SimaiNetwork::kMostNodes);
    if (network_.has_gpus) {
      network_.gpus_per_server = count(own[1], "GPUs of a server", SimaiNetwork::kMostNodes);
      nvswitches_ = count(own[2], "NVSwitches", nodes);
      switches_ = count(own[3], "switches", nodes);
      links_ = count(own[4], "links", SimaiNetwork::kMostLinks);
      if (own.size() > 5) network_.gpu_type = own[5];
      if (own.size() > 6) warn("the first line has more than six fields: the rest was left out");
    } else {
      switches_ = count(own[1], "switches", nodes);
      links_ = count(own[2], "links", SimaiNetwork::kMostLinks);
    }
    if (nvswitches_ + switches_ >= nodes)
      fail(fmt::format("{} nodes, {} of them switches", nodes, nvswitches_ + switches_),
           network_.has_gpus ? "the rest are GPUs: at least one" : "the rest are hosts: at least one");
    network_.nodes.assign(static_cast<std::size_t>(nodes), Kind::end);
  }

  void read_switches() {
    const int wanted = nvswitches_ + switches_;
    for (int found = 0; found < wanted;) {
      if (!next_line()) fail("cut off", fmt::format("{} numbers of switches, as the first line says", wanted));
      for (const std::string_view word : words(text_, static_cast<std::size_t>(wanted) + 1)) {
        const std::optional<int> node = whole(word);
        if (found == wanted || !node)
          fail_at(word,
                  fmt::format("{} numbers of switches, as the first line says; this is number {}", wanted, found + 1));
        Kind& kind = kind_of(*node, word);
        if (kind != Kind::end) fail_at(word, "this switch is listed twice");
        kind = found < nvswitches_ ? Kind::nvswitch : Kind::network_switch;
        if (kind == Kind::network_switch) network_.switches.push_back(*node);
        ++found;
      }
    }
  }

  Kind& kind_of(int node, std::string_view word) {
    if (static_cast<std::size_t>(node) >= network_.nodes.size())
      fail_at(word, fmt::format("nodes are 0 to {}", network_.nodes.size() - 1));
    return network_.nodes[static_cast<std::size_t>(node)];
  }

  // False where it is no link and none is missing: people write notes below the last one.
  bool read_link() {
    const Words own = words(text_, 6);
    SimaiNetwork::Link link;
    link.line = line_;
    const bool all_there = network_.links.size() >= static_cast<std::size_t>(links_);
    const std::optional<int> src = whole(own[0]), dst = own.size() < 2 ? std::nullopt : whole(own[1]);
    const auto there = [&](std::optional<int> node) {
      return node && (!all_there || static_cast<std::size_t>(*node) < network_.nodes.size());
    };
    if (!there(src) || !there(dst) || own.size() < 4 || own.size() > 5) {
      if (!all_there)
        fail_at(text_, fmt::format("a link: two nodes, rate, delay, error rate; the first line says {}, this is "
                                   "number {}",
                                   links_, network_.links.size() + 1));
      if (own[0].front() != '#') warn(fmt::format("line {} and what follows is no link and was left out", line_));
      return false;
    }
    kind_of(*src, own[0]);
    kind_of(*dst, own[1]);
    link.src = *src;
    link.dst = *dst;
    if (link.src == link.dst) fail_at(text_, "a link joins two nodes");
    const std::optional<double> GBps = GBps_of(own[2]), us = us_of(own[3]);
    if (!GBps || !(*GBps > 0)) fail_at(own[2], "a rate above 0, such as 400Gbps");
    if (!us) fail_at(own[3], "a delay, such as 0.0005ms");
    link.GBps = *GBps;
    link.latency_us = *us;
    if (own.size() == 5) {
      double rate = 0;
      const auto [end, error] = std::from_chars(own[4].data(), own[4].data() + own[4].size(), rate);
      if (error != std::errc{} || end != own[4].data() + own[4].size() || !(rate >= 0) || rate > 1)
        fail_at(own[4], "an error rate, 0 to 1");
      lossy_ += rate > 0 ? 1 : 0;
    }
    if (network_.links.size() >= static_cast<std::size_t>(SimaiNetwork::kMostLinks))
      fail(fmt::format("more than {} links", SimaiNetwork::kMostLinks), "take a part of it");
    network_.links.push_back(link);
    return true;
  }

  std::string_view rest_, text_;
  const std::string& where_;
  SimaiNetwork network_;
  int line_ = 0, nvswitches_ = 0, switches_ = 0, links_ = 0, lossy_ = 0;
};

}  // namespace

// Three numbers, or five and more, in the first line, and a rate somewhere below.
bool is_simai_network(std::string_view text) {
  const Words own = words(text.substr(0, text.find('\n')), 16);
  if (own.size() != 3 && own.size() < 5) return false;
  for (std::size_t i = 0; i < std::min<std::size_t>(own.size(), 5); ++i)
    if (!whole(own[i])) return false;
  return text.find("bps") != text.npos || text.find("b/s") != text.npos;
}

SimaiNetwork parse_simai_network(std::string_view text, const std::string& where) {
  return SimaiParser(text, where).run();
}

}  // namespace topomoe
