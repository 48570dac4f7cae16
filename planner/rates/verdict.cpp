#include "planner/rates/verdict.hpp"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace topomoe {
namespace {

struct Check {
  std::string_view word, advice;  // of the bottleneck
};
constexpr std::array kChecks{
    Check{"NVLink", "are all links of each GPU up (nvidia-smi nvlink -s), and does NCCL see them (NCCL_DEBUG=INFO)"},
    Check{"nvswitch", "are all links of each GPU up (nvidia-smi nvlink -s)"},
    Check{"posting", "do messages share one proxy thread, and is its core free (NCCL_IGNORE_CPU_AFFINITY, cgroups)"},
    Check{"NIC", "does each GPU use its own NIC at full rate (ibstat, NCCL_IB_HCA, GPUDirect RDMA, relaxed ordering)"},
    Check{"uplink", "are the uplinks of the leaves up and evenly loaded (adaptive routing)"},
    Check{"root complex", "may GPUs reach each other directly (ACS and IOMMU off, nvidia-smi topo -p2p r)"},
    Check{"pci", "does each slot run at its full width and generation (lspci -vv, LnkSta)"},
    Check{"SMs", "does the kernel get its SMs, or does another kernel hold them"},
    Check{"latency", "are clocks up and CPUs free, and are launches captured in a CUDA graph or timed one by one"},
    Check{"HBM", "are memory clocks up, and is nothing else reading (nvidia-smi -q -d CLOCK,PERFORMANCE)"},
    Check{"", "are GPU clocks and power as they should be (nvidia-smi -q -d CLOCK,PERFORMANCE)"},
};

std::string_view advice_for(const std::string& bottleneck) {
  for (const Check& check : kChecks)
    if (bottleneck.find(check.word) != std::string::npos) return check.advice;
  return kChecks.back().advice;
}

}  // namespace

Verdict judge(const Estimate& e, double measured_us) {
  if (measured_us < e.bound_us)
    return {"impossible",
            fmt::format("impossible, {:.2f} times faster than raw rates allow: check units (us, bytes of one "
                        "rank), and that the operation is waited for",
                        e.bound_us / measured_us)};
  if (measured_us < e.low_us)
    return {"fast",
            fmt::format("fast, {:.2f} times faster than expected, though not impossible: this machine may do better "
                        "than the source ({}); calibrate with it",
                        e.time_us / measured_us, e.source)};
  if (measured_us <= e.high_us) return {"normal", "normal, inside the band"};
  return {"slow", fmt::format("slow, {:.2f} times the expected time; {} sets it: {}?", measured_us / e.time_us,
                              e.bottleneck, advice_for(e.bottleneck))};
}

}  // namespace topomoe
