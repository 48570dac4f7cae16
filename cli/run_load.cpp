#include "cli/run_load.hpp"

#include <algorithm>

#include "cli/run_size.hpp"
#include "cli/together.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/device_cuda.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

// The plan's cluster and the one at hand must be the same. Returns as much of it as the plan uses.
Topology check_fingerprint(const Plan& plan, const Topology& topology, const std::string& where) {
  Topology sized =
      topology.gpu_count() == plan.topology.gpus ? topology : resize_hosts(topology, plan.topology.gpus, nullptr);
  const std::string here = fingerprint(sized);
  if (here != plan.topology.fingerprint)
    throw Failure("fingerprint of " + where + ": " + here + ", but the plan was made for " + plan.topology.fingerprint +
                  " (" + plan.topology.name + "): plan again for this cluster, or leave --cluster out to rehearse");
  return sized;
}

// As the launcher numbers this host's ranks, so do devices lie on its bus.
std::string bus_id_of(const LauncherRank& launched, const Topology& live) {
  const int gpu = launched.local_rank;
  return gpu >= 0 && gpu < live.gpu_count() ? live.bus_id(gpu) : "";
}

// Said before anything else: without GPUs whatever a plan says of them seems wrong.
void require_gpu(const LauncherRank& launched) {
  (void)make_cuda_device(std::max(0, launched.local_rank));
  if (nccl_description().find("not built in") != std::string::npos)
    throw MissingEnvironment(
        "nccl: this topomoe was built without NCCL (configure with NCCL and TOPOMOE_WITH_NCCL=ON)");
}

void require_ranks(const Plan& plan, const RunOptions& o, int ranks) {
  const std::string world = std::to_string(plan.layout.world);
  if (ranks != plan.layout.world)
    throw InvalidInput("ranks", std::to_string(ranks),
                       "the plan has " + world + "; launch it as: mpirun --oversubscribe -n " + world +
                           " topomoe run " + o.plan + " --backend " + o.backend);
}

}  // namespace

RanksOn ranks_of(const RunOptions& o) { return o.backend == "nccl" ? RanksOn::gpus : RanksOn::host; }

OutputFiles outputs_of(const RunOptions& o) {
  std::vector<NamedFile> inputs = named("--calibration", o.calibrations);
  inputs.push_back({"plan", o.plan});
  inputs.push_back({"--cluster", o.cluster});
  return {{{"--trace", o.trace}, {"--profile-out", o.profile}}, inputs};
}

LoadedRun load_run(const RunOptions& o, const LauncherRank& launched) {
  if (o.backend == "nccl") require_gpu(launched);
  LoadedRun out;
  const Plan whole = read_plan(read_text_file(o.plan), o.plan);
  out.plan = plan_of_kind(whole, o.kind);
  out.info.backend = o.backend, out.info.skipped = unexecuted(out.plan),
  out.info.rehearsal = o.cluster.empty() && o.backend != "nccl";
  for (int kind = 0; kind < moe_kind_count(whole.model); ++kind)
    if (kind != o.kind)
      out.info.skipped.push_back(kind_name(whole.model, kind) + ": --kind " + std::to_string(kind) + " runs it");
  if (!o.cluster.empty()) out.info.cluster = check_fingerprint(out.plan, read_topology_file(o.cluster), o.cluster);
  // What would otherwise be found after the run; said by the rank that predicts.
  if (out.info.cluster && !o.calibrations.empty())
    (void)calibrations_for(o.calibrations, *out.info.cluster, ranks_of(o), true);
  if (o.backend == "nccl") {
    const Topology live = discover_live();
    if (o.cluster.empty()) check_fingerprint(out.plan, live, "this machine");
    out.bus_id = bus_id_of(launched, live);
  }
  return out;
}

LoadedRun load_run_together(const RunOptions& o, const LauncherRank& launched, Context& context, Communicator& c) {
  return read_together(c, o.deadline().value_or(std::chrono::minutes(10)), context, [&] {
    if (c.rank() == 0) (void)outputs_of(o);
    LoadedRun mine = load_run(o, launched);
    require_ranks(mine.plan, o, c.size());
    return mine;
  });
}

}  // namespace topomoe::cli
