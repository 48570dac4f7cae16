// The page is put together here and drawn in the reader's browser (page/*.js), out of the JSON inside it.

#include <string_view>

#include "planner/whatif/page_parts.hpp"
#include "planner/whatif/whatif.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// JSON that no HTML parser takes for the end of its script element, nor for a comment. Outside strings JSON has no '<'.
std::string inside_script(const std::string& json) {
  std::string text;
  text.reserve(json.size());
  for (const char c : json) {
    if (c == '<')
      text += "\\u003c";
    else
      text += c;
  }
  return text;
}

}  // namespace

std::string what_if_page(const std::string& json) {
  std::string page = kPageHtml;
  const auto put = [&](std::string_view place, const std::string& text) {
    const auto at = page.find(place);
    TOPOMOE_ASSERT(at != std::string::npos);
    page.replace(at, place.size(), text);
  };
  put("/* page.css */", kPageCss);
  put("/* page.js */", kPageJs);
  put("/* whatif.json */", inside_script(json));  // last: nothing is looked for in it
  return page;
}

}  // namespace topomoe
