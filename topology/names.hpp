// The words of topology.hpp as text, and back. JSON, the CLI and messages all use these spellings.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "topomoe/topology.hpp"

namespace topomoe {

std::optional<DeviceKind> device_kind(std::string_view text);
std::optional<LinkKind> link_kind(std::string_view text);
std::optional<FabricKind> fabric_kind(std::string_view text);
std::optional<Presence> presence(std::string_view text);

// "datasheet: 18 links x 25 GB/s" <-> Source::datasheet and "18 links x 25 GB/s". A word that is no source
// makes the whole text the note of an unknown source.
struct SourceText {
  Source source = Source::unknown;
  std::string note;
};
SourceText parse_source(std::string_view text);
std::string source_text(Source, const std::string& note);

// 1 to 64 letters, digits, "_", "." and "-", a letter first: what an attribute may be called.
bool is_attribute_name(std::string_view);

// An attribute of a GPU: how many of its links end at what the description does not have.
inline constexpr const char* kLinksLeftOut = "links_left_out";

// A number for people: at most `digits` after the point, no trailing zeros.
std::string short_number(double value, int digits = 2);

// The order in which people number: "mlx5_2" before "mlx5_10".
bool natural_less(const std::string& a, const std::string& b);

}  // namespace topomoe
