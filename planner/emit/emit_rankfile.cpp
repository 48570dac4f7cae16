// Open MPI's rankfile: mpirun --rankfile FILE -n WORLD ...
//
// A rankfile always binds, whatever --bind-to says (Open MPI 4.1.4), and its "slot=*" means the first core for all
// ranks. "slot=S:*", all cores of socket S, is the widest that it can say.

#include <fmt/format.h>

#include <algorithm>

#include "planner/emit/hosts.hpp"

namespace topomoe {

std::vector<int> socket_of_gpus(const Topology& t) {
  const HostTemplate& host = t.host_template(t.host_of(0));
  std::vector<int> sockets;
  for (const int gpu : host.gpus) {
    sockets.push_back(host.devices[static_cast<std::size_t>(gpu)].numa);
    if (sockets.back() < 0)
      throw InvalidInput("--cluster", t.name, "it does not say on which NUMA node GPUs are: use --sockets");
  }
  return sockets;
}

Expected<Emitted, Refused> emit_rankfile(const Plan& p, const EmitOptions& options) {
  const PlannedHosts hosts = hosts_of(p, options);
  Emitted out;
  if (options.sockets < 1 || (hosts.ranks_per_host > 0 && options.sockets > hosts.ranks_per_host))
    throw InvalidInput("--sockets", std::to_string(options.sockets), "from 1 to the ranks of a host");
  if (hosts.ranks_per_host == 0 && options.sockets > 1)
    return Refused{{{"ranks of a host are not consecutive, they cannot be spread over sockets in order",
                     "emit it without --sockets"}}};
  const std::vector<int>& known = options.socket_of_gpu;
  if (!known.empty() && (options.sockets > 1 || static_cast<int>(known.size()) != hosts.ranks_per_host))
    throw InvalidInput("--cluster",
                       options.sockets > 1 ? fmt::format("--sockets {} beside it", options.sockets)
                                           : fmt::format("{} GPUs on a host", known.size()),
                       options.sockets > 1 ? "give one of both"
                                           : "the plan has " + std::to_string(hosts.ranks_per_host) + " ranks on each");
  out.not_expressed.push_back(
      fmt::format("cores: the plan places GPUs; a rankfile binds each rank to one socket, here {}",
                  !known.empty()         ? "to that of its GPU's NUMA node (where a socket has several: --sockets)"
                  : options.sockets == 1 ? "to the first of one: --cluster FILE or --sockets N say which there are"
                                         : fmt::format("in the order of GPUs of {}", options.sockets)));
  if (!hosts.named)
    out.not_expressed.push_back(
        "machines: host names are the plan's own; --hosts n[01-04] puts yours in their place, in the plan's order");
  out.text =
      comment_header(p, out.not_expressed) +
      fmt::format("# mpirun --rankfile THIS --host {} -n {} PROGRAM\n",
                  hosts.ranks_per_host > 0 ? fmt::format("{}:{}[,...]", hosts.names.front(), hosts.ranks_per_host)
                                           : std::string("HOST:SLOTS[,...]"),
                  p.ranks.size());
  const auto each = static_cast<std::size_t>(std::max(1, hosts.ranks_per_host));
  for (std::size_t rank = 0; rank < p.ranks.size(); ++rank) {
    const std::size_t local = rank % each;
    const auto socket = known.empty() ? local * static_cast<std::size_t>(options.sockets) / each
                                      : static_cast<std::size_t>(known[local]);
    out.text +=
        fmt::format("rank {}={} slot={}:*\n", rank, hosts.names[static_cast<std::size_t>(hosts.of_rank[rank])], socket);
  }
  return out;
}

}  // namespace topomoe
