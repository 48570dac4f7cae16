#include "tests/fuzz/seeds.hpp"

#include <cctype>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "tests/fuzz/targets.hpp"
#include "topology/read/formats.hpp"
#include "topomoe/error.hpp"

namespace topomoe::fuzz {
namespace {

constexpr std::size_t kMostWords = 500, kLongestWord = 32;  // of a dictionary

void add_words(const std::string& text, std::set<std::string>& words) {
  std::string word;
  for (const char c : text + " ") {
    const bool goes_on = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.';
    if (goes_on) {
      word += c;
      continue;
    }
    if (word.size() > 1 && word.size() <= kLongestWord && words.size() < kMostWords) words.insert(word);
    word.clear();
  }
}

class Seeds {
 public:
  explicit Seeds(const std::filesystem::path& folder) : folder_(folder) {}

  void add(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(in), {}), name = path.filename().string();
    put("any", name, text);
    for (const Target& target : targets())
      if (target.other != nullptr && name.starts_with(target.name)) put(target.name, name, text);
    const Content content(text);
    for (const Format& format : formats()) {
      if (!format.recognises(content)) continue;
      put(format.name, name, text);
      break;
    }
    try {
      const Topology topology = read_topology(text, name, "", path.parent_path().string());
      put("cluster-json", "of-" + name, write_cluster_json(topology));
      if (topology.host_count() <= 4) put("nccl-xml", "of-" + name, write_nccl_xml(topology));
    } catch (const InvalidInput&) {  // no topology, or none that NCCL could have written
    }
  }

  // Of readers whose text stands in no file.
  void add_own() {
    for (const Target& target : targets())
      for (std::size_t i = 0; i < target.seeds.size(); ++i) put(target.name, std::to_string(i), target.seeds[i]);
  }

  void write_dictionaries() const {
    for (const auto& [reader, words] : words_) {
      std::ofstream out(folder_ / (reader + ".dict"));
      for (const std::string& word : words) out << '"' << word << "\"\n";
    }
  }

 private:
  void put(const std::string& reader, const std::string& name, const std::string& text) {
    std::filesystem::create_directories(folder_ / reader);
    std::ofstream(folder_ / reader / name, std::ios::binary) << text;
    add_words(text, words_[reader]);
  }

  std::filesystem::path folder_;
  std::map<std::string, std::set<std::string>> words_;
};

}  // namespace

void write_seeds(const std::filesystem::path& folder, const std::vector<std::string>& files) {
  Seeds seeds(folder);
  for (const std::string& file : files) seeds.add(file);
  seeds.add_own();
  seeds.write_dictionaries();
}

}  // namespace topomoe::fuzz
