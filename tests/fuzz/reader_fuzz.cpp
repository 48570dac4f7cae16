// libFuzzer's entry: reader_fuzz READER [libFuzzer's options] [corpus folders, or one input that crashed].
//
//   reader_fuzz --list                      names of readers
//   reader_fuzz --seeds FOLDER FILE...      each file to FOLDER/READER/, by its content; what it says as JSON and XML,
//   too
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "tests/fuzz/seeds.hpp"
#include "tests/fuzz/targets.hpp"

namespace topomoe::fuzz {
namespace {

// libFuzzer starts itself again, without our argument, to make a crash smaller.
constexpr const char* kReader = "TOPOMOE_FUZZ_READER";

const Target* target = nullptr;

const Target* target_named(const std::string& name) {
  static const std::vector<Target> all = targets();
  for (const Target& own : all)
    if (own.name == name) return &own;
  return nullptr;
}

[[noreturn]] void list() {
  for (const Target& own : targets()) std::printf("%s\n", own.name.c_str());
  std::exit(0);
}

}  // namespace
}  // namespace topomoe::fuzz

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  using namespace topomoe::fuzz;
  char** words = *arguments;
  const std::string word = *count > 1 ? words[1] : "";
  if (word == "--list") list();
  if (word == "--seeds" && *count > 2) {
    write_seeds(words[2], {words + 3, words + *count});
    std::exit(0);
  }
  target = target_named(word);
  if (target != nullptr) {
    ::setenv(kReader, word.c_str(), 1);
    for (int i = 1; i < *count; ++i) words[i] = words[i + 1];
    --*count;
  } else if (const char* inherited = std::getenv(kReader); inherited != nullptr) {
    target = target_named(inherited);
  }
  if (target != nullptr) return 0;
  std::fprintf(stderr, "%s: no reader: give the name of one first; --list says them\n", word.c_str());
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace topomoe::fuzz;
  try {
    run(*target, {reinterpret_cast<const char*>(data), size});
  } catch (const std::exception& error) {  // nothing else may come out of a reader
    std::fprintf(stderr, "topomoe: %s\n", error.what());
    std::abort();
  }
  return 0;
}
