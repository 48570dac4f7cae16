// An sbatch script that starts rank r where the plan wants it. Slurm sorts node lists by name, whatever the switches
// are; an explicit host file with the arbitrary distribution is the one order that it keeps.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "planner/emit/hosts.hpp"

namespace topomoe {

Expected<Emitted, Refused> emit_slurm(const Plan& p, const EmitOptions& options) {
  const PlannedHosts hosts = hosts_of(p, options);
  if (hosts.ranks_per_host == 0)
    return Refused{
        {{"the script asks for equally many consecutive ranks on each host, the plan does not", "launch by rankfile"}}};
  Emitted out;
  if (!hosts.named)
    out.not_expressed.push_back(
        "machines: the k-th node of the allocation, by name, becomes host k; --hosts n[01-04] asks for yours in the "
        "plan's order");
  if (!hosts.devices_known)
    out.not_expressed.push_back("which GPU a local rank gets: the plan knows no bus ids; CUDA's order decides");
  out.not_expressed.push_back("partition, account, time limit and container: no part of a plan");
  out.text = "#!/bin/bash\n" + comment_header(p, out.not_expressed);
  out.text += fmt::format(
      "#SBATCH --job-name=topomoe\n#SBATCH --nodes={}\n#SBATCH --ntasks={}\n#SBATCH --ntasks-per-node={}\n"
      "#SBATCH --gpus-per-node={}\n#SBATCH --exclusive\n",
      hosts.names.size(), p.ranks.size(), hosts.ranks_per_host, hosts.ranks_per_host);
  if (hosts.named) out.text += fmt::format("#SBATCH --nodelist={}\n", fold_hostlist(hosts.names));
  out.text += "set -euo pipefail\n";
  out.text += "# Rank order: one line a rank. `scontrol show hostnames` keeps the order of the list.\n";
  out.text += "export SLURM_HOSTFILE=\"$PWD/topomoe-hosts.$SLURM_JOB_ID\"\n";
  out.text += fmt::format(
      "scontrol show hostnames {} | awk '{{ for (i = 0; i < {}; ++i) print }}' > \"$SLURM_HOSTFILE\"\n",
      hosts.named ? "'" + fold_hostlist(hosts.names) + "'" : "\"$SLURM_JOB_NODELIST\"", hosts.ranks_per_host);
  out.text += "MASTER_ADDR=$(head -n 1 \"$SLURM_HOSTFILE\")\nexport MASTER_ADDR MASTER_PORT=29500\n";
  out.text += "export CUDA_DEVICE_ORDER=PCI_BUS_ID  # local rank i is the i-th GPU by bus id, as in the plan\n";
  if (!hosts.device_order.empty())
    out.text += fmt::format("export CUDA_VISIBLE_DEVICES={}  # the plan's ranks are not in order of bus id\n",
                            fmt::join(hosts.device_order, ","));
  out.text += "# Slurm's names of a rank as torch.distributed and Megatron-LM read them.\n";
  out.text += fmt::format(
      "srun --ntasks={} --distribution=arbitrary bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID "
      "WORLD_SIZE=$SLURM_NTASKS exec \"$@\"' rank \"$@\"\n",
      p.ranks.size());
  return out;
}

}  // namespace topomoe
