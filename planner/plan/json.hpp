// JSON of the planner's values, internal to planner/ and runtime/ (public headers stay free of JSON).
//
// Writing keeps the order of keys; reading is strict: a missing, unknown or ill-typed key throws
// InvalidInput that names it as "<where>: <key>", deeper ones as "<where>: schedule.forward[12].kind".
// Reading what was written gives back an equal value.
#pragma once

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "topomoe/error.hpp"
#include "topomoe/job.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/model.hpp"
#include "topomoe/routing.hpp"
#include "topomoe/schedule.hpp"

namespace topomoe {

using nlohmann::ordered_json;

// Readers refuse larger numbers as mistakes; products of two still fit into 64 bits.
constexpr int kMaxWidth = 1 << 24;
constexpr int kMaxLayers = 10'000;
constexpr int kMaxExperts = 1 << 16;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxTokens = 1 << 30;
constexpr int kMaxRanks = 1 << 24;
constexpr int kMaxChunks = 4096;
constexpr int kMaxKeys = 4096;  // of an object, which is searched from its begin
constexpr int kMaxDepth = 200;  // of values in values

ordered_json to_json(const Model&);
ordered_json to_json(const Job&);
ordered_json to_json(const RoutingProfile&);
ordered_json to_json(const Layout&);
// Buffers, maps and steps are referred to by name. Throws std::logic_error when a name is used twice.
ordered_json to_json(const Schedule&);
Model model_from_json(const ordered_json&, const std::string& where = "model");
Job job_from_json(const ordered_json&, const std::string& where = "job");
RoutingProfile routing_from_json(const ordered_json&, const std::string& where = "routing");
Layout layout_from_json(const ordered_json&, const std::string& where = "layout");
// Resolves names; what the schedule means is left to check(Schedule).
Schedule schedule_from_json(const ordered_json&, const std::string& where = "schedule");

// Parses text; comments are allowed. Throws InvalidInput("<where>: line 3, byte 57", ...).
inline ordered_json parse_json(std::string_view text, const std::string& where) {
  std::vector<int> keys(1, 0);  // so far, of the open object at each depth
  const auto refuse_wide = [&](int depth, ordered_json::parse_event_t event, ordered_json&) {
    const auto inside = static_cast<std::size_t>(depth) + 1;
    // The library copies a value level by level on the stack.
    if (depth > kMaxDepth)
      throw InvalidInput(where, "nested more than " + std::to_string(kMaxDepth) + " deep", "no file of ours is");
    if (event == ordered_json::parse_event_t::object_start) {
      keys.resize(std::max(keys.size(), inside + 1));
      keys[inside] = 0;
    }
    if (event == ordered_json::parse_event_t::key && ++keys[static_cast<std::size_t>(depth)] > kMaxKeys)
      throw InvalidInput(where, "an object of more than " + std::to_string(kMaxKeys) + " keys",
                         "no file of ours has one");
    return true;
  };
  try {
    return ordered_json::parse(text.begin(), text.end(), refuse_wide, true, true);
  } catch (const nlohmann::detail::parse_error& error) {
    const auto byte = std::min(error.byte, text.size());
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(byte), '\n');
    throw InvalidInput(where + ": line " + std::to_string(line) + ", byte " + std::to_string(error.byte),
                       byte >= text.size() ? "text ends early" : "not JSON",
                       "check that the file is whole and valid JSON");
  } catch (const nlohmann::detail::exception& error) {  // e.g. a number beyond double
    throw InvalidInput(where, "not usable JSON", error.what());
  }
}

// A short rendering of a value for messages. Nested ones are not dumped: that recurses as deep as they go.
inline std::string preview(const ordered_json& value) {
  if (value.is_structured() && !value.empty())
    return (value.is_array() ? "an array of " : "an object of ") + std::to_string(value.size());
  const std::string text = value.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

// Reads the keys of one object, and complains about those that nobody read.
class ObjectReader {
 public:
  ObjectReader(const ordered_json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw InvalidInput(where_, preview(object), "must be a JSON object");
  }
  bool has(const char* key) const { return object_.contains(key); }
  const ordered_json& at(const char* key) {
    const auto it = object_.find(key);
    if (it == object_.end()) throw InvalidInput(field(key), "missing", "this key is required");
    seen_.insert(key);
    return *it;
  }
  // Integral within [low, high]; 4096.0 and 1e3 count as integral.
  int integer(const char* key, int low, int high) { return as_integer(at(key), field(key), low, high); }
  double number(const char* key, double low, double high) {
    const ordered_json& value = at(key);
    if (!value.is_number()) throw InvalidInput(field(key), preview(value), "must be a number");
    const double number = value.get<double>();
    if (!(number >= low && number <= high))
      throw InvalidInput(field(key), preview(value),
                         "must lie in [" + ordered_json(low).dump() + ", " + ordered_json(high).dump() + "]");
    return number;
  }
  bool boolean(const char* key) {
    const ordered_json& value = at(key);
    if (!value.is_boolean()) throw InvalidInput(field(key), preview(value), "must be true or false");
    return value.get<bool>();
  }
  std::string text(const char* key) {
    const ordered_json& value = at(key);
    if (!value.is_string()) throw InvalidInput(field(key), preview(value), "must be a string");
    return value.get<std::string>();
  }
  std::string field(const char* key) const {
    return where_ + (where_.find(": ") == std::string::npos ? ": " : ".") + key;
  }
  // Call last: throws for the first key that was not read.
  void finish() const {
    std::string known;
    for (const std::string& key : seen_) known += (known.empty() ? "" : ", ") + key;
    for (const auto& item : object_.items())
      if (!seen_.count(item.key()))
        throw InvalidInput(field(item.key().c_str()), preview(item.value()), "unknown key; known: " + known);
  }

  static int as_integer(const ordered_json& value, const std::string& name, int low, int high) {
    const std::string range = "must be an integer in [" + std::to_string(low) + ", " + std::to_string(high) + "]";
    if (!value.is_number()) throw InvalidInput(name, preview(value), range);
    const double number = value.get<double>();  // exact for every int
    if (!(number >= low && number <= high) || number != std::floor(number))
      throw InvalidInput(name, preview(value), range);
    return static_cast<int>(number);
  }

 private:
  const ordered_json& object_;
  std::string where_;
  std::set<std::string> seen_;
};

}  // namespace topomoe
