// Open MPI's rankfile: mpirun --rankfile FILE -n WORLD ...
//
// A rankfile always binds, whatever --bind-to says (Open MPI 4.1.4), and its "slot=*" means the first core for all
// ranks. "slot=S:*", all cores of socket S, is the widest that it can say.

#include <fmt/format.h>

#include <algorithm>

#include "planner/emit/hosts.hpp"

namespace topomoe {

Expected<Emitted, Refused> emit_rankfile(const Plan& p, const EmitOptions& options) {
  const PlannedHosts hosts = hosts_of(p, options);
  Emitted out;
  if (options.sockets < 1 || (hosts.ranks_per_host > 0 && options.sockets > hosts.ranks_per_host))
    throw InvalidInput("--sockets", std::to_string(options.sockets), "from 1 to the ranks of a host");
  if (hosts.ranks_per_host == 0 && options.sockets > 1)
    return Refused{{{"ranks of a host are not consecutive, they cannot be spread over sockets in order",
                     "emit it without --sockets"}}};
  out.not_expressed.push_back(
      fmt::format("cores: the plan places GPUs; a rankfile binds each rank to one socket, here {} of {}",
                  options.sockets == 1 ? "to the first" : "in the order of GPUs", options.sockets));
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
  for (std::size_t rank = 0; rank < p.ranks.size(); ++rank)
    out.text += fmt::format("rank {}={} slot={}:*\n", rank, hosts.names[static_cast<std::size_t>(hosts.of_rank[rank])],
                            rank % each * static_cast<std::size_t>(options.sockets) / each);
  return out;
}

}  // namespace topomoe
