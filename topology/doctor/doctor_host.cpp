#include "topology/doctor/doctor_host.hpp"

#include <fmt/format.h>

#include "topology/host_tree.hpp"
#include "topology/names.hpp"

namespace topomoe {

std::string HostCase::named(int index) const { return where + shown(device(index)); }

std::string HostCase::make_of(int index) const {
  const HostDevice& own = device(index);
  return fmt::format("{} {} {} {}", name(own.kind), attribute(own.attributes, "class"),
                     attribute(own.attributes, "vendor"), attribute(own.attributes, "device"));
}

void HostCase::add(Severity severity, std::string element, std::string seen, std::string expected, std::string check,
                   std::string cost) const {
  findings_.push_back(
      {severity, std::move(element), std::move(seen), std::move(expected), std::move(cost), std::move(check)});
}

std::string HostCase::cost_against(const std::function<void(HostTemplate&)>& repair) const {
  constexpr std::size_t kMostGpus = 32;  // pairs of more take seconds a finding
  if (host.gpus.size() > kMostGpus) return {};
  HostTemplate repaired = host;
  repair(repaired);
  if (now_GBps_ < 0) now_GBps_ = all_to_all_GBps(host);
  const double now = now_GBps_, then = all_to_all_GBps(repaired);
  if (!(now > 0) || !(then > now * 1.001)) return {};
  return fmt::format("all-to-all inside this host: at most {} of {} GB/s a GPU", short_number(now, 1),
                     short_number(then, 1));
}

double all_to_all_GBps(const HostTemplate& host) {
  const auto gpus = static_cast<int>(host.gpus.size());
  if (gpus < 2) return 0;
  const Topology alone{.templates = {host}, .groups = {{0, 1}}};
  LinkLoads loads{Router(alone)};
  for (int src = 0; src < gpus; ++src)
    for (int dst = 0; dst < gpus; ++dst) {
      if (src == dst) continue;
      if (loads.router().route(src, dst).path_class == PathClass::DIS) return 0;
      loads.add(src, dst, 1e9);
    }
  return (gpus - 1) / loads.bottleneck().seconds;
}

void diagnose_host(const HostTemplate& host, const std::string& where, std::vector<Finding>& findings) {
  const HostCase own(host, where, findings);
  diagnose_gpu_links(own);
  diagnose_slots(own);
  diagnose_nics(own);
  diagnose_rates(own);
}

}  // namespace topomoe
