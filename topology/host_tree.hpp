// What hangs on what inside a host: the tree of PCIe that most descriptions draw. Internal to topology/.
//
// A device hangs on the other end of its first link towards a CPU: of a PCIe link the end that is a switch or a CPU
// (written either way round where it goes both ways); a switch that stands for all that a CPU passes on (cpu_root) on
// that CPU; a GPU without PCIe on the CPU of its C2C link.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct HostTree {
  explicit HostTree(const HostTemplate& host);
  // Device above, -1: none (a CPU, an NVSwitch, or nothing is known). Never a ring.
  std::vector<int> parent;
  // The link to it, in HostTemplate::links; -1: none.
  std::vector<int> parent_link;
  std::vector<std::vector<int>> children;
  // Devices above, nearest first.
  std::vector<int> way_up(int device) const;
};

// Hosts of one kind: all but the template's name.
bool same_but_name(const HostTemplate& a, const HostTemplate& b);

// Which of the hosts given so far are of one kind, without a look at each pair.
class HostsByKind {
 public:
  // The number that was given with the first host of this kind; this one, where it is the first. Keeps no copy: `host`
  // is asked of `known` again.
  template <class Known>
  int first_like(const HostTemplate& host, int number, Known known) {
    std::vector<int>& alike = by_hash_[hash(host)];
    for (const int other : alike)
      if (same_but_name(known(other), host)) return other;
    alike.push_back(number);
    return number;
  }

 private:
  static std::size_t hash(const HostTemplate& host);
  std::unordered_map<std::size_t, std::vector<int>> by_hash_;
};

// "gpu3 (0000:1b:00.0)"
std::string shown(const HostDevice& device);

inline bool joins_gpus(const Link& link) { return link.kind == LinkKind::nvlink || link.kind == LinkKind::xgmi; }

}  // namespace topomoe
