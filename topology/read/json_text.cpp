#include "topology/read/json_text.hpp"

#include <fmt/format.h>

#include <vector>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxTextBytes = 64U << 20;
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxKeys = 256;  // of one object

// Past a comment, or past one character.
std::size_t after_slash(std::string_view text, std::size_t at) {
  const std::string_view rest = text.substr(at);
  if (!rest.starts_with("//") && !rest.starts_with("/*")) return at + 1;
  const std::string_view end = rest[1] == '/' ? "\n" : "*/";
  const std::size_t found = text.find(end, at + 2);
  return found == text.npos ? text.size() : found + end.size();
}

// Past the quote that ends the text which begins here.
std::size_t after_quote(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at)
    if (text[at] == '\\') ++at;
  return at + 1;
}

void check_size(std::string_view text, const std::string& where) {
  std::vector<std::size_t> colons;  // of each value that is open
  for (std::size_t at = 0; at < text.size();) {
    switch (text[at]) {
      case '"': at = after_quote(text, at); continue;
      case '/': at = after_slash(text, at); continue;
      case '{':
      case '[':
        if (colons.size() == kMaxDepth)
          throw InvalidInput(where, fmt::format("not JSON for us at byte {}", at),
                             fmt::format("nested deeper than {}; no description of a cluster is", kMaxDepth));
        colons.push_back(0);
        break;
      case '}':
      case ']':
        if (!colons.empty()) colons.pop_back();
        break;
      case ':':
        if (!colons.empty() && ++colons.back() > kMaxKeys)
          throw InvalidInput(where, fmt::format("not JSON for us at byte {}", at),
                             fmt::format("an object of more than {} keys", kMaxKeys));
        break;
      default: break;
    }
    ++at;
  }
}

}  // namespace

nlohmann::ordered_json parse_description(std::string_view text, const std::string& where) {
  if (text.size() > kMaxTextBytes)
    throw InvalidInput(where, fmt::format("{} bytes", text.size()),
                       "at most 64 MiB; write hosts as templates times counts");
  check_size(text, where);
  try {
    return nlohmann::ordered_json::parse(text, nullptr, true, true);
  } catch (const nlohmann::json::exception& error) {
    throw InvalidInput(where, "not JSON", error.what());
  }
}

}  // namespace topomoe
