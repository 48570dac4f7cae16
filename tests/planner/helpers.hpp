// Shared by the tests of this folder: the shipped models, and what an InvalidInput says.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "planner/hf_config.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

inline std::string shipped_text(const std::string& model) {
  std::ifstream in(std::string(TOPOMOE_SOURCE_DIR) + "/configs/models/" + model + ".json");
  EXPECT_TRUE(in) << model;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}
inline Model shipped(const std::string& model) {
  return read_hf_config(shipped_text(model), "configs/models/" + model + ".json");
}

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const InvalidInput& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_HAS(text, part)                                                                              \
  do {                                                                                                      \
    const std::string expect_has_text = (text);                                                             \
    EXPECT_NE(expect_has_text.find(part), std::string::npos) << expect_has_text << "\n  lacks: " << (part); \
  } while (false)

}  // namespace topomoe
