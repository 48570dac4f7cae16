// Raw signalling rates that follow from what a machine says about itself: link text, GPU generation, CPU model.
//
// A bound needs the raw rate. NCCL counts less (NVLink 18/20/12/20.6/40.1 GB/s a link for sm 60/70-80/86/90/100): its
// figures are what transfers reach, not what the wire carries.
#pragma once

#include <string>

#include "topology/read/nccl_xml.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

// "16.0 GT/s PCIe" x 16 -> 32 GB/s; what is missing is read as NCCL reads it (Gen3, 16 lanes) and marked assumed.
Rate pcie_rate(const std::string& link_speed, int link_width);
// One NVLink, one direction, by compute capability; rate 0 where the generation is not known.
Rate nvlink_rate(int sm);
// One XGMI link by architecture ("910", "gfx942").
Rate xgmi_rate(const std::string& gcn);
Rate cpu_interconnect_rate(const XmlCpu&);
// One port; speed 0: 10,000 Mb/s, as NCCL takes it.
Rate net_rate(const XmlNet&);

// What NCCL counts on for one NVLink and direction (SM60_NVLINK_BW and its siblings of NCCL 2.28): less than the wire
// carries. 0: not known.
double nccl_nvlink_GBps(int sm);

// Figures by PCI vendor and device id; where they are not in the table, a name and no figures.
GpuSpec known_gpu(const XmlPci&);
// True for boards that are only sold with NVLink: none in their file is suspicious.
bool has_nvlink_by_design(const XmlPci&);

}  // namespace topomoe
