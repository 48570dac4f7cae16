// Which of the descriptions of a network a text is, by its first line that is no comment, or by its keys.
#pragma once

#include <string_view>

namespace topomoe {

bool is_slurm_conf(std::string_view text);  // "SwitchName=", "BlockName=" or "BlockSizes="

bool is_slurm_yaml(std::string_view text);  // "- topology:"

bool is_ibnetdiscover(std::string_view text);  // with or without -p

bool is_simai_network(std::string_view text);  // three numbers, or five and more, in the first line

bool is_htsim(std::string_view text);  // "Nodes 8"

bool is_astra_network(std::string_view text);  // "topology" and "npus_count", as YAML or JSON

}  // namespace topomoe
