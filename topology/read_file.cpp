#include "topology/read_file.hpp"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "topology/network_formats.hpp"
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

Topology read_topology_file(const std::string& path) {
  const std::string text = read_text_file(path);
  std::size_t start = text.starts_with("\xef\xbb\xbf") ? 3 : 0;  // byte order mark
  start = text.find_first_not_of(" \t\r\n", start);
  if (start == std::string::npos)
    throw InvalidInput(path, "empty", "a topomoe.cluster/1 JSON, or an XML written by NCCL_TOPO_DUMP_FILE");
  if (text[start] == '<') return read_nccl_xml(text, path);
  if (text[start] == '{' || text[start] == '/') {
    const std::string directory = std::filesystem::path(path).parent_path().string();
    return read_cluster_json(text, path, directory.empty() ? "." : directory);
  }
  if (is_ibnetdiscover(text)) return read_ibnetdiscover(text, path);
  if (is_slurm_yaml(text)) return read_slurm_yaml(text, path);
  if (is_slurm_conf(text)) return read_slurm_conf(text, path);
  throw InvalidInput(path, "neither JSON nor XML",
                     "a topomoe.cluster/1 JSON, an XML written by NCCL_TOPO_DUMP_FILE, or Slurm's topology.conf");
}

}  // namespace topomoe
