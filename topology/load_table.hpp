// The worst link of each class, from links added one by one or with a count of equal ones.
#pragma once

#include <array>
#include <vector>

#include "topology/router_state.hpp"

namespace topomoe {

class LoadTable {
 public:
  // In the order of LinkInfo::klass. The first six are LinkKind's first six, in the same order.
  static constexpr std::array kClasses{"nvlink",   "xgmi",     "c2c",         "pcie",    "cpu_interconnect",
                                       "cpu_root", "nic_out",  "nic_in",      "leaf_up", "leaf_down",
                                       "pod_up",   "pod_down", "group_group", "ring"};
  std::size_t class_of(int id) const;  // in kClasses

  explicit LoadTable(const Router& router) : router_(router) {}

  // `count` links with these bytes each, of which `id` is the lowest. Of equally slow links the lowest is kept.
  void add(int id, double bytes, int count) {
    if (bytes <= 0) return;
    ClassLoad& load = classes_[class_of(id)];
    load.total_bytes += bytes * count;
    const double rate = router_.link_GBps_per_direction(id);
    const double seconds = bytes / (rate * 1e9);
    if (load.link >= 0 && (seconds < load.seconds || (seconds == load.seconds && id > load.link))) return;
    load.link = id;
    load.max_bytes = bytes;
    load.GBps_per_direction = rate;
    load.seconds = seconds;
  }

  Bottleneck bottleneck() const;
  std::vector<ClassLoad> by_class() const;

 private:
  const Router& router_;
  std::array<ClassLoad, kClasses.size()> classes_;
};

}  // namespace topomoe
