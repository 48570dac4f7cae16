#include "tests/fuzz/targets.hpp"

#include <optional>

#include "tests/fuzz/promises.hpp"
#include "topology/doctor/measured.hpp"
#include "topology/read/formats.hpp"
#include "topomoe/compose.hpp"
#include "topomoe/error.hpp"
#include "topomoe/nccl_graph.hpp"
#include "topomoe/pattern_load.hpp"

namespace topomoe::fuzz {
namespace {

// Hosts of 2 GPUs and 2 rails, for what is read over a cluster.
Topology small_cluster(int hosts) {
  HostShape shape;
  shape.kind = "nvswitch";
  shape.gpus = shape.nics = 2;
  shape.nvlink = {450, 0.3, Source::assumed, "fuzz"};
  shape.pcie = {64, 0.5, Source::assumed, "fuzz"};
  shape.cpu_interconnect = {40, 0.3, Source::assumed, "fuzz"};
  shape.nic = {50, 1, Source::assumed, "fuzz"};
  Topology out;
  out.name = "small";
  out.templates.push_back(build_host(shape, GpuSpec{}, "two"));
  out.groups.push_back({0, hosts});
  return out;
}

void read_fabric(std::string_view text) {
  Topology hosts = small_cluster(8);
  hosts.fabric = fabric_from_spec(hosts, std::string(text));
  require_promises(hosts);
}

void read_traffic(std::string_view text) {
  Topology hosts = small_cluster(2);
  hosts.fabric = fabric_from_spec(hosts, "fat-tree:hosts_per_leaf=2,spine_count=1");
  const TrafficMatrix traffic = read_traffic_csv(text, "fuzz", hosts.gpu_count());
  pattern_load(Router(hosts), traffic);
}

// To add a reader that makes no topology: its line here, {"name", [](std::string_view text) { read_x(text, "fuzz"); }}.
const std::vector<Target> kOthers{
    {"nccl-graph", [](std::string_view text) { read_nccl_graph(text, "fuzz"); }},
    {"nccl_tests", [](std::string_view text) { read_measured(text, "fuzz"); }},
    {"nvbandwidth", [](std::string_view text) { read_measured(text, "fuzz"); }},
    {"traffic-csv",
     read_traffic,
     {"0,1,2,3\n3,0,4,4\n5,6,0,0\n1,1,1,1\n",
      "gpu,\"a\",b,c,d\r\n0,1e9,2.5,3,1\r\n1,0,0,0,1\r\n2,7,8,9,1\r\n3,1,2,3,4\r\n"}},
    {"fabric-spec",
     read_fabric,
     {"fat-tree:hosts_per_leaf=2,spine_count=2,oversubscription=2,hosts_per_pod=4,core_count=4,"
      "pod_oversubscription=1.5,planes=2,latency_us=0.5",
      "rail-optimised:hosts_per_leaf=4,spine_count=2,spine_over_rails=false,oversubscription=1",
      "dragonfly-plus:hosts_per_leaf=2,hosts_per_group=4,spine_count=2,group_oversubscription=2,group_latency_us=1",
      "torus:dims=2x2x2,GBps=50,latency_us=1"}},
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
