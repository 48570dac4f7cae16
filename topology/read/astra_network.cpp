#include "topology/read/astra_network.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "topology/read/network_formats.hpp"
#include "topology/read/yaml_subset.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxBytes = 1U << 20;
constexpr std::size_t kMaxDimensions = 16;  // ASTRA-sim's own examples have up to five

class AstraParser {
 public:
  explicit AstraParser(const std::string& where) : where_(where) {}

  AstraNetwork run(std::string_view text) {
    if (text.size() > kMaxBytes)
      throw InvalidInput(where_, fmt::format("{} bytes", text.size()), "at most 1 MiB; such files have some lines");
    const Yaml root = text.find_first_not_of(" \t\r\n") < text.size() && text[text.find_first_not_of(" \t\r\n")] == '{'
                          ? from_json(text)
                          : read_yaml_subset(text, where_);
    if (root.kind != Yaml::Kind::map)
      throw InvalidInput(where_, "no keys", "ASTRA-sim's network has topology, npus_count, bandwidth and latency");
    for (const auto& [key, value] : root.map)
      if (std::find(std::begin(kKeys), std::end(kKeys), key) == std::end(kKeys))
        network_.warnings.push_back(fmt::format("key \"{:.40}\" is not known here and was left out", key));
    const Yaml& topology = list(root, "topology");
    network_.dimensions.resize(topology.list.size());
    for (std::size_t i = 0; i < network_.dimensions.size(); ++i) {
      AstraDimension& own = network_.dimensions[i];
      own.kind = kind(topology.list[i], i);
      own.npus = static_cast<int>(number(root, "npus_count", i, 2, 1e7, true));
      own.GBps = number(root, "bandwidth", i, 0, 1e5, false);
      if (!(own.GBps > 0)) fail(root, "bandwidth", i, "more than 0 GB/s");
      own.latency_ns = number(root, "latency", i, 0, 1e9, false);
    }
    return std::move(network_);
  }

 private:
  // Later versions write the same keys as JSON.
  Yaml from_json(std::string_view text) const {
    const nlohmann::ordered_json json = nlohmann::ordered_json::parse(text, nullptr, false);
    if (!json.is_object()) throw InvalidInput(where_, "no JSON", "cut off or damaged?");
    Yaml root{Yaml::Kind::map, 1, "", {}, {}};
    const auto plain = [](const nlohmann::ordered_json& value) {
      return Yaml{Yaml::Kind::text,
                  1,
                  value.is_string() ? value.get<std::string>()
                                    : value.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace),
                  {},
                  {}};
    };
    for (const auto& [key, value] : json.items()) {
      Yaml own = value.is_array() ? Yaml{Yaml::Kind::list, 1, "", {}, {}} : plain(value);
      if (value.is_array())
        for (const auto& item : value) own.list.push_back(plain(item));
      root.map.emplace_back(key, std::move(own));
    }
    return root;
  }

  static constexpr const char* kKeys[] = {"topology", "npus_count", "bandwidth", "latency"};

  const Yaml& list(const Yaml& root, const char* key) const {
    const Yaml* found = root.find(key);
    if (found == nullptr)
      throw InvalidInput(fmt::format("{}: {}", where_, key), "missing",
                         "topology, npus_count, bandwidth and latency are lists of one item for each dimension");
    if (found->kind != Yaml::Kind::list || found->list.empty())
      throw InvalidInput(fmt::format("{}: line {}: {}", where_, found->line, key), "no list",
                         "a list of one item for each dimension, innermost first: [ Switch, Ring ]");
    if (found->list.size() > kMaxDimensions)
      throw InvalidInput(fmt::format("{}: line {}: {}", where_, found->line, key),
                         fmt::format("{} dimensions", found->list.size()), fmt::format("at most {}", kMaxDimensions));
    return *found;
  }

  [[noreturn]] void fail(const Yaml& root, const char* key, std::size_t i, const std::string& hint) const {
    const Yaml& item = root.find(key)->list[i];
    throw InvalidInput(fmt::format("{}: line {}: {}[{}]", where_, item.line, key, i),
                       item.kind == Yaml::Kind::text ? fmt::format("\"{:.40}\"", item.text) : "no number", hint);
  }

  AstraDimension::Kind kind(const Yaml& item, std::size_t i) const {
    using Kind = AstraDimension::Kind;
    for (const Kind known : {Kind::ring, Kind::fully_connected, Kind::switched})
      if (item.kind == Yaml::Kind::text && item.text == name(known)) return known;
    throw InvalidInput(fmt::format("{}: line {}: topology[{}]", where_, item.line, i),
                       fmt::format("\"{:.40}\"", item.text), "one of Ring, FullyConnected, Switch");
  }

  double number(const Yaml& root, const char* key, std::size_t i, double low, double high, bool whole) const {
    const Yaml& values = list(root, key);
    if (values.list.size() != network_.dimensions.size())
      throw InvalidInput(fmt::format("{}: line {}: {}", where_, values.line, key),
                         fmt::format("{} items", values.list.size()),
                         fmt::format("one for each of the {} dimensions of \"topology\"", network_.dimensions.size()));
    const Yaml& item = values.list[i];
    std::string_view text = item.text;
    if (text.starts_with('+')) text.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const char* unit = whole ? "a whole number" : std::string_view(key) == "latency" ? "a number of ns" : "GB/s";
    if (item.kind != Yaml::Kind::text || error != std::errc{} || end != text.data() + text.size()) {
      std::string lower(item.text);
      std::transform(lower.begin(), lower.end(), lower.begin(),
                     [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
      if (lower == "tbd") fail(root, key, i, fmt::format("{}: this file was never filled in", unit));
      fail(root, key, i, unit);
    }
    if (!(value >= low) || value > high || (whole && value != std::floor(value)))
      fail(root, key, i, fmt::format("{}, {} to {}", unit, low, high));
    return value;
  }

  const std::string& where_;
  AstraNetwork network_;
};

}  // namespace

const char* name(AstraDimension::Kind kind) {
  switch (kind) {
    case AstraDimension::Kind::ring: return "Ring";
    case AstraDimension::Kind::fully_connected: return "FullyConnected";
    case AstraDimension::Kind::switched: return "Switch";
  }
  return "";
}

// "topology:" and "npus_count:" at the beginning of lines, in any order; of JSON, the keys.
bool is_astra_network(std::string_view text) {
  if (text.starts_with('{'))
    return text.size() <= kMaxBytes && text.find("\"npus_count\"") != text.npos &&
           text.find("\"topology\"") != text.npos;
  const auto has_line = [&](std::string_view key) {
    for (std::size_t at = text.find(key); at != text.npos; at = text.find(key, at + 1))
      if (at == 0 || text[at - 1] == '\n') return true;
    return false;
  };
  return has_line("topology:") && has_line("npus_count:");
}

AstraNetwork parse_astra_network(std::string_view text, const std::string& where) {
  return AstraParser(where).run(text);
}

}  // namespace topomoe
