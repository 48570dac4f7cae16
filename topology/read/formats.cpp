#include "topology/read/formats.hpp"

#include <fmt/format.h>

#include <array>

#include "topology/read/network_formats.hpp"
#include "topology/read/nvidia_smi.hpp"
#include "topology/read/plain_text.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/topograph.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";

std::string_view trimmed_front(std::string_view text) {
  const std::size_t start = text.find_first_not_of(kSpace);
  return start == std::string_view::npos ? std::string_view{} : text.substr(start);
}

// Past declarations, comments and the document type to the first element.
std::string_view xml_root(std::string_view text) {
  while (text.starts_with('<')) {
    const char next = text.size() > 1 ? text[1] : '\0';
    if (next != '?' && next != '!') {
      text.remove_prefix(1);
      return text.substr(0, text.find_first_of(" \t\r\n\f\v/>"));
    }
    const std::string_view end = text.starts_with("<!--") ? "-->" : next == '?' ? "?>" : ">";
    const std::size_t at = text.find(end);
    if (at == std::string_view::npos) return {};
    text = trimmed_front(text.substr(at + end.size()));
  }
  return {};
}

// A reader that refers to no other files.
template <Topology (*read)(std::string_view, const std::string&)>
Topology alone(std::string_view text, const std::string& where, const std::string&) {
  return read(text, where);
}

bool is_text(const Content& c) { return c.first != '{' && c.first != '<'; }
bool has(const Content& c, std::string_view words) {
  return is_text(c) && c.text.substr(0, 1U << 16).find(words) != std::string_view::npos;
}

// What is no topology, but often lies beside one: tried after all that is read but JSON in general.
bool has_key(const Content& c, std::string_view key) {
  return c.first == '{' && c.text.substr(0, 1U << 16).find(key) != std::string_view::npos;
}
bool is_measured(const Content& c) {
  return has(c, "algbw") || has(c, "# nccl-tests version") || has(c, "nvbandwidth Version") ||
         has(c, "bandwidth (GB/s)") || has_key(c, "\"nccl_version\"") || has_key(c, "\"nvbandwidth\"");
}
bool is_model(const Content& c) {
  return (has_key(c, "\"model_type\"") || has_key(c, "\"architectures\"")) && !has_key(c, "\"topomoe.cluster/");
}

// To add a format: its line here.
constexpr std::array kFormats{
    Format{"nccl-xml", "NCCL or RCCL topology XML (NCCL_TOPO_DUMP_FILE)",
           [](const Content& c) { return c.xml_root == "system"; }, alone<read_nccl_xml>, nullptr},
    Format{"hwloc-xml", "hwloc XML (lstopo FILE.xml)", [](const Content& c) { return c.xml_root == "topology"; },
           alone<read_hwloc_xml>, nullptr},
    Format{"nccl-graph", "NCCL graph XML (NCCL_GRAPH_DUMP_FILE)",
           [](const Content& c) { return c.xml_root == "graphs"; }, nullptr,
           "it says which rings and trees NCCL chose on a machine and is no topology; give the file of "
           "NCCL_TOPO_DUMP_FILE, and this one to topo show --nccl-graph"},
    Format{"simgrid", "SimGrid platform XML", [](const Content& c) { return c.xml_root == "platform"; },
           alone<read_simgrid>, nullptr},
    Format{
        "rocm-smi", "rocm-smi --showtopo",
        [](const Content& c) { return has(c, "ROCm System Management Interface") || has(c, "Type between two GPUs"); },
        alone<read_amd_smi>, nullptr},
    Format{"amd-smi", "amd-smi topology", [](const Content& c) { return has(c, "LINK TYPE TABLE"); },
           alone<read_amd_smi>, nullptr},
    Format{"nvidia-smi", "the matrix of nvidia-smi topo -m",
           [](const Content& c) { return is_text(c) && looks_like_nvidia_smi(c.text); }, alone<read_nvidia_smi>,
           nullptr},
    Format{"ibnetdiscover", "ibnetdiscover, with or without -p",
           [](const Content& c) { return is_text(c) && is_ibnetdiscover(c.text); }, alone<read_ibnetdiscover>, nullptr},
    Format{"slurm-yaml", "Slurm's topology.yaml", [](const Content& c) { return is_text(c) && is_slurm_yaml(c.text); },
           alone<read_slurm_yaml>, nullptr},
    Format{"slurm-conf", "Slurm's topology.conf", [](const Content& c) { return is_text(c) && is_slurm_conf(c.text); },
           alone<read_slurm_conf>, nullptr},
    Format{"astra", "ASTRA-sim's analytical network (YAML or JSON)",
           [](const Content& c) { return c.first != '<' && is_astra_network(c.text); }, alone<read_astra>, nullptr},
    Format{"simai", "SimAI's or ns-3's topology text",
           [](const Content& c) { return is_text(c) && is_simai_network(c.text); }, alone<read_simai>, nullptr},
    Format{"htsim", "htsim's fat tree (.topo)", [](const Content& c) { return is_text(c) && is_htsim(c.text); },
           alone<read_htsim>, nullptr},
    Format{"astra-logical", "ASTRA-sim's logical dimensions (JSON beside an ns-3 topology)",
           [](const Content& c) {
             return c.first == '{' && c.text.substr(0, 4096).find("\"logical-dims\"") != c.text.npos;
           },
           nullptr,
           "it says how ranks are numbered, and neither links nor rates; give the topology that its run names"},
    Format{"topograph-model", "topograph's simulation model (YAML)",
           [](const Content& c) { return is_text(c) && is_topograph_model(c.text); }, alone<read_topograph_model>,
           nullptr},
    Format{"topograph-graph", "the JSON of topograph's graph engine",
           [](const Content& c) { return is_topograph_graph(c.text); }, alone<read_topograph_graph>, nullptr},
    Format{"topograph-netq", "NetQ's topology graph (JSON), as topograph reads it",
           [](const Content& c) { return is_topograph_netq(c.text); }, alone<read_topograph_netq>, nullptr},
    Format{"measured", "output of nccl-tests or nvbandwidth", is_measured, nullptr,
           "it says how fast a machine is, not what it is; give it to topo doctor --measured"},
    Format{"model-config", "a model's config.json", is_model, nullptr, "it is no topology; give it to --model"},
    Format{"cluster-json", "topomoe.cluster/1 JSON", [](const Content& c) { return c.first == '{' || c.first == '/'; },
           read_cluster_json, nullptr},
};

