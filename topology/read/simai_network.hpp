// The topology text of SimAI, and of the ns-3 networks it comes from (HPCC, ASTRA-sim), as plain lists.
//
// First line: nodes, GPUs of a server, NVSwitches, switches, links, kind of GPU; of ns-3: nodes, switches, links. Then
// the numbers of NVSwitches and switches, then a line for each link: ends, rate, delay, error rate. A link goes both
// ways. The simulators stop after as many links as the first line says; what follows is told apart here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

struct SimaiNetwork {
  static constexpr int kMostNodes = 1'000'000, kMostLinks = 4'000'000;
  enum class Kind : char { end, nvswitch, network_switch };  // end: a GPU, or of ns-3 a host
  struct Link {
    int src = 0, dst = 0, line = 0;
    double GBps = 0, latency_us = 0;
  };
  bool has_gpus = false;
  int gpus_per_server = 0;  // 0: not said
  std::string gpu_type;
  std::vector<Kind> nodes;
  std::vector<int> switches;  // as listed, without NVSwitches
  std::vector<Link> links;
  std::vector<std::string> warnings;
};

// InvalidInput{"where: line 7", ...}. Fewer links than the first line says are refused; more are taken, with a warning.
SimaiNetwork parse_simai_network(std::string_view text, const std::string& where);

}  // namespace topomoe
