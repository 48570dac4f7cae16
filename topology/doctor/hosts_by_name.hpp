// Which host of a description a program means by a name. Internal to the doctor.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "topology/short_host_name.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

// Hosts of a description by whole name, or by what is before the first dot; a name of several hosts is none's.
class HostsByName {
 public:
  HostsByName(const Topology& topology, const std::vector<int>& hosts) {
    for (const int host : hosts) {
      if (static_cast<std::size_t>(host) >= topology.host_names.size()) continue;
      const std::string& name = topology.host_names[static_cast<std::size_t>(host)];
      if (name.empty()) continue;
      add(whole_, name, host);
      add(short_, short_host_name(name), host);
    }
  }
  bool empty() const { return whole_.empty(); }
  // -1: none; kSeveral: it may be any of several.
  int find(const std::string& name) const {
    if (const auto found = whole_.find(name); found != whole_.end()) return found->second;
    const auto found = short_.find(short_host_name(name));
    return found == short_.end() ? -1 : found->second;
  }
  static constexpr int kSeveral = -2;

 private:
  static void add(std::map<std::string, int>& names, const std::string& name, int host) {
    const auto [known, fresh] = names.emplace(name, host);
    if (!fresh) known->second = kSeveral;
  }
  std::map<std::string, int> whole_, short_;
};

}  // namespace topomoe
