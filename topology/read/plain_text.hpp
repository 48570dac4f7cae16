// What text from outside must be before it is read, and what becomes of it in messages. Internal to topology/.
#pragma once

#include <string>
#include <string_view>

namespace topomoe {

// The first byte that is no part of UTF-8 (RFC 3629: shortest form, no surrogates, up to U+10FFFF); npos: none.
std::size_t first_not_utf8(std::string_view);

// Without line ends, other control characters and broken bytes, each a '?'; what is longer than a message ends in
// "...".
std::string one_line(std::string_view);

}  // namespace topomoe
