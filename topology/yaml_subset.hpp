// The part of YAML that topology files use: maps and lists by indentation, plain and quoted texts, [a, "b"], {},
// comments.
//
// Refused by name: anchors, tags, block texts, {maps: in one line}, several documents, tabs that indent, more than 32
// levels. Nothing is interpreted: "on", 12 and 0x0c stay texts.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace topomoe {

struct Yaml {
  enum class Kind { text, map, list };
  Kind kind = Kind::text;
  int line = 0;
  std::string text;
  std::vector<std::pair<std::string, Yaml>> map;  // as written; a key is there once
  std::vector<Yaml> list;

  const Yaml* find(std::string_view key) const {
    for (const auto& [own, value] : map)
      if (own == key) return &value;
    return nullptr;
  }
};

// InvalidInput{"where: line 7", ...} for what is not of this part.
Yaml read_yaml_subset(std::string_view text, const std::string& where);

}  // namespace topomoe
