#include "topology/read/read_file.hpp"

#include <filesystem>
#include <fstream>

#include "topomoe/error.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

std::string read_text_file(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw InvalidInput(path, "a folder", "name a file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InvalidInput(path, "cannot be opened", "check that the file exists and may be read");
  constexpr std::streamsize kMaxBytes = 64 << 20;
  std::string text;
  char block[65536];
  while (file.read(block, sizeof block) || file.gcount() > 0) {
    text.append(block, static_cast<std::size_t>(file.gcount()));
    if (text.size() > static_cast<std::size_t>(kMaxBytes))
      throw InvalidInput(path, "more than 64 MiB", "no topology file is that large; is this the right file?");
  }
  return text;
}

Topology read_topology_file(const std::string& path, const std::string& as) {
  const std::string directory = std::filesystem::path(path).parent_path().string();
  return read_topology(read_text_file(path), path, as, directory.empty() ? "." : directory);
}

}  // namespace topomoe
