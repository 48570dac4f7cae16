// Parsers of formats that emitters write, by their published rules and sharing no code with the emitters.
//
// Megatron-LM: names, types and choices of megatron/training/arguments.py and of the dataclasses it is generated from
// (d98e8a6, 2026-08), the assertions of validate_args, the grammar of --pipeline-model-parallel-layout and of
// --moe-layer-freq. Slurm: hostlists. Only what a plan can bring about is checked.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace topomoe::test {

struct Parsed {
  std::map<std::string, std::vector<std::string>> values;  // without the dashes; empty for a flag
  std::vector<std::string> wrong;                          // empty: accepted

  bool has(const std::string& name) const { return values.count(name) > 0; }
  int integer(const std::string& name, int otherwise = 0) const;
  std::string text(const std::string& name) const;
};

// Words of MEGATRON_ARGS=( ... ) as bash reads them.
std::vector<std::string> bash_array(const std::string& script, const std::string& name);
// `world` and `environment` ("NAME=value" lines) are what the assertions look at besides arguments.
Parsed parse_megatron(const std::vector<std::string>& words, int world, const std::string& environment);
// 'Et*3|t*2|...': decoder layers by stage.
std::vector<int> decoder_layers_of(const std::string& layout, std::vector<std::string>& wrong);
// '([0]*3+[1]*58)': one number a layer.
std::vector<int> layer_frequency(const std::string& pattern, std::vector<std::string>& wrong);

Parsed parse_torchrun(const std::vector<std::string>& words);
std::vector<std::string> parse_hostlist(const std::string& text);

}  // namespace topomoe::test
