#include "cli/calibrations.hpp"

#include "cli/files.hpp"
#include "planner/rates/builtin.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/same_machine.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {

void compare_machines(const Calibration& calibration, const std::string& file, const Topology& here) {
  const std::string differs = difference(calibration.machine, machine_figures(here));
  if (!differs.empty())
    say("warning: " + file + " was measured on another machine (" + differs +
        "): its curves inside nodes are scaled, those between nodes left out");
}

namespace {

bool of_other_memory(const Calibration& calibration, const Topology& here) {
  return of_host_memory(calibration) && computes_on_gpus(here.gpu_spec(0));
}

}  // namespace

std::vector<Calibration> calibrations_for(const std::vector<std::string>& files, const Topology& here, RanksOn ranks,
                                          bool silent) {
  auto out = builtin_calibrations();
  for (const std::string& file : files) {
    out.push_back(read_calibration(read_text_file(file), file));
    if (ranks == RanksOn::gpus && of_host_memory(out.back()))
      throw InvalidInput("--calibration", file,
                         "was measured in host memory, and these ranks run on GPUs: profile them, or leave it out");
    if (silent) continue;
    compare_machines(out.back(), file, here);
    if (of_other_memory(out.back(), here))
      say("note: " + file + " was measured in host memory, as these ranks run: predictions are theirs, not those of " +
          here.gpu_spec(0).name);
  }
  return out;
}

void require_device_curves(const Calibration& calibration, const std::string& file, const Topology& here,
                           bool host_curves) {
  if (!of_other_memory(calibration, here)) return;
  const std::string gpu = here.gpu_spec(0).name;
  if (!host_curves)
    throw InvalidInput("--calibration", file,
                       "was measured in host memory, and links and copies of " + gpu +
                           " are others: leave it out, import what was measured on the GPUs (calibrate), or insist "
                           "with --host-curves");
  say("warning: " + file + " was measured in host memory, and is taken for " + gpu + " (--host-curves)");
}

void add_host_curves_option(CLI::App& command, bool& host_curves) {
  command.add_flag("--host-curves", host_curves,
                   "Take a --calibration that was measured in host memory for a cluster of GPUs");
}

}  // namespace topomoe::cli
