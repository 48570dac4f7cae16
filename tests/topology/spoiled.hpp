// Every beginning of a text, and the text with each byte in turn replaced by others: what a reader must survive.
#pragma once

#include <string>
#include <string_view>

#include "support.hpp"

namespace topomoe::test {

// `read` must return or throw InvalidInput of one line; anything else fails the test (or ends it).
template <class Read>
void survives_cuts_and_spoilt_bytes(const std::string& text, std::string_view bytes, Read read) {
  const auto try_it = [&](const std::string& some) {
    try {
      read(some);
    } catch (const InvalidInput& error) {
      EXPECT_FALSE(error.hint.empty());
      EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos) << error.what();
    }
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    try_it(text.substr(0, i));
    for (const std::size_t shift : {0U, 3U}) {
      std::string spoilt = text;
      spoilt[i] = bytes[(i + shift) % bytes.size()];
      try_it(spoilt);
    }
  }
}

}  // namespace topomoe::test
