// An NCCL or RCCL topology XML as plain lists, checked for form only: what the file says, before anything is made of
// it.
//
// Hosts are told apart by host_hash; inside a host, a PCI entry knows its parent entry and its CPU. What is missing
// stays missing (empty text, -1), so that the next step can tell "unknown" from "absent". `attributes` are an element's
// own, as they stand there, but for what tells one host from an equal one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct XmlGpuLink {
  std::string target;  // bus id
  int count = 0;
  std::string tclass;
  bool xgmi = false;
};

struct XmlNet {
  std::string name;
  int dev = -1;
  int rail = -1;
  double speed_Mbps = 0;  // 0: missing or not positive
  double latency_us = 0;
  std::vector<Attribute> attributes;
};

struct XmlPci {
  std::string bus_id, pci_class, vendor, device, link_speed;
  int link_width = 0;  // 0: missing or 0
  int parent = -1;     // in XmlHost::pci; -1: directly under the CPU
  int cpu = 0;         // in XmlHost::cpus
  bool has_children = false;
  std::vector<std::string> pci_links;  // bus ids of switches joined to this one
  // <gpu>
  bool has_gpu = false;
  int sm = -1, gpu_dev = -1;
  std::string gcn;
  std::vector<XmlGpuLink> links;
  double c2c_GBps = 0;
  int c2c_count = 0;
  std::vector<Attribute> attributes, gpu_attributes;
  // <nic>
  bool has_nic = false;
  std::vector<XmlNet> nets;
};

struct XmlCpu {
  std::string numa_id, arch, vendor;
  int family = -1, model = -1;
  bool has_nic = false;
  std::vector<Attribute> attributes;
  std::vector<XmlNet> nets;  // nets that sit directly under the CPU: virtual, or their PCI place is hidden
};

struct XmlHost {
  std::string hash;
  std::vector<XmlCpu> cpus;
  std::vector<XmlPci> pci;
};

struct XmlSystem {
  std::vector<XmlHost> hosts;
  bool rccl = false;
  std::vector<std::string> warnings;
};

// InvalidInput{where + element and attribute, value, way out} for what no NCCL would write.
XmlSystem parse_nccl_xml(std::string_view text, const std::string& where);

}  // namespace topomoe
