// The readers that only the table of formats (formats.cpp) calls: text -> Topology, or InvalidInput with where, what
// and a way out.
#pragma once

#include <string>
#include <string_view>

#include "topomoe/topology.hpp"

namespace topomoe {

Topology read_hwloc_xml(std::string_view text, const std::string& where);
Topology read_nvidia_smi(std::string_view text, const std::string& where);
// rocm-smi --showtopo, amd-smi topology.
Topology read_amd_smi(std::string_view text, const std::string& where);
// Of the network alone: hosts without GPUs. Slurm's topology.conf and topology.yaml; what ibnetdiscover prints, with or
// without -p.
Topology read_slurm_conf(std::string_view text, const std::string& where);
Topology read_slurm_yaml(std::string_view text, const std::string& where);
Topology read_ibnetdiscover(std::string_view text, const std::string& where);
// Networks of simulators: GPUs of unknown kind, or hosts without any.
Topology read_htsim(std::string_view text, const std::string& where);
Topology read_simai(std::string_view text, const std::string& where);
Topology read_astra(std::string_view text, const std::string& where);
Topology read_simgrid(std::string_view text, const std::string& where);
Topology read_topograph_model(std::string_view text, const std::string& where);
Topology read_topograph_graph(std::string_view text, const std::string& where);
Topology read_topograph_netq(std::string_view text, const std::string& where);

// "rack/dgx.xml" -> "dgx": what a topology is called after its file.
std::string stem_of_file(const std::string& where);

}  // namespace topomoe
