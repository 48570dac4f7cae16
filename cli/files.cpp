#include "cli/files.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "topomoe/error.hpp"

namespace topomoe::cli {

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw InvalidInput("stdout", std::strerror(errno), "give it somewhere to write to");
}

void say(const std::string& message) {
  std::string line = "topomoe: " + message;
  std::replace(line.begin(), line.end(), '\n', ' ');
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

OutputFiles::~OutputFiles() {
  std::error_code ignored;
  for (const File& file : files_) std::filesystem::remove(file.beside, ignored);
}

void OutputFiles::add(const std::string& flag, const std::string& path, const std::string& text) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw InvalidInput(flag, path + " is a folder", "name a file");
  // A device or a pipe is written to, not replaced.
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    std::ofstream out(path, std::ios::binary);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    out.close();
    if (!out) throw InvalidInput(flag, path, "cannot be written there; is there space?");
    return;
  }
  for (const File& other : files_)
    if (other.path == path) throw InvalidInput(flag, path, "is what " + other.flag + " writes: name another file");
  files_.push_back({flag, path, path + ".part" + std::to_string(getpid())});
  std::ofstream out(files_.back().beside, std::ios::binary | std::ios::trunc);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  if (!out) throw InvalidInput(flag, path, "cannot be written there; does the folder exist, and is there space?");
}

void OutputFiles::commit() {
  for (const File& file : files_) {
    std::error_code error;
    std::filesystem::rename(file.beside, file.path, error);
    if (error) throw InvalidInput(file.flag, file.path, "cannot be put there: " + error.message());
  }
  files_.clear();
}

}  // namespace topomoe::cli
