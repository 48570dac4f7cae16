// The NICs of one host.
#include <fmt/format.h>

#include <array>
#include <map>
#include <set>

#include "topology/doctor/doctor_host.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

void far_from_their_gpus(const HostCase& own) {
  const Topology alone{.templates = {own.host}, .groups = {{0, 1}}};
  const Router router(alone);
  std::vector<PathClass> classes;
  for (std::size_t gpu = 0; gpu < own.host.gpus.size(); ++gpu) {
    const int nic = router.nearest_nic(static_cast<int>(gpu));
    classes.push_back(nic < 0 ? PathClass::DIS : router.route_to_nic(static_cast<int>(gpu), nic).path_class);
  }
  const auto most = usual(classes);
  for (std::size_t gpu = 0; most && gpu < classes.size(); ++gpu) {
    if (classes[gpu] <= *most) continue;
    const auto near = std::count_if(classes.begin(), classes.end(), [&](PathClass c) { return c <= *most; });
    // Where fewer NICs than GPUs serve the host, some GPUs are far from them by design.
    const bool has_own = static_cast<std::ptrdiff_t>(own.host.nics.size()) >= near;
    own.add(has_own ? Severity::severe : Severity::warning, own.named(own.host.gpus[gpu]),
            fmt::format("nearest NIC by {}{}", name(classes[gpu]),
                        classes[gpu] >= PathClass::SYS ? ": on another NUMA node" : ""),
            fmt::format("{}, as {} of {} GPUs", name(*most), near, classes.size()),
            "the slot of its NIC, or a NIC that is missing (lspci, ibstat)",
            "what it sends takes links that others need");
  }
}

// Nets on as many NICs as GPUs is a rail for each.
void fewer_than_gpus(const HostCase& own) {
  std::map<double, int> by_rate;
  for (const Nic& nic : own.host.nics)
    if (nic.port.source != Source::unknown) ++by_rate[nic.port.GBps_per_direction];
  const int gpus = static_cast<int>(own.host.gpus.size());
  // A slower port of the same make is there: slow_ports tells of it, and nothing is missing.
  const auto with_slower = [&](double rate) {
    std::set<std::string> makes;
    for (const Nic& nic : own.host.nics)
      if (nic.port.GBps_per_direction == rate) makes.insert(own.make_of(nic.device));
    return std::count_if(own.host.nics.begin(), own.host.nics.end(),
                         [&](const Nic& nic) { return makes.count(own.make_of(nic.device)) > 0; });
  };
  for (const auto& [rate, count] : by_rate)
    if (gpus > 2 && count < gpus && 2 * count > gpus && with_slower(rate) != gpus)
      own.add(count + 1 == gpus ? Severity::severe : Severity::warning, own.where + "NICs",
              fmt::format("{} NICs of {} GB/s for {} GPUs", count, short_number(rate, 1), gpus),
              "one for each GPU, or a whole number of GPUs for each: rails of other hosts have no partner here",
              "a NIC or port that is down or missing (lspci, ibstat)",
              fmt::format("traffic between hosts: {} of {} GB/s", short_number(rate * count, 1),
                          short_number(rate * gpus, 1)));
}

// Ports of NICs of one make.
void slow_ports(const HostCase& own) {
  std::map<std::string, std::vector<const Nic*>> alike;
  for (const Nic& nic : own.host.nics)
    if (nic.port.source == Source::datasheet) alike[own.make_of(nic.device)].push_back(&nic);
  for (const auto& [make, nics] : alike) {
    std::vector<double> rates;
    for (const Nic* nic : nics) rates.push_back(nic->port.GBps_per_direction);
    const auto rate = usual(rates);
    if (!rate || rates.size() < 4) continue;  // fewer are told apart by what they are for
    for (const Nic* nic : nics)
      if (nic->port.GBps_per_direction < 0.999 * *rate)
        own.add(Severity::severe, own.where + (nic->name.empty() ? own.device(nic->device).name : nic->name),
                fmt::format("a port of {} GB/s", short_number(nic->port.GBps_per_direction)),
                fmt::format("{} GB/s, as {} of {} ports of its make here", short_number(*rate),
                            std::count(rates.begin(), rates.end(), *rate), rates.size()),
                "the cable, the transceiver and the switch port (ibstat, mlxlink, ethtool)",
                fmt::format("traffic between hosts on this rail: {} of {} GB/s",
                            short_number(nic->port.GBps_per_direction), short_number(*rate)));
  }
}

// Virtual functions by PCI vendor and device (PCI ID database): NVIDIA ConnectX-3 to the newest, Intel 82599, 700 and
// 800.
bool is_virtual(const HostDevice& own) {
  constexpr std::array<std::string_view, 10> kVirtual{
      "0x15b3:0x1004", "0x15b3:0x1014", "0x15b3:0x1016", "0x15b3:0x1018", "0x15b3:0x101a",
      "0x15b3:0x101c", "0x15b3:0x101e", "0x8086:0x10ed", "0x8086:0x154c", "0x8086:0x1889"};
  const std::string id = fmt::format("{}:{}", attribute(own.attributes, "vendor"), attribute(own.attributes, "device"));
  return std::find(kVirtual.begin(), kVirtual.end(), id) != kVirtual.end();
}

void merged_or_virtual(const HostCase& own) {
  std::map<std::string, int> nets;
  int functions = 0;
  for (const Nic& nic : own.host.nics) {
    if (nic.name.find('+') != std::string::npos)
      own.add(Severity::note, own.where + nic.name, "one net made of several ports (NCCL merged them)",
              "a net for each port, unless meant", "NCCL_NET_MERGE_LEVEL");
    if (!nic.name.empty()) ++nets[nic.name];
    functions += is_virtual(own.device(nic.device));
  }
  for (const auto& [net, count] : nets)
    if (count > 1)
      own.add(Severity::note, own.where + net, fmt::format("{} nets of this name", count),
              "one: their rates are added up, though the port may be one",
              "a virtual net; one of them in a cluster.json");
  if (functions > 0)
    own.add(Severity::note, own.where + "NICs",
            fmt::format("{} of {} are virtual functions", functions, own.host.nics.size()),
            "whole ports: what other virtual machines send through them is not described",
            "meant so in a VM; lspci of the host behind it");
}

}  // namespace

void diagnose_nics(const HostCase& own) {
  if (own.host.gpus.empty()) return;
  far_from_their_gpus(own);
  fewer_than_gpus(own);
  slow_ports(own);
  merged_or_virtual(own);
}

}  // namespace topomoe
