#include "planner/rates/same_machine.hpp"

#include <fmt/format.h>

#include "planner/rates/gpu_facts.hpp"
#include "planner/rates/machine_figures.hpp"

namespace topomoe {

std::string difference(const CalibrationMachine& measured, const CalibrationMachine& here) {
  std::string out;
  const auto put = [&](const std::string& what) { out += (out.empty() ? "" : "; ") + what; };
  if (measured.interconnect != here.interconnect)
    put(fmt::format("interconnect {}, here {}", measured.interconnect, here.interconnect));
  else if (ratio_between(measured, here).distance > 0)
    put(measured.gpu.name != here.gpu.name
            ? fmt::format("{}, here {}", measured.gpu.name, here.gpu.name)
            : fmt::format("NVLink {:g} GB/s a GPU, here {:g}", measured.nvlink_GBps, here.nvlink_GBps));
  if (measured.nic_GBps != here.nic_GBps)
    put(fmt::format("NIC {:g} GB/s a GPU, here {:g}", measured.nic_GBps, here.nic_GBps));
  return out;
}

bool computes_on_gpus(const GpuSpec& spec) { return spec.sms > 0 || gpu_facts(spec.name).sm > 0; }

bool of_host_memory(const Calibration& calibration) {
  const auto backend = calibration.software.find("backend");
  return backend != calibration.software.end() && (backend->second == "inproc" || backend->second == "mpi");
}

std::string source_name(const Calibration& calibration) {
  return calibration.name + (of_host_memory(calibration) ? " (host memory)" : "");
}

}  // namespace topomoe
