// Reading inputs, writing outputs, and talking: the CLI's own I/O.
//
// An output file is whole or absent: it is written beside its place under another name and renamed there.
#pragma once

#include <string>
#include <vector>

namespace topomoe::cli {

// To stdout as it is. Throws InvalidInput when stdout cannot take it (a full disk, a closed pipe).
void print(const std::string& text);
// One line "topomoe: <message>" to stderr.
void say(const std::string& message);

// Outputs of one command. Nothing is in its place before commit(), and nothing is left behind without it.
class OutputFiles {
 public:
  OutputFiles() = default;
  ~OutputFiles();
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;

  // Writes beside `path`. Throws InvalidInput("-o", path, ...) when that is impossible.
  void add(const std::string& flag, const std::string& path, const std::string& text);
  // Renames all of them into place.
  void commit();

 private:
  struct File {
    std::string flag, path, beside;
  };
  std::vector<File> files_;
};

}  // namespace topomoe::cli
