// What one GPU of the cluster computes and moves in a second: raw rates for bounds, effective ones for
// estimates. Everything here is datasheet times a stated efficiency; calibration will replace it.
#pragma once

#include <string>

#include "planner/curve.hpp"
#include "topomoe/device.hpp"
#include "topomoe/topology.hpp"
#include "topomoe/units.hpp"

namespace topomoe {

// Fractions of the raw rate that software reaches, each with its source.
struct Efficiency {
  // cuBLAS BF16 on H100, median over large dense GEMMs (10^11 flop) of public tables: 0.79 of 989 TFLOP/s.
  double gemm = 0.75;
  // Flash attention, head width 128, causal, sequences of 4K and more on H100: 0.45-0.6 of the dense rate forward,
  // 0.4-0.5 backward (FlashAttention-2 and -3, arXiv 2307.08691 and 2407.08608, figures 4-6). From memory of those.
  double attention = 0.5, attention_backward = 0.42;
  // Streaming kernels; STREAM-like copies reach 0.85-0.92 of HBM's datasheet rate. Assumed.
  double memory = 0.85;
  // NCCL all-to-all on 8 x H100: 324 of 450 GB/s bus bandwidth measured at large sizes.
  double nvlink = 0.72;
  // GPUDirect RDMA streams on InfiniBand: payload over signalling rate. Assumed.
  double network = 0.90;
  double pcie = 0.80;  // TLP headers and flow control. Assumed.
  // One NCCL all-to-all inside a node, 512 B: 7 us measured on 8 x H100 (kernel launch included).
  Seconds intra_latency = microseconds(7);
  // Between nodes: launch, proxy wake-up, RDMA round trip. Assumed; 15-25 us are usual.
  Seconds inter_latency = microseconds(20);
  Seconds per_message = microseconds(0.5);  // posting one more peer's message. Assumed.
  Seconds launch = microseconds(4);         // one kernel. Assumed.
  // Reading counts back to the host before sizes are known. Assumed.
  Seconds host_sync = microseconds(15);
  // Traffic below this may stay in the GPU's caches, so no bound counts it. B200 has 126 MB, H100 50 MB of L2.
  double cache_bytes = 128e6;
  // How far off such figures were where they could be checked; here: none were, so a guess.
  double compute_error = 0.2, node_error = 0.3, between_error = 0.4;
  int communication_sms = 16;  // SMs that a running exchange takes from compute. Assumed (DeepEP: 20).
};

struct Machine {
  Efficiency efficiency;
  FlopsPerSecond flops;  // raw, of the job's dtype
  BytesPerSecond hbm;    // raw
  int sms = 0;
  double memory_GiB = 0;
  std::string gpu, source;
};

// Throws InvalidInput when the topology does not know the GPU's rates.
Machine machine_of(const Topology& topology, DType dtype);

// Effective fraction of a link class's raw rate.
double efficiency_of(const Efficiency& e, const std::string& link_class);

}  // namespace topomoe
