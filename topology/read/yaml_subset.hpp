// The part of YAML that topology files use: maps and lists by indentation, plain and quoted texts, [a, "b"], {},
// comments.
//
// Refused by name: anchors, tags, block texts, {maps: in one line}, several documents, tabs that indent, more than 32
// levels. Nothing is interpreted: "on", 12 and 0x0c stay texts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

struct YamlEntry;

struct Yaml {
  enum class Kind { text, map, list };
  Kind kind = Kind::text;
  int line = 0;
  std::string text;
  std::vector<YamlEntry> map;  // as written; a key is there once
  std::vector<Yaml> list;

  const Yaml* find(std::string_view key) const;
};

struct YamlEntry {
  std::string key;
  Yaml value;
};

inline const Yaml* Yaml::find(std::string_view key) const {
  for (const YamlEntry& own : map)
    if (own.key == key) return &own.value;
  return nullptr;
}

// InvalidInput{"where: line 7", ...} for what is not of this part.
Yaml read_yaml_subset(std::string_view text, const std::string& where);

}  // namespace topomoe
