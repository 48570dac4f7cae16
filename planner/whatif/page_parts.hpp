// page/page.html, page/page.css and all of page/*.js as they were when the program was built.
#pragma once

namespace topomoe {

extern const char* const kPageHtml;
extern const char* const kPageCss;
extern const char* const kPageJs;

}  // namespace topomoe
