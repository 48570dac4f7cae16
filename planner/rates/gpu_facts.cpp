#include "planner/rates/gpu_facts.hpp"

#include <array>

namespace topomoe {
namespace {

// Boost clocks of the datasheets, from memory. A word that another holds stands after it.
constexpr std::array kKnown{
    GpuFacts{"V100", 70, 1.53, 0.80, false},   GpuFacts{"A100", 80, 1.41, 0.80, false},
    GpuFacts{"A800", 80, 1.41, 0.80, false},   GpuFacts{"A6000", 86, 1.80, 0.80, false},
    GpuFacts{"A40", 86, 1.74, 0.80, false},    GpuFacts{"L40", 89, 2.52, 0.80, false},
    GpuFacts{"L20", 89, 2.52, 0.80, false},    GpuFacts{"GH200", 90, 1.98, 0.824, true},
    GpuFacts{"H100", 90, 1.98, 0.824, true},   GpuFacts{"H800", 90, 1.98, 0.824, true},
    GpuFacts{"H200", 90, 1.98, 0.824, true},   GpuFacts{"H20", 90, 1.98, 0.824, true},
    GpuFacts{"GB200", 100, 1.98, 0.802, true}, GpuFacts{"B200", 100, 1.98, 0.802, true},
    GpuFacts{"GB300", 103, 1.98, 0.802, true}, GpuFacts{"B300", 103, 1.98, 0.802, true},
};

}  // namespace

GpuFacts gpu_facts(std::string_view gpu_name) {
  for (const GpuFacts& known : kKnown)
    if (gpu_name.find(known.model) != std::string_view::npos) return known;
  return {};
}

}  // namespace topomoe
