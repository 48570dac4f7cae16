// The calibrations that a command prices with, and whether they are of what it prices.
//
// Ranks on CPUs move host memory: what `profile` measures of them holds for such ranks and for clusters that compute on
// CPUs. A GPU's links and copies are others, so that a plan for GPUs takes such curves only where the user insists.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "topomoe/calibration.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::cli {

// Where those ranks compute that a command runs, and prices.
enum class RanksOn { host, gpus };

// The built-in ones, then these files, for ranks that run here and now. Says of a file that was measured on another
// machine than `here` how that differs, and of host memory for a cluster of GPUs whose predictions these are, unless
// silent. Throws InvalidInput for curves of host memory where ranks run on GPUs.
std::vector<Calibration> calibrations_for(const std::vector<std::string>& files, const Topology& here, RanksOn ranks,
                                          bool silent = false);
// Only says how the machine differs.
void compare_machines(const Calibration& calibration, const std::string& file, const Topology& here);

// For plans. Throws InvalidInput where the cluster computes on GPUs and this was measured in host memory; says so
// instead where `host_curves` takes it.
void require_device_curves(const Calibration& calibration, const std::string& file, const Topology& here,
                           bool host_curves);
void add_host_curves_option(CLI::App& command, bool& host_curves);

}  // namespace topomoe::cli
