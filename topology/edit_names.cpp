#include "topology/edit_names.hpp"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// How much of `text` is this name, up to its end or to a dot behind it; 0: none.
std::size_t length_of(const std::string& text, const std::string& name) {
  if (name.empty() || text.compare(0, name.size(), name) != 0) return 0;
  return text.size() == name.size() || text[name.size()] == '.' ? name.size() : 0;
}

struct Found {
  std::size_t length = 0;  // of the text that is the name
  std::string number;      // "host16"
};

// The longest name: "n1.example" before "n1".
void look_in(const std::vector<std::string>& names, const std::string& text, const std::string& stem, bool numbered,
             Found& found) {
  for (std::size_t i = 0; i < names.size(); ++i)
    if (const std::size_t length = length_of(text, names[i]); length > found.length)
      found = {length, numbered ? stem + std::to_string(i) : stem};
}

bool is_number_of(const std::string& text, const std::string& stem) {
  return text.size() > stem.size() && text.compare(0, stem.size(), stem) == 0 &&
         text.find_first_not_of("0123456789", stem.size()) == std::string::npos;
}

std::string end_with_number(const Topology& topology, const std::string& text, const char* field) {
  Found found;
  look_in(topology.host_names, text, "host", true, found);
  if (topology.fabric) {
    const Fabric& fabric = *topology.fabric;
    const bool has_pods = fabric.hosts_per_pod > 0;
    look_in(fabric.leaf_names, text, "leaf", true, found);
    look_in(fabric.pod_names, text,
            !has_pods                                   ? "spine"
            : fabric.kind == FabricKind::dragonfly_plus ? "group"
                                                        : "pod",
            has_pods, found);
  }
  if (found.length == 0) return text;
  const std::string name = text.substr(0, found.length);
  for (const char* stem : {"host", "leaf", "rail", "spine", "pod", "group", "core"})
    if (is_number_of(name, stem) && name != found.number)
      throw InvalidInput(field, '"' + name + '"',
                         fmt::format("is a number here, and what people call {}; take host_names, leaf_names and "
                                     "pod_names out of the description to go by number",
                                     found.number));
  return found.number + text.substr(found.length);
}

}  // namespace

std::string with_numbers(const Topology& topology, const std::string& target, const char* field) {
  const std::size_t arrow = target.find("->");
  if (arrow == std::string::npos) return end_with_number(topology, target, field);
  return end_with_number(topology, target.substr(0, arrow), field) + "->" +
         end_with_number(topology, target.substr(arrow + 2), field);
}

}  // namespace topomoe
