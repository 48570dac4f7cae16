#include "planner/machine.hpp"

#include "topomoe/error.hpp"

namespace topomoe {

Machine machine_of(const Topology& topology, DType dtype) {
  const GpuSpec& gpu = topology.gpu_spec(0);
  const auto need = [&](double figure, const char* field) {
    if (!(figure > 0))
      throw InvalidInput(topology.name + ": gpu." + field, "unknown",
                         "give it in the cluster JSON (configs/clusters has the figures of usual GPUs)");
    return figure;
  };
  Machine m;
  m.gpu = gpu.name;
  m.source = std::string(name(gpu.source)) + ", efficiencies assumed or measured as planner/machine.hpp says";
  m.flops =
      TFLOPps(dtype == DType::bf16 ? need(gpu.bf16_TFLOPps, "bf16_TFLOPps") : need(gpu.fp32_TFLOPps, "fp32_TFLOPps"));
  m.hbm = GBps(need(gpu.hbm_GBps, "hbm_GBps"));
  m.memory_GiB = gpu.memory_GiB;
  m.sms = gpu.sms > 0 ? gpu.sms : 100;
  return m;
}

double efficiency_of(const Efficiency& e, const std::string& link_class) {
  if (link_class == "nvlink" || link_class == "xgmi" || link_class == "c2c") return e.nvlink;
  if (link_class == "pcie" || link_class == "cpu_interconnect") return e.pcie;
  return e.network;
}

}  // namespace topomoe
