// What a GPU's name says about the speed of its collectives: facts of its generation, for scaling measured
// curves from one machine to another by datasheet ratios.
#pragma once

#include <string_view>

namespace topomoe {

struct GpuFacts {
  std::string_view model;  // "H100": one word for all spellings of a board's name; empty: not known
  int sm = 0;              // compute capability x 10; 0: the name is not known
  // Boost clock: small messages take instructions and polls of the SMs, so their time goes as 1 / clock.
  double clock_GHz = 0;
  // Of the raw NVLink rate, what NCCL's own model counts on: 20, 20.6 and 40.1 of 25, 25 and 50 GB/s a link.
  double nvlink_fraction = 0.8;
  // The NVSwitch reduces and multicasts (NVLink SHARP, NCCL's NVLS): from Hopper on.
  bool reduces_in_switch = false;
};

// By words in the name: "H100 SXM 80GB" -> Hopper.
GpuFacts gpu_facts(std::string_view gpu_name);

}  // namespace topomoe
