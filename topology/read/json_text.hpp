// JSON from outside -> a value, or InvalidInput. Comments are allowed. Internal to topology/.
//
// The library finds each new key by a look at all before it, and prints a value level by level on the stack: what has
// more keys or levels than any of our files is refused before it is parsed.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace topomoe {

nlohmann::ordered_json parse_description(std::string_view text, const std::string& where);

}  // namespace topomoe
