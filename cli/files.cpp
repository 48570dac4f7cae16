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
namespace {

namespace fs = std::filesystem;

// One file by two names. Of files that are still to be made: one place.
bool same_file(const std::string& a, const std::string& b) {
  std::error_code error;
  if (fs::exists(a, error) && fs::exists(b, error)) return fs::equivalent(a, b, error);
  const auto place = [&](const std::string& path) { return fs::weakly_canonical(fs::absolute(path, error), error); };
  const fs::path at = place(a), other = place(b);
  return a == b || (!at.empty() && at == other);
}

// A device or a pipe is written to, not replaced.
bool is_stream(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error) && !fs::is_regular_file(path, error) && !fs::is_directory(path, error);
}

}  // namespace

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

std::vector<NamedFile> named(const std::string& flag, const std::vector<std::string>& paths) {
  std::vector<NamedFile> out;
  for (const std::string& path : paths) out.push_back({flag, path});
  return out;
}

OutputFiles::OutputFiles(const std::vector<NamedFile>& outputs, const std::vector<NamedFile>& inputs) {
  std::error_code error;
  for (const NamedFile& out : outputs) {
    if (out.path.empty()) continue;
    if (fs::is_directory(out.path, error)) throw InvalidInput(out.flag, out.path + " is a folder", "name a file");
    if (!is_stream(out.path)) {
      for (const NamedFile& in : inputs)
        if (!in.path.empty() && same_file(out.path, in.path))
          throw InvalidInput(out.flag, out.path, "is what " + in.flag + " reads, and would be lost: name another file");
      for (const NamedFile& other : outputs_)
        if (same_file(out.path, other.path))
          throw InvalidInput(out.flag, out.path, "is what " + other.flag + " writes: name another file");
      const fs::path folder = fs::path(out.path).parent_path();
      if (!folder.empty() && !fs::is_directory(folder, error))
        throw InvalidInput(out.flag, out.path, "cannot be written there: there is no folder " + folder.string());
      if (const std::string in = folder.empty() ? "." : folder.string(); access(in.c_str(), W_OK | X_OK) != 0)
        throw InvalidInput(out.flag, out.path, "cannot be written there: " + in + ": " + std::strerror(errno));
    }
    outputs_.push_back(out);
  }
}

OutputFiles::~OutputFiles() {
  std::error_code ignored;
  for (const File& file : files_) fs::remove(file.beside, ignored);
}

bool OutputFiles::wants(const std::string& flag) const {
  return std::any_of(outputs_.begin(), outputs_.end(), [&](const NamedFile& out) { return out.flag == flag; });
}

void OutputFiles::write(const std::string& flag, const std::string& text) {
  for (const NamedFile& out : outputs_) {
    if (out.flag != flag) continue;
    const bool stream = is_stream(out.path);
    const std::string path = stream ? out.path : out.path + ".part" + std::to_string(getpid());
    if (!stream) files_.push_back({flag, out.path, path});
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    file.close();
    if (!file) throw InvalidInput(flag, out.path, "cannot be written there; is there space, and may you?");
  }
}

void OutputFiles::commit() {
  for (const File& file : files_) {
    std::error_code error;
    fs::rename(file.beside, file.path, error);
    if (error) throw InvalidInput(file.flag, file.path, "cannot be put there: " + error.message());
  }
  files_.clear();
}

}  // namespace topomoe::cli
