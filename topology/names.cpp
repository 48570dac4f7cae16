#include "topology/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace topomoe {
namespace {

template <class Enum, std::size_t n>
const char* word(const std::array<const char*, n>& words, Enum value) {
  const auto i = static_cast<std::size_t>(value);
  return i < n ? words[i] : "?";
}

template <class Enum, std::size_t n>
std::optional<Enum> find(const std::array<const char*, n>& words, std::string_view text) {
  for (std::size_t i = 0; i < n; ++i)
    if (text == words[i]) return static_cast<Enum>(i);
  return std::nullopt;
}

constexpr std::array kPathClasses{"LOC", "NVL", "NVB", "C2C", "PIX", "PXB", "P2C", "PXN", "PHB", "SYS", "NET", "DIS"};
constexpr std::array kSources{"measured", "datasheet", "assumed", "unknown"};
constexpr std::array kDeviceKinds{"gpu", "nic", "numa", "pci_switch", "nvswitch", "host", "leaf", "spine", "core"};
constexpr std::array kLinkKinds{"nvlink",     "xgmi",     "c2c",         "pcie", "cpu_interconnect", "cpu_root", "nic",
                                "leaf_spine", "pod_core", "group_group", "ring"};
constexpr std::array kFabricKinds{"fat_tree", "dragonfly_plus", "torus"};
constexpr std::array kPresences{"present", "absent", "unknown"};

}  // namespace

const char* name(PathClass value) { return word(kPathClasses, value); }
const char* name(Source value) { return word(kSources, value); }
const char* name(DeviceKind value) { return word(kDeviceKinds, value); }
const char* name(LinkKind value) { return word(kLinkKinds, value); }
const char* name(Presence value) { return word(kPresences, value); }
const char* name(FabricKind value) { return word(kFabricKinds, value); }

std::optional<DeviceKind> device_kind(std::string_view text) { return find<DeviceKind>(kDeviceKinds, text); }
std::optional<LinkKind> link_kind(std::string_view text) { return find<LinkKind>(kLinkKinds, text); }
std::optional<FabricKind> fabric_kind(std::string_view text) { return find<FabricKind>(kFabricKinds, text); }
std::optional<Presence> presence(std::string_view text) { return find<Presence>(kPresences, text); }

SourceText parse_source(std::string_view text) {
  const std::size_t colon = text.find(':');
  const auto source = find<Source>(kSources, text.substr(0, colon));
  if (!source) return {Source::unknown, std::string(text)};
  if (colon == std::string_view::npos) return {*source, ""};
  std::string_view note = text.substr(colon + 1);
  while (!note.empty() && note.front() == ' ') note.remove_prefix(1);
  return {*source, std::string(note)};
}

std::string source_text(Source source, const std::string& note) {
  return note.empty() ? name(source) : fmt::format("{}: {}", name(source), note);
}

bool is_attribute_name(std::string_view text) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return !text.empty() && text.size() <= 64 && is_letter(text[0]) && std::all_of(text.begin(), text.end(), [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
  });
}

std::string short_number(double value, int digits) {
  std::string text = fmt::format("{:.{}f}", value, digits);
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      std::size_t p = i, q = j;
      while (p < a.size() && digit(a[p])) ++p;
      while (q < b.size() && digit(b[q])) ++q;
      while (i < p && a[i] == '0') ++i;
      while (j < q && b[j] == '0') ++j;
      if (p - i != q - j) return p - i < q - j;
      const int order = a.compare(i, p - i, b, j, q - j);
      if (order != 0) return order < 0;
      i = p, j = q;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
    }
  }
  return a.size() - i != b.size() - j ? a.size() - i < b.size() - j : a < b;
}

}  // namespace topomoe
