// What one GPU of the cluster computes and moves in a second: raw rates for bounds, models for estimates
// (planner/rates), and what no model covers: stated efficiencies.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "planner/rates/collective.hpp"
#include "planner/rates/compute.hpp"
#include "topomoe/device.hpp"
#include "topomoe/job.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/topology.hpp"
#include "topomoe/units.hpp"

namespace topomoe {

// Fractions of the raw rate that software reaches, each with its source.
struct Efficiency {
  // Streaming kernels; STREAM-like copies reach 0.85-0.92 of HBM's datasheet rate. Assumed.
  double memory = 0.85;
  // What a running exchange takes of a link beside others on it. NVLink and network follow from the collective model
  // (large all-to-alls inside a node and between two); these stand where it has nothing to say.
  double nvlink = 0.72;  // NCCL all-to-all on 8 x H100: 324 of 450 GB/s bus bandwidth at large sizes
  double network = 0.88;
  double pcie = 0.80;  // TLP headers and flow control. Assumed.
  // What a CPU's root complex forwards between devices: 12 of 64 GB/s explain 4.5 and 2.1 GB/s bus bandwidth of
  // all-to-alls on 4 and 8 L40S.
  double cpu_root = 0.19;
  Seconds launch = microseconds(4);  // one kernel. Assumed.
  // Reading counts back to the host before sizes are known. Assumed.
  Seconds host_sync = microseconds(15);
  // Traffic below this may stay in the GPU's caches, so no bound counts it. B200 has 126 MB, H100 50 MB of L2.
  double cache_bytes = 128e6;
  // Of the sources of compute and of collectives inside and between nodes: nine in ten lie within. See RateSource.
  double compute_error = 0, node_error = 0, between_error = 0;
  // What a step gets of the rate of kernels timed alone, copies and optimizer included. In training clocks fall under
  // the sustained load, hosts launch late, small kernels (loss, norms of gradients, data) are not priced. Set so that
  // Llama-3 405B on 8,192 H100 comes out at its published 430 TFLOP/s a GPU (arXiv 2407.21783, table 4;
  // tests/planner/accuracy/steps.cpp prints what it makes of others).
  static constexpr double kTrainingStep = 0.80;
  // Steps that could be checked came out within 7%.
  static constexpr double kTrainingStepError = 0.1;
  // Prefill and decode: as in training. Assumed: no measured serving step is at hand, hence the wide error.
  static constexpr double kInferenceStep = kTrainingStep, kInferenceStepError = 0.25;
  double in_step = 1;
  int communication_sms = 16;  // SMs that a running exchange takes from compute. Assumed (DeepEP: 20).
};

struct Machine {
  Efficiency efficiency;
  FlopsPerSecond flops;  // raw, of the job's dtype
  BytesPerSecond hbm;    // raw
  int sms = 0;
  double memory_GiB = 0;
  FfnKernel expert_kernel = FfnKernel::grouped_gemm;
  double weight_bytes = 0;  // of a weight as kernels read it; 0: the job's dtype
  std::string gpu;
  // Measured where a calibration fits, scaled or datasheet where not; never null.
  std::shared_ptr<const ComputeModel> compute;
  std::shared_ptr<const CollectiveModel> collectives;
  static constexpr const char* kCompute = "compute and memory of a GPU";  // in sources
  std::vector<RateSource> sources;
  // Bytes read and written by a kernel that moves rows, where this very GPU was measured at it; may be null.
  std::shared_ptr<const SizeCurve> copies;
  bool plane = false;  // all GPUs of a node on one switch: which of them take part does not matter
  // Of a cluster with degraded links: the fastest link of each class.
  std::map<std::string, double> meant_GBps;

  // The model's curve, kept: not thread-safe, and references live as long as the machine.
  const CollectiveCurve& curve(Collective op, const CollectiveGroup& group) const;
  // Seconds of a collective on a group; 0 for a group of one.
  double collective_s(Collective op, double send_bytes, const CollectiveGroup& group) const;

 private:
  mutable std::map<std::pair<Collective, CollectiveGroup>, CollectiveCurve> curves_;
};

// The group of these ranks (ascending; rank r is GPU r) on nodes of so many GPUs each: group_of without a search.
CollectiveGroup group_on_nodes(std::span<const int> ranks, int gpus_per_node);

// Throws InvalidInput when the topology does not know the GPU's rates.
Machine machine_of(const Topology& topology, DType dtype, std::span<const Calibration> calibrations = {});

// How the stacks of a phase run it: the kernel of the experts, what a step gets of kernels timed alone, and how sure
// that is, in sources too. To be called once.
FfnKernel expert_kernel_of(Phase);
double in_step_of(Phase);
// quantized_weight_bytes: of the model's checkpoint (0: none). Inference keeps such weights as they are, in memory and
// when they are read, and computes in the job's dtype; training keeps them in the job's dtype.
void set_phase(Machine&, Phase, double quantized_weight_bytes = 0);

// Effective fraction of a link class's raw rate.
double efficiency_of(const Efficiency& e, const std::string& link_class);

}  // namespace topomoe
