#include "topology/read/plain_text.hpp"

#include <cstdint>
#include <cstring>

namespace topomoe {
namespace {

constexpr std::size_t kLongest = 1200;  // bytes that a person reads of one part of a message

// Bytes of the character that begins here; 0: none does.
std::size_t character(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
  };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80U) return 1;
  if (first >= 0xc2U && first <= 0xdfU) return follows(1) ? 2 : 0;
  if (first >= 0xe0U && first <= 0xefU) {
    const bool fits = (first != 0xe0U || second >= 0xa0U) && (first != 0xedU || second < 0xa0U);
    return fits && follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xf0U && first <= 0xf4U) {
    const bool fits = (first != 0xf0U || second >= 0x90U) && (first != 0xf4U || second < 0x90U);
    return fits && follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::size_t first_not_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    std::uint64_t eight = 0;  // of ASCII, most often
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & 0x8080808080808080U) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    const std::size_t bytes = character(text, at);
    if (bytes == 0) return at;
    at += bytes;
  }
  return std::string_view::npos;
}

std::string one_line(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (out.size() > kLongest) return out + "...";
    const std::size_t bytes = character(text, at);
    const auto first = static_cast<unsigned char>(text[at]);
    if (bytes == 0 || first < 0x20 || first == 0x7f)
      out += '?', ++at;
    else
      out += text.substr(at, bytes), at += bytes;
  }
  return out;
}

}  // namespace topomoe
