#include "topology/discover/sysfs_ports.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace topomoe {
namespace {

namespace fs = std::filesystem;

// Nothing of another machine's tree, nor a bus id that a driver made up, leads out of the folder.
bool is_plain(const std::string& name) { return !name.empty() && name.find('/') == std::string::npos && name != ".."; }

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line.substr(0, 256);
}

double first_number(const fs::path& file) {
  std::ifstream in(file);
  double value = 0;
  return in >> value && value > 0 ? value : 0;
}

// "200 Gb/sec (4X HDR)"; "4: ACTIVE"
NicPort rdma_port(const fs::path& port, const std::string& name) {
  NicPort out;
  out.name = name;
  const std::string state = first_line(port / "state"), layer = first_line(port / "link_layer");
  out.is_down = !state.empty() && !state.starts_with("4:");
  if (!out.is_down) out.Gbps = first_number(port / "rate");  // else the slowest there is, not the port's
  if (!layer.empty()) out.attributes.push_back({"link_layer", layer});
  return out;
}

// ARPHRD_ETHER and ARPHRD_INFINIBAND of Linux' if_arp.h.
NicPort net_port(const fs::path& net, const std::string& name) {
  NicPort out;
  out.name = name;
  const std::string state = first_line(net / "operstate");
  out.is_down = state == "down" || state == "lowerlayerdown" || state == "notpresent";
  if (!out.is_down) out.Gbps = first_number(net / "speed") / 1000;  // Mb/s
  const double type = first_number(net / "type");
  if (type == 1 || type == 32) out.attributes.push_back({"link_layer", type == 1 ? "Ethernet" : "InfiniBand"});
  return out;
}

// In switchdev mode a NIC has a network device for each virtual function too: "pf0vf3", "c1pf0sf2".
bool is_representor(const fs::path& net) {
  const std::string port = first_line(net / "phys_port_name");
  return port.find("pf") != std::string::npos &&
         (port.find("vf") != std::string::npos || port.find("sf") != std::string::npos);
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    out.push_back(entry->path());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

NicPorts ports_in_sysfs(const std::string& root, const std::string& bus_id, const std::vector<std::string>& rdma_names,
                        const std::vector<std::string>& net_names) {
  const fs::path sys = root + "/sys";
  NicPorts out;
  std::error_code error;
  if (is_plain(bus_id)) out.is_virtual_function = fs::exists(sys / "bus/pci/devices" / bus_id / "physfn", error);
  std::vector<std::string> nets;
  for (const std::string& name : net_names)
    if (is_plain(name) && fs::exists(sys / "class/net" / name, error) && !is_representor(sys / "class/net" / name))
      nets.push_back(name);
  for (const std::string& name : rdma_names) {
    if (!is_plain(name)) continue;
    const std::vector<fs::path> ports = sorted_entries(sys / "class/infiniband" / name / "ports");
    for (const fs::path& port : ports)
      out.ports.push_back(rdma_port(port, ports.size() == 1 ? name : name + ":" + port.filename().string()));
  }
  if (out.ports.size() == 1 && nets.size() == 1) out.ports[0].attributes.push_back({"netdev", nets[0]});
  if (!out.ports.empty()) return out;
  for (const std::string& name : nets) out.ports.push_back(net_port(sys / "class/net" / name, name));
  return out;
}

std::string pci_class_in_sysfs(const std::string& root, const std::string& bus_id) {
  return is_plain(bus_id) ? first_line(fs::path(root + "/sys/bus/pci/devices") / bus_id / "class") : std::string();
}

}  // namespace topomoe
