// The matrix of `nvidia-smi topo -m` as plain cells, checked for form only.
//
// Read as people paste it: tabs or spaces, comment prefixes, terminal colours, text before and after, columns of
// affinity or none, rows of NICs missing. A cell that is not one of its words is refused, never skipped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

enum class SmiClass { unknown, self, nvlink, pix, pxb, phb, node, sys };

struct SmiCell {
  SmiClass what = SmiClass::unknown;
  int links = 0;  // of NV#
  bool operator==(const SmiCell&) const = default;
};

struct SmiDevice {
  std::string column;  // "GPU0" "NIC3" "mlx5_0"
  bool gpu = false;
  bool has_row = false;
  std::string os_name;                      // from the NIC legend: "mlx5_3"
  std::string cpu_affinity, numa_affinity;  // as they stand: "0-23,48-71"; empty: not given
  std::string row;                          // its cells, one space between
};

struct SmiMatrix {
  std::vector<SmiDevice> devices;  // in the order of columns
  std::vector<SmiCell> cells;      // [row * devices + column], both halves filled where one is given
  const SmiCell& at(std::size_t row, std::size_t column) const { return cells[row * devices.size() + column]; }
};

std::string smi_word(const SmiCell&);  // "NV18"

bool looks_like_nvidia_smi(std::string_view text);
// InvalidInput{where + line, row and column, value, way out}; at most 96 devices.
SmiMatrix parse_nvidia_smi(std::string_view text, const std::string& where);

}  // namespace topomoe
