// What a machine was measured to do: times by size, of named operations, with who measured them and how far
// the measurements spread. The most trusted source of the planner's rates; the runtime writes the same file.
//
// Model: a measured operation is a size curve, piecewise linear in (log size, log time). What else the time
// depends on (GPUs, nodes, n and k of a GEMM) is fixed for one curve and named in it.
// Ignored: clocks, temperature and neighbours at the time of measuring, beyond what `spread` says.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct CalibrationKnot {
  double size = 0;  // > 0; see CalibrationCurve::size_unit
  double time_us = 0;
  bool operator==(const CalibrationKnot&) const = default;
};

struct CalibrationCurve {
  // Collectives: "alltoall", "all_gather", "reduce_scatter", "all_reduce", "send_recv". Compute: "gemm",
  // "moe_ffn", "copy". Steps of a schedule as the runtime's kernels take them: "expert_forward", "expert_dgrad",
  // "expert_wgrad" (parameters "hidden", "ffn" of a shard, "experts" that share the rows evenly). DeepEP's kernels:
  // "dispatch", "combine", "dispatch_low_latency", "combine_low_latency".
  std::string operation;
  int gpus = 1;   // ranks that take part, all nodes together
  int nodes = 1;  // scale-up domains that they are spread over, evenly
  std::string dtype = "bf16";
  // What `size` counts. Collectives: "buffer_bytes", the whole buffer of one rank as nccl-tests counts it (what one
  // rank sends in alltoall, gathers in all_gather, reduces in reduce_scatter and all_reduce). Compute: "rows",
  // "tokens". Copies: "bytes".
  std::string size_unit = "buffer_bytes";
  // What else is fixed along the curve: {"n", 4096}, {"k", 7168}, {"sms", 20}, {"hidden", 7168}, ...
  std::map<std::string, double> parameters;
  std::vector<CalibrationKnot> knots;  // 1 to 1,000, sizes growing
  // Relative: the 90th percentile of |measured / curve - 1| over the points that the curve stands for.
  double spread = 0;
  std::string source;  // attribution of this curve where it differs from the file's; may be empty
  bool operator==(const CalibrationCurve&) const = default;
};

// Where it was measured: raw figures, per direction; 0: not known.
struct CalibrationMachine {
  GpuSpec gpu;
  int gpus_per_node = 0;     // of one scale-up domain
  std::string interconnect;  // inside the node: "nvswitch", "nvlink" (point to point), "pcie", "" unknown
  double nvlink_GBps = 0;    // a GPU, all links together
  double pcie_GBps = 0;      // a slot
  double nic_GBps = 0;       // a GPU
  bool operator==(const CalibrationMachine&) const = default;
};

struct Calibration {
  std::string name;    // "h100-sxm"
  std::string source;  // who measured it, under which licence, which version of the data
  CalibrationMachine machine;
  std::map<std::string, std::string> software;  // {"nccl", "2.27.3"}
  std::vector<CalibrationCurve> curves;
  // Figures that are not curves, "<model>.<figure>_<unit>", e.g. "deepep.sm_GBps"; who reads them says what they mean.
  std::map<std::string, double> figures;
  bool operator==(const Calibration&) const = default;
};

// Throws InvalidInput{where + field, value, way out}: names not empty, figures finite and not negative, sizes growing,
// times positive. Times may fall with size: readers of the curve decide what to make of it.
void check(const Calibration&, std::string_view where);

// Schema "topomoe.calibration/1" (configs/schema). Reading is strict and checks; read(write(x)) == x.
Calibration read_calibration(std::string_view text, const std::string& where);
std::string write_calibration(const Calibration&);

}  // namespace topomoe
