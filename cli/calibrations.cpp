#include "cli/calibrations.hpp"

#include "cli/files.hpp"
#include "planner/rates/builtin.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/same_machine.hpp"
#include "topology/read_file.hpp"

namespace topomoe::cli {

void compare_machines(const Calibration& calibration, const std::string& file, const Topology& here) {
  const std::string differs = difference(calibration.machine, machine_figures(here));
  if (!differs.empty())
    say("warning: " + file + " was measured on another machine (" + differs +
        "): its curves inside nodes are scaled, those between nodes left out");
}

std::vector<Calibration> calibrations_for(const std::vector<std::string>& files, const Topology& here, bool silent) {
  auto out = builtin_calibrations();
  for (const std::string& file : files) {
    out.push_back(read_calibration(read_text_file(file), file));
    if (!silent) compare_machines(out.back(), file, here);
  }
  return out;
}

}  // namespace topomoe::cli
