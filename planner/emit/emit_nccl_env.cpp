// NCCL variables (names as of NCCL 2.30) that the plan's prices rest on: few, each with its reason. Algorithms and
// protocols are never forced; its tuner has no all-to-all to steer.

#include <fmt/format.h>

#include <algorithm>

#include "planner/emit/hosts.hpp"

namespace topomoe {

Expected<Emitted, Refused> emit_nccl_env(const Plan& p, const EmitOptions& options) {
  const PlannedHosts hosts = hosts_of(p, options);
  const int many = static_cast<int>(hosts.names.size());
  const auto bytes_on = [&](std::string_view link_class) {
    double bytes = 0;
    for (const LinkClassLoad& l : p.loads)
      if (l.link_class == link_class) bytes += l.bytes;
    return bytes;
  };
  Emitted out;
  std::string body;
  const auto set = [&](std::string_view name, std::string_view value, const std::string& reason) {
    body += fmt::format("# {}\nexport {}={}\n", one_line(reason), name, value);
  };
  set("NCCL_DEBUG", "VERSION", "says once which NCCL runs; the plan's rates are of one machine and one version");
  if (p.topology.gpus_per_node > hosts.ranks_per_host) {
    set("NCCL_MNNVL_ENABLE", "1",
        fmt::format("a node of the plan is {} GPUs on several hosts: fail, rather than fall back to the network, where "
                    "NVLink does not span them",
                    p.topology.gpus_per_node));
    set("NCCL_CUMEM_ENABLE", "1", "NVLink between hosts needs it");
  }
  if (many > 1 && bytes_on("nic_out") > 0) {
    set("NCCL_PXN_DISABLE", "0",
        "flows to another rail are priced over NVLink to the GPU of that rail; a site default of 1 would send them "
        "over the spine");
    if (bytes_on("leaf_up") <= 0)
      set("NCCL_CROSS_NIC", "0",
          "the plan's MoE traffic uses no leaf uplink: rings and trees are to stay on their rails too");
  }
  if (many > 1)
    out.not_expressed.push_back(
        "NCCL_SOCKET_IFNAME and NCCL_IB_HCA: the plan does not know the names of interfaces; set them where "
        "bootstrap takes the wrong one");
  if (p.schedule.chunks > 1 || p.schedule.transport != "flat")
    out.not_expressed.push_back(
        fmt::format("\"{}\": no NCCL variable changes how an all-to-all travels; the runtime, or the framework's "
                    "dispatcher, does it",
                    p.schedule.name));
  out.text = comment_header(p, out.not_expressed) + body;
  return out;
}

}  // namespace topomoe
