// A fabric in one line: "fat-tree:hosts_per_leaf=16,spine_count=8".
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "topology/read/plain_text.hpp"
#include "topomoe/build_fabric.hpp"
#include "topomoe/compose.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::array<std::string_view, 4> kFamilies{"fat-tree", "rail-optimised", "dragonfly-plus", "torus"};
constexpr std::string_view kAmerican = "rail-optimized";

// The fields that are given, by name; each is asked for once, and what nobody asked for is refused.
class Fields {
 public:
  Fields(const std::string& family, std::string_view text) : family_(family) {
    while (!text.empty()) {
      const std::size_t end = std::min(text.find(','), text.size());
      const std::string_view field = text.substr(0, end);
      const std::size_t equals = field.find('=');
      if (equals == std::string_view::npos || equals == 0)
        throw InvalidInput(family_, fmt::format("\"{}\"", field), "name=value, separated by commas");
      if (!given_.emplace(field.substr(0, equals), field.substr(equals + 1)).second)
        throw InvalidInput(family_ + "." + std::string(field.substr(0, equals)), "given twice", "once is enough");
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }

  void take(const char* name, int& value) { number(name, value, "a whole number of at most 2147483647"); }
  void take(const char* name, double& value) { number(name, value, "a number"); }
  void take(const char* name, bool& value) {
    if (const std::string* text = find(name)) {
      if (*text != "true" && *text != "false") refuse(name, *text, "true or false");
      value = *text == "true";
    }
  }
  // "4x4x2"
  void take(const char* name, std::vector<int>& values) {
    const std::string* text = find(name);
    if (text == nullptr) return;
    const char* at = text->data();
    const char* const end = at + text->size();
    for (;;) {
      int value = 0;
      const auto [stop, error] = std::from_chars(at, end, value);
      if (error != std::errc{}) refuse(name, *text, "whole numbers with x between them: 4x4x2");
      values.push_back(value);
      if (stop == end) return;
      if (*stop != 'x') refuse(name, *text, "whole numbers with x between them: 4x4x2");
      at = stop + 1;
    }
  }

  // After all have been taken.
  void require(const char* name) const {
    if (given_.find(name) == given_.end())
      throw InvalidInput(family_ + "." + name, "not given", "it has no default; the fields are " + fields());
  }
  // After all have been taken.
  void no_others() const {
    for (const auto& [name, value] : given_)
      if (known_.find("," + name + ",") == std::string::npos)
        throw InvalidInput(family_ + "." + name, value, "the fields are " + fields());
  }

 private:
  [[noreturn]] void refuse(const char* name, const std::string& value, const char* hint) const {
    throw InvalidInput(family_ + "." + name, '"' + value + '"', hint);
  }
  std::string fields() const { return known_.substr(1, known_.size() - 2); }
  const std::string* find(const char* name) {
    known_ += std::string(name) + ",";
    const auto found = given_.find(name);
    return found == given_.end() ? nullptr : &found->second;
  }
  template <class Number>
  void number(const char* name, Number& value, const char* hint) {
    const std::string* text = find(name);
    if (text == nullptr) return;
    const auto [stop, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc{} || stop != text->data() + text->size()) refuse(name, *text, hint);
  }

  const std::string& family_;
  std::map<std::string, std::string, std::less<>> given_;
  std::string known_ = ",";  // ",hosts_per_leaf,spine_count,"
};

template <class Shape>
void take_tree(Fields& fields, Shape& shape) {
  fields.take("hosts_per_leaf", shape.hosts_per_leaf);
  fields.take("spine_count", shape.spine_count);
  fields.take("oversubscription", shape.oversubscription);
  fields.take("latency_us", shape.latency_us);
}

template <class Shape>
void take_pods(Fields& fields, Shape& shape) {
  fields.take("hosts_per_pod", shape.hosts_per_pod);
  fields.take("core_count", shape.core_count);
  fields.take("pod_oversubscription", shape.pod_oversubscription);
  fields.take("planes", shape.planes);
}

}  // namespace

bool is_fabric_spec(const std::string& text) {
  const std::string family = text.substr(0, text.find(':'));
  if (family == kAmerican || std::find(kFamilies.begin(), kFamilies.end(), family) != kFamilies.end()) return true;
  // A word and a colon are meant as one, whatever the word.
  return family.size() < text.size() && !family.empty() &&
         family.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_+") == std::string::npos;
}

Fabric fabric_from_spec(const Topology& hosts, const std::string& spec) {
  if (std::any_of(spec.begin(), spec.end(), [](char c) { return c < 0x20 || c > 0x7e; }))  // it stands in messages
    throw InvalidInput("fabric", '"' + one_line(spec) + '"', "printable ASCII characters on one line");
  const std::size_t colon = spec.find(':');
  std::string family = spec.substr(0, colon);
  if (family == kAmerican) family = "rail-optimised";
  if (std::find(kFamilies.begin(), kFamilies.end(), family) == kFamilies.end())
    throw InvalidInput("fabric", '"' + spec + '"',
                       "fat-tree:, rail-optimised:, dragonfly-plus: or torus:, and its numbers");
  Fields fields(family, colon == std::string::npos ? "" : std::string_view(spec).substr(colon + 1));
  if (family == "fat-tree") {
    FatTreeShape shape;
    take_tree(fields, shape);
    take_pods(fields, shape);
    fields.no_others();
    fields.require("hosts_per_leaf");
    fields.require("spine_count");
    return build_fat_tree(hosts, shape);
  }
  if (family == "rail-optimised") {
    RailOptimisedShape shape;
    take_tree(fields, shape);
    take_pods(fields, shape);
    fields.take("spine_over_rails", shape.spine_over_rails);
    fields.no_others();
    fields.require("hosts_per_leaf");
    return build_rail_optimised(hosts, shape);
  }
  if (family == "dragonfly-plus") {
    DragonflyPlusShape shape;
    take_tree(fields, shape);
    fields.take("hosts_per_group", shape.hosts_per_group);
    fields.take("group_oversubscription", shape.group_oversubscription);
    fields.take("group_latency_us", shape.group_latency_us);
    fields.no_others();
    for (const char* name : {"hosts_per_leaf", "hosts_per_group", "spine_count"}) fields.require(name);
    return build_dragonfly_plus(hosts, shape);
  }
  TorusShape shape;
  shape.ring.source = Source::assumed;
  shape.ring.source_note = "as given";
  fields.take("dims", shape.dims);
  fields.take("GBps", shape.ring.GBps_per_direction);
  fields.take("latency_us", shape.ring.latency_us);
  fields.no_others();
  fields.require("dims");
  fields.require("GBps");
  return build_torus(hosts, shape);
}

}  // namespace topomoe
