// A text file as a string, with a limit and a message that names the file.
#pragma once

#include <string>

namespace topomoe {

std::string read_text_file(const std::string& path);

}  // namespace topomoe
