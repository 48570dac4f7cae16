// The formats that a description of a machine or cluster may have: one table, in formats.cpp.
//
// A format is recognised by what is in the text, never by the file's name. One that is known and not read has a row
// too, so that its file is called by its name.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "topomoe/topology.hpp"

namespace topomoe {

// The text, and what telling formats apart begins with.
struct Content {
  explicit Content(std::string_view all);
  std::string_view text;      // without byte order mark and leading white space
  char first = 0;             // of the text; 0: it is empty
  std::string_view xml_root;  // name of the outermost element; empty where the text is no XML
};

// `directory` is where files that the text refers to are looked for; empty: they are refused.
using Reader = Topology (*)(std::string_view text, const std::string& where, const std::string& directory);

struct Format {
  const char* name;  // as --as takes it
  const char* what;
  bool (*recognises)(const Content&);
  Reader read;          // null: known, and no topology or not readable
  const char* instead;  // what to give then
};

// In the order in which they are tried.
std::span<const Format> formats();

}  // namespace topomoe
