#include "tests/fuzz/targets.hpp"

#include <optional>

#include "tests/fuzz/promises.hpp"
#include "topology/doctor/measured.hpp"
#include "topology/read/formats.hpp"
#include "topomoe/error.hpp"
#include "topomoe/nccl_graph.hpp"

namespace topomoe::fuzz {
namespace {

// To add a reader that makes no topology: its line here, {"name", [](std::string_view text) { read_x(text, "fuzz"); }}.
const std::vector<Target> kOthers{
    {"nccl-graph", [](std::string_view text) { read_nccl_graph(text, "fuzz"); }},
    {"nccl_tests", [](std::string_view text) { read_measured(text, "fuzz"); }},
    {"nvbandwidth", [](std::string_view text) { read_measured(text, "fuzz"); }},
};

}  // namespace

std::vector<Target> targets() {
  std::vector<Target> out{{"any"}};
  for (const Format& format : formats())
    if (format.read != nullptr) out.push_back({format.name});
  out.insert(out.end(), kOthers.begin(), kOthers.end());
  return out;
}

void run(const Target& target, std::string_view text) {
  std::optional<Topology> topology;
  try {
    if (target.other != nullptr)
      target.other(text);
    else
      topology = read_topology(text, "fuzz", target.name == "any" ? "" : target.name);
  } catch (const InvalidInput& error) {
    require_message(error);
  }
  if (topology) require_promises(*topology);
}

}  // namespace topomoe::fuzz
