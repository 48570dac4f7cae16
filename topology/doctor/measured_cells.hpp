// Cells of the text and JSON that benchmarks print. Internal to the readers of measurements.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

inline constexpr std::size_t kMostMeasuredRanks = 1'000'000;
inline constexpr std::size_t kMostMeasuredRows = 100'000;
inline constexpr std::size_t kMostMatrixCells = 1U << 22;

// Calls each(line number, line) without line ends, launchers' prefixes and blanks in front.
template <class Each>
void each_measured_line(std::string_view text, Each each);
std::string_view without_launcher(std::string_view line);

// As messages may show it: one line, printable, at most 200 characters.
std::string shown_text(std::string_view text);
std::vector<std::string_view> measured_words(std::string_view line);
// A whole number below `limit` written in digits only; -1 for everything else.
int whole_number(std::string_view cell, int limit);
// NaN for what is no number; InvalidInput{place, ...} for what cannot be measured: negative, infinite, out of range.
double measured_number(std::string_view cell, const std::string& place);
// The same of a number, or of a string that holds one.
double measured_number(const nlohmann::ordered_json& value, const std::string& place);

std::string json_text(const nlohmann::ordered_json& object, const char* key);  // empty: there is none
int json_whole(const nlohmann::ordered_json& object, const char* key, int otherwise, int limit);

template <class Each>
void each_measured_line(std::string_view text, Each each) {
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    each(number, without_launcher(line));
  }
}

}  // namespace topomoe
