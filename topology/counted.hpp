// Numbers and what they count, for people: "1 spine", "2 spines", "2 to 4 hosts".
#pragma once

#include <string>

namespace topomoe {

// `many`: where it is not `one` and an s. Of a range ("1 to 2"), the plural.
inline std::string counted(const std::string& number, const std::string& one, const std::string& many = "") {
  return number + " " + (number == "1" ? one : many.empty() ? one + "s" : many);
}
template <class Whole>
std::string counted(Whole number, const std::string& one, const std::string& many = "") {
  return counted(std::to_string(number), one, many);
}

}  // namespace topomoe
