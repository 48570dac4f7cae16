// PCIe of one host: what each slot gives, beside those of devices of the same make.
#include <fmt/format.h>

#include <map>

#include "topology/doctor/doctor_host.hpp"
#include "topology/host_tree.hpp"
#include "topology/names.hpp"

namespace topomoe {

void diagnose_slots(const HostCase& own) {
  std::vector<bool> above_gpus(own.host.devices.size());
  const HostTree tree(own.host);
  for (const int gpu : own.host.gpus)
    for (const int above : tree.way_up(gpu)) above_gpus[static_cast<std::size_t>(above)] = true;
  std::map<std::string, std::vector<const Link*>> alike;
  for (const Link& link : own.host.links) {
    if (link.kind != LinkKind::pcie || link.source == Source::assumed) continue;
    const DeviceKind kind = own.device(link.src).kind;
    if (kind != DeviceKind::gpu && kind != DeviceKind::nic && !above_gpus[static_cast<std::size_t>(link.src)]) continue;
    alike[own.make_of(link.src)].push_back(&link);
  }
  for (const auto& [make, links] : alike) {
    std::vector<double> rates;
    for (const Link* link : links) rates.push_back(link->GBps_per_direction);
    const auto rate = usual(rates);
    if (!rate) continue;
    for (const Link* link : links) {
      if (link->GBps_per_direction > 0.999 * *rate) continue;
      const auto like = std::count_if(rates.begin(), rates.end(), [&](double r) { return r > 0.999 * *rate; });
      own.add(Severity::severe, own.named(link->src),
              fmt::format("PCIe at {} GB/s ({})", short_number(link->GBps_per_direction, 1), link->source_note),
              fmt::format("{} GB/s, as {} of {} devices of its make here", short_number(*rate, 1), like, rates.size()),
              "lspci -vv: LnkSta against LnkCap; reseat, or another slot, riser or cable",
              own.cost_against([&](HostTemplate& host) {
                host.links[static_cast<std::size_t>(link - own.host.links.data())].GBps_per_direction = *rate;
              }));
    }
  }
}

}  // namespace topomoe
