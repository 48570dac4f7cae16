#include "topology/read/json_fields.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "topomoe/error.hpp"

namespace topomoe {

std::string brief(const nlohmann::ordered_json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

nlohmann::ordered_json json_number(double value) {
  if (std::abs(value) < 1e15 && value == std::floor(value)) return static_cast<std::int64_t>(value);
  return value;
}

JsonFields::JsonFields(const Json& value, std::string path) : value_(value), path_(std::move(path)) {
  if (!value.is_object()) throw InvalidInput(path_, brief(value), "must be an object { ... }");
}

std::string JsonFields::path(const std::string& key) const {
  return path_.ends_with(": ") || path_.empty() ? path_ + key : path_ + "." + key;
}

const JsonFields::Json& JsonFields::get(const std::string& key) {
  known_.insert(key);
  const auto at = value_.find(key);
  if (at == value_.end()) throw InvalidInput(path(key), "missing", "add the key");
  return *at;
}

const JsonFields::Json& JsonFields::array(const std::string& key) {
  const Json& value = get(key);
  if (!value.is_array()) throw InvalidInput(path(key), brief(value), "must be an array [ ... ]");
  return value;
}

double JsonFields::number(const std::string& key) {
  const Json& value = get(key);
  if (!value.is_number()) throw InvalidInput(path(key), brief(value), "must be a number");
  const double number = value.get<double>();
  if (!std::isfinite(number)) throw InvalidInput(path(key), brief(value), "must be a finite number");
  return number;
}

int JsonFields::integer(const std::string& key) {
  const double value = number(key);
  if (value != std::floor(value) || std::abs(value) > std::numeric_limits<int>::max())
    throw InvalidInput(path(key), brief(get(key)), "must be a whole number below 2^31");
  return static_cast<int>(value);
}

bool JsonFields::boolean(const std::string& key, bool otherwise) {
  if (!has(key)) return otherwise;
  const Json& value = get(key);
  if (!value.is_boolean()) throw InvalidInput(path(key), brief(value), "must be true or false");
  return value.get<bool>();
}

std::string JsonFields::text(const std::string& key) {
  const Json& value = get(key);
  if (!value.is_string()) throw InvalidInput(path(key), brief(value), "must be a text \"...\"");
  return value.get<std::string>();
}

void JsonFields::refuse_unknown() const {
  for (const auto& [key, value] : value_.items())
    if (!known_.count(key))
      throw InvalidInput(path(key), brief(value), fmt::format("unknown key; known here: {}", fmt::join(known_, ", ")));
}

}  // namespace topomoe
