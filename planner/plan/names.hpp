// Enum <-> text by table: an unknown text is answered with the known ones.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "topomoe/error.hpp"

namespace topomoe {

template <class T, std::size_t N>
using NameTable = std::array<std::pair<T, std::string_view>, N>;

template <class T, std::size_t N>
constexpr std::string_view name_of(const NameTable<T, N>& table, T value) {
  for (const auto& row : table)
    if (row.first == value) return row.second;
  return "?";
}

template <class T, std::size_t N>
T value_of(const NameTable<T, N>& table, std::string_view text, std::string_view field) {
  std::string known;
  for (const auto& row : table) {
    if (row.second == text) return row.first;
    known += (known.empty() ? "" : ", ") + std::string(row.second);
  }
  throw InvalidInput(std::string(field), text.empty() ? "empty" : std::string(text), "must be one of " + known);
}

}  // namespace topomoe