std::string readable_formats() {
  std::string names;
  for (const Format& format : kFormats)
    if (format.read != nullptr) names += (names.empty() ? "" : ", ") + std::string(format.name);
  return names;
}

const Format& format_named(const std::string& name) {
  for (const Format& format : kFormats)
    if (name == format.name) return format;
  throw InvalidInput("--as", name, "one of " + readable_formats());
}

// What a person sees of text that is none of the formats.
std::string beginning_of(const Content& content) {
  if (!content.xml_root.empty()) return fmt::format("<{:.40}>", content.xml_root);
  std::string line(content.text.substr(0, std::min<std::size_t>(content.text.find_first_of("\r\n"), 40)));
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  return '"' + line + '"';
}

}  // namespace

Content::Content(std::string_view all)
    : text(trimmed_front(all.starts_with("\xef\xbb\xbf") ? all.substr(3) : all)),
      first(text.empty() ? '\0' : text.front()),
      xml_root(topomoe::xml_root(text)) {}

std::string stem_of_file(const std::string& where) {
  const std::size_t slash = where.find_last_of('/');
  const std::string file = slash == std::string::npos ? where : where.substr(slash + 1);
  return file.substr(0, file.find('.'));
}

std::span<const Format> formats() { return kFormats; }

std::vector<TopologyFormat> topology_formats() {
  std::vector<TopologyFormat> out;
  for (const Format& format : kFormats)
    if (format.read != nullptr) out.push_back({format.name, format.what});
  return out;
}

Topology read_topology(std::string_view text, const std::string& where, const std::string& as,
                       const std::string& directory) {
  const Content content(text);
  const Format* found = as.empty() ? nullptr : &format_named(as);
  if (content.text.empty()) throw InvalidInput(where, "empty", "a description as one of " + readable_formats());
  for (std::size_t i = 0; found == nullptr && i < kFormats.size(); ++i)
    if (kFormats[i].recognises(content)) found = &kFormats[i];
  if (found == nullptr)
    throw InvalidInput(where, "begins with " + beginning_of(content),
                       "no format known here; --as NAME where it is one of " + readable_formats());
  if (found->read == nullptr) throw InvalidInput(where, found->what, found->instead);
  // Names go into JSON, and two that differ in broken bytes alone would be one there.
  if (const std::size_t broken = first_not_utf8(text); broken != std::string_view::npos)
    throw InvalidInput(fmt::format("{}: byte {}", where, broken), "not UTF-8",
                       "a text file in UTF-8; of Latin-1: iconv -f latin1 -t utf-8");
  try {
    return found->read(text, where, directory);
  } catch (const InvalidInput& error) {  // with what stood in the text, whatever that was
    throw InvalidInput(one_line(error.field), one_line(error.value), one_line(error.hint));
  }
}

}  // namespace topomoe
