// NVML in a child: a broken driver can hang or crash whoever asks it. The report comes back as JSON.
#include <nlohmann/json.hpp>

#include "topology/discover/discover.hpp"
#include "topology/discover/in_child.hpp"
#include "topology/discover/nvml.hpp"

namespace topomoe {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(NvmlLink, number, active, remote, remote_bus_id)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(NvmlFabric, state, status, cluster, clique, is_degraded)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(NvmlGpu, bus_id, name, sm, memory_GiB, pcie_max_generation, pcie_width,
                                   pcie_max_width, links_known, links, fabric)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(NvmlReport, has_library, driver, gpus, warnings)

NvmlReport discover_with_nvml(const std::function<std::string(const std::string&)>& pci_class) {
  using Json = nlohmann::json;
  const ChildAnswer answer = in_child(
      [&] {
        return Json(read_nvml("libnvidia-ml.so.1", pci_class)).dump(-1, ' ', false, Json::error_handler_t::replace);
      },
      kDriverDeadline);
  if (answer.text) return Json::parse(*answer.text).get<NvmlReport>();
  NvmlReport report;
  report.has_library = true;
  report.warnings = {"NVML: " + answer.why +
                     ": the driver does not answer (nvidia-smi too?); what only it knows is left out"};
  return report;
}

}  // namespace topomoe
