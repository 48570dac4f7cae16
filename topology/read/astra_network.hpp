// ASTRA-sim's analytical network: NPUs in dimensions, innermost first, each a Ring, a FullyConnected or a Switch.
//
// bandwidth is of one link and direction, in GB/s; latency of one link, in ns (a Switch is passed by two links). Each
// NPU has links of its own in every dimension. ASTRA-sim itself multiplies its GB by 2^30 bytes; files are written, and
// read here, with 10^9.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

struct AstraDimension {
  enum class Kind { ring, fully_connected, switched };
  Kind kind = Kind::ring;
  int npus = 0;
  double GBps = 0, latency_ns = 0;
};
const char* name(AstraDimension::Kind);  // "FullyConnected"

struct AstraNetwork {
  std::vector<AstraDimension> dimensions;
  std::vector<std::string> warnings;  // keys that are not known here
};

// InvalidInput names line and key of what ASTRA-sim would not take either.
AstraNetwork parse_astra_network(std::string_view text, const std::string& where);

}  // namespace topomoe
