// What the description of one host does not say, or says by assumption.
#include <fmt/format.h>

#include <map>

#include "topology/doctor_host.hpp"

namespace topomoe {

void diagnose_rates(const HostCase& own) {
  std::map<std::string, int> unknown;
  for (const Link& link : own.host.links)
    if (link.source == Source::unknown) ++unknown[name(link.kind)];
  for (const Nic& nic : own.host.nics)
    if (nic.port.source == Source::unknown) ++unknown["nic"];
  for (const auto& [kind, count] : unknown)
    own.add(Severity::note, own.where + kind, fmt::format("the rate of {} links is not known", count),
            "a rate for each link; figures that follow from these are guesses",
            "give them in a cluster.json, or a dump that has them");
  if (own.host.nvlink == Presence::unknown && !own.host.gpus.empty())
    own.add(Severity::note, own.where + "nvlink", "the description says nothing of NVLink",
            "a dump of the running machine (NCCL_TOPO_DUMP_FILE)", "bounds inside this host are of PCIe");
}

}  // namespace topomoe
