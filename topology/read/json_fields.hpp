// Reads a JSON object key by key and refuses what is missing, of the wrong type or not known, each by its path.
// Internal to topology/: nlohmann's types stay out of include/.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

namespace topomoe {

class JsonFields {
 public:
  using Json = nlohmann::ordered_json;
  // path: "cluster.json: templates[0].gpu". The value must outlive the reader.
  JsonFields(const Json& value, std::string path);

  bool has(const std::string& key) {
    known_.insert(key);
    return value_.contains(key);
  }
  std::string path(const std::string& key) const;
  const Json& get(const std::string& key);  // InvalidInput where it is missing
  JsonFields object(const std::string& key) { return {get(key), path(key)}; }
  const Json& array(const std::string& key);

  double number(const std::string& key);
  double number(const std::string& key, double otherwise) { return has(key) ? number(key) : otherwise; }
  int integer(const std::string& key);
  int integer(const std::string& key, int otherwise) { return has(key) ? integer(key) : otherwise; }
  bool boolean(const std::string& key, bool otherwise);
  std::string text(const std::string& key);
  std::string text(const std::string& key, const std::string& otherwise) { return has(key) ? text(key) : otherwise; }

  // Call last: a key that nobody asked for is a typing error, not a comment.
  void refuse_unknown() const;

 private:
  const Json& value_;
  std::string path_;
  std::set<std::string> known_;
};

// Text of a value for messages, cut to a line.
std::string brief(const nlohmann::ordered_json& value);
// 450 rather than 450.0.
nlohmann::ordered_json json_number(double value);

}  // namespace topomoe
