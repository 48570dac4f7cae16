// Reading inputs, writing outputs, and talking: the CLI's own I/O.
//
// An output file is whole or absent: it is written beside its place under another name and renamed there. A command
// names its outputs and inputs before it begins, so that what cannot be written is known before any work, and no output
// takes the place of what the command reads.
#pragma once

#include <string>
#include <vector>

namespace topomoe::cli {

// To stdout as it is. Throws InvalidInput when stdout cannot take it (a full disk, a closed pipe).
void print(const std::string& text);
// One line "topomoe: <message>" to stderr.
void say(const std::string& message);

// A file as a user names it: {"--cluster", "cluster.json"}. Not given: an empty path.
struct NamedFile {
  std::string flag, path;
};
std::vector<NamedFile> named(const std::string& flag, const std::vector<std::string>& paths);

// Outputs of one command. Nothing is in its place before commit(), and nothing is left behind without it.
class OutputFiles {
 public:
  // Throws InvalidInput by an output's flag where it is one of the inputs or another output, by whatever name or link,
  // or a folder, or in none.
  OutputFiles(const std::vector<NamedFile>& outputs, const std::vector<NamedFile>& inputs);
  ~OutputFiles();
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;

  bool wants(const std::string& flag) const;
  // Writes beside the path that `flag` was given; nothing where it was given none. Throws InvalidInput when that is
  // impossible.
  void write(const std::string& flag, const std::string& text);
  // Renames all of them into place.
  void commit();

 private:
  struct File {
    std::string flag, path, beside;
  };
  std::vector<NamedFile> outputs_;
  std::vector<File> files_;
};

}  // namespace topomoe::cli
