// The torchrun command, the same on each host but for NODE_RANK.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "planner/emit/hosts.hpp"

namespace topomoe {

Expected<Emitted, Refused> emit_torchrun(const Plan& p, const EmitOptions& options) {
  const PlannedHosts hosts = hosts_of(p, options);
  if (hosts.ranks_per_host == 0)
    return Refused{{{"torchrun starts equally many consecutive ranks on each host, the plan does not",
                     "launch by rankfile or slurm"}}};
  Emitted out;
  if (!hosts.named)
    out.not_expressed.push_back("machines: host names are the plan's own; --hosts puts yours in their place");
  if (!hosts.devices_known)
    out.not_expressed.push_back("which GPU a local rank gets: the plan knows no bus ids; CUDA's order decides");
  out.text = comment_header(p, out.not_expressed);
  out.text += "# On each host of this list, NODE_RANK=<its number> bash THIS program.py arguments\n";
  for (std::size_t i = 0; i < hosts.names.size(); ++i) out.text += fmt::format("#   {} {}\n", i, hosts.names[i]);
  out.text += "# Local rank i is the i-th GPU by bus id, as in the plan; CUDA's own order is fastest first.\n";
  out.text += "export CUDA_DEVICE_ORDER=PCI_BUS_ID\n";
  if (!hosts.device_order.empty())
    out.text += fmt::format("export CUDA_VISIBLE_DEVICES={}  # the plan's ranks are not in order of bus id\n",
                            fmt::join(hosts.device_order, ","));
  out.text +=
      "# Static rendezvous: ranks follow NODE_RANK. c10d numbers hosts as they arrive (pytorch/pytorch#137402), which\n"
      "# would put groups of the plan on other nodes; for the same reason no restarts.\n";
  out.text += fmt::format(
      "exec torchrun --nnodes={} --nproc-per-node={} --node-rank=\"${{NODE_RANK:?number of this host}}\" "
      "--rdzv-backend=static --master-addr={} --master-port=29500 --max-restarts=0 \"$@\"\n",
      hosts.names.size(), hosts.ranks_per_host, hosts.names.front());
  return out;
}

}  // namespace topomoe
