// Which of the descriptions of a network a text is, by its first line that is no comment.
#pragma once

#include <string_view>

namespace topomoe {

bool is_slurm_conf(std::string_view text);  // "SwitchName=", "BlockName=" or "BlockSizes="

bool is_slurm_yaml(std::string_view text);  // "- topology:"

bool is_ibnetdiscover(std::string_view text);  // with or without -p

}  // namespace topomoe
