// Slurm's short form of many names: "n[1-3,7],m[001-004],rack[1-2]-[01-18]".
//
// Model: a comma outside brackets parts names; a bracket holds numbers and ranges, written with as many digits as the
// first of a range has; several brackets in one name count like the digits of a clock, the last fastest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

// Appends to `names`, at most `most` in all. InvalidInput{field, the text, way out} for what is not such a list.
void add_host_list(std::string_view text, const std::string& field, std::size_t most, std::vector<std::string>& names);

// The shortest such list with names in this order: "n[1-3,7],m4". InvalidInput for a name that no such list can hold.
std::string host_list_of(const std::vector<std::string>& names, const std::string& field);

}  // namespace topomoe
