// One host's own faults: what its checks share, and the checks by subject. Internal to topology/.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "topomoe/doctor.hpp"

namespace topomoe {

// The host that is looked at, its name in findings, and where findings go.
class HostCase {
 public:
  // `its_name` begins the name of each element: "node7."; empty for the only host. All three must outlive it.
  HostCase(const HostTemplate& its_host, const std::string& its_name, std::vector<Finding>& findings)
      : host(its_host), where(its_name), findings_(findings) {}

  const HostTemplate& host;
  const std::string& where;

  const HostDevice& device(int index) const { return host.devices[static_cast<std::size_t>(index)]; }
  std::string named(int index) const;
  // Kind, PCI class, vendor and device: equal for devices that ought to be alike.
  std::string make_of(int index) const;
  void add(Severity, std::string element, std::string seen, std::string expected, std::string check,
           std::string cost = {}) const;
  // What a fault costs: the bound of an all-to-all as the host is, and as it would be.
  std::string cost_against(const std::function<void(HostTemplate&)>& repair) const;

 private:
  std::vector<Finding>& findings_;
  mutable double now_GBps_ = -1;  // all_to_all_GBps of the host as it is; -1: not asked for
};

// NVLink and XGMI: fewer than siblings have, one way only, into nothing.
void diagnose_gpu_links(const HostCase&);
// PCIe, against devices of the same make: what the slot gives.
void diagnose_slots(const HostCase&);
// NICs: how far from their GPUs, how many, how fast, merged or virtual.
void diagnose_nics(const HostCase&);
// Rates that nobody said, and rates that stand in for them.
void diagnose_rates(const HostCase&);

// All of these.
void diagnose_host(const HostTemplate& host, const std::string& where, std::vector<Finding>& findings);

// All that an all-to-all inside this host can move, GB/s a GPU and direction; 0: there is no way, or one GPU.
double all_to_all_GBps(const HostTemplate& host);

// The value that more than half have.
template <class T>
std::optional<T> usual(const std::vector<T>& values) {
  for (const T& value : values)
    if (2 * std::count(values.begin(), values.end(), value) > static_cast<std::ptrdiff_t>(values.size())) return value;
  return std::nullopt;
}

}  // namespace topomoe
