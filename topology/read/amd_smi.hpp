// The tables of `rocm-smi --showtopo` and `amd-smi topology` as plain cells, checked for form only.
//
// Both print one table below another, each with the GPUs as rows and columns: by number ("GPU0") or by bus id. Read
// are the kinds of links, hops and bandwidths; other tables are passed over. A cell that is not one of its words is
// refused, never skipped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

enum class AmdLink { unknown, self, pcie, xgmi };

struct AmdSmi {
  std::vector<std::string> gpus;  // "GPU0" or "0000:0c:00.0"
  // [row * gpus + column] each; hops 0 and MBps 0: not said.
  std::vector<AmdLink> links;
  std::vector<int> hops;
  std::vector<double> MBps;  // the greater of the two that the driver gives, one direction
  std::vector<int> numa;     // of each GPU; -1: not said
  std::size_t at(std::size_t row, std::size_t column) const { return row * gpus.size() + column; }
};

// InvalidInput{where + line, value, way out}; at most 96 GPUs.
AmdSmi parse_amd_smi(std::string_view text, const std::string& where);

}  // namespace topomoe
