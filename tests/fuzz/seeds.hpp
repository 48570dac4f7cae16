// Inputs that fuzzing begins with, and words that it puts into them, both from files of our own.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace topomoe::fuzz {

// Each file goes to folder/READER/ of the format that its content is, or of the reader that its name begins with
// ("nccl-tests-8.txt"); as our JSON and as NCCL's XML, too, where it can be written so. folder/READER.dict: the words
// of those files.
void write_seeds(const std::filesystem::path& folder, const std::vector<std::string>& files);

}  // namespace topomoe::fuzz
