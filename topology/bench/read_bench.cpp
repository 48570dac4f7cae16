// How fast readers read: 64 hosts of 10 MB as NCCL's XML and as our JSON, a machine of 2,000 PCI devices as hwloc's
// XML, and networks of 4,096 and 16,384 hosts. Beside them what no reader can beat: the XML and JSON libraries on the
// same text, and copying it.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>
#include <stdexcept>

#include "many_hosts.hpp"

namespace topomoe::bench {
namespace {

constexpr int kHosts = 64, kFunctions = 55;  // of each of 8 NICs: 10 MB

const std::string& nccl_text(bool distinct) {
  static const std::string texts[] = {write_nccl_xml(many_hosts(kHosts, kFunctions, false)),
                                      write_nccl_xml(many_hosts(kHosts, kFunctions, true))};
  return texts[distinct ? 1 : 0];
}

const std::string& json_text() {
  static const std::string text = write_cluster_json(many_hosts(kHosts, kFunctions, true));
  return text;
}

std::string hwloc_text(int devices) {
  std::string text =
      R"(<topology version="2.0"><object type="Machine" nodeset="0x1"><object type="NUMANode" os_index="0" )"
      R"(cpuset="0x1" nodeset="0x1"/>)";
  for (int i = 0; i < devices; ++i)
    text += fmt::format(
        R"(<object type="Bridge" bridge_type="0-1" gp_index="{0}"><object type="PCIDev" gp_index="1{0}" name="nic" )"
        R"(pci_busid="{1:04x}:{2:02x}:00.0" pci_type="0207 [15b3:101b] [15b3:0006] 00" pci_link_speed="31.507692">)"
        R"(<info name="PCIVendor" value="Mellanox Technologies"/><object type="OSDev" name="mlx5_{0}" osdev_type="3">)"
        R"(<info name="Port1State" value="4"/></object></object></object>)",
        i, i >> 8, i & 0xff);
  return text + "</object></topology>";
}

// Leaves of 32 hosts with an adapter each, as many cables up.
std::string ib_text(int hosts) {
  std::string text;
  const auto cable = [&](const char* type, int guid, int port, const char* name) {
    return fmt::format("{} {} {} 0x{:016x} 4x NDR - SW {} {} 0x{:016x} ( '{}' - 'leaf' )\n", type, guid, port, guid, 1,
                       port, 1'000'000 + guid / 32, name);
  };
  for (int host = 0; host < hosts; ++host) text += cable("CA", host, 1, fmt::format("n{} mlx5_0", host).c_str());
  for (int host = 0; host < hosts; ++host)
    text += fmt::format("SW 1 {0} 0x{1:016x} 4x NDR - SW 1 {2} 0x{3:016x} ( 'leaf' - 'spine' )\n", 40 + host % 32,
                        1'000'000 + host / 32, host / 32 + 1, 2'000'000 + host % 32);
  return text;
}

std::string slurm_text(int hosts) {
  std::string text;
  for (int leaf = 0; leaf < hosts / 32; ++leaf)
    text += fmt::format("SwitchName=leaf{} Nodes=n[{}-{}]\n", leaf, 32 * leaf, 32 * leaf + 31);
  return text + fmt::format("SwitchName=spine Switches=leaf[0-{}]\n", hosts / 32 - 1);
}

void read(benchmark::State& state, const std::string& text, const char* format) {
  int hosts = 0;
  for (auto _ : state) hosts = read_topology(text, "bench", format).host_count();
  state.SetBytesProcessed(static_cast<std::int64_t>(text.size()) * state.iterations());
  state.counters["MB"] = static_cast<double>(text.size()) / 1e6;
  state.counters["hosts"] = hosts;
}

void nccl_xml(benchmark::State& state) { read(state, nccl_text(state.range(0) != 0), "nccl-xml"); }
void cluster_json(benchmark::State& state) { read(state, json_text(), "cluster-json"); }
void hwloc_xml(benchmark::State& state) { read(state, hwloc_text(2000), "hwloc-xml"); }
void ibnetdiscover(benchmark::State& state) { read(state, ib_text(4096), "ibnetdiscover"); }
void slurm_conf(benchmark::State& state) { read(state, slurm_text(16384), "slurm-conf"); }
BENCHMARK(nccl_xml)->ArgName("distinct")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);
BENCHMARK(cluster_json)->Unit(benchmark::kMillisecond);
BENCHMARK(hwloc_xml)->Unit(benchmark::kMillisecond);
BENCHMARK(ibnetdiscover)->Unit(benchmark::kMillisecond);
BENCHMARK(slurm_conf)->Unit(benchmark::kMillisecond);

template <class Parse>
void limit(benchmark::State& state, const std::string& text, Parse parse) {
  for (auto _ : state) parse(text);
  state.SetBytesProcessed(static_cast<std::int64_t>(text.size()) * state.iterations());
}

void limit_pugixml(benchmark::State& state) {
  limit(state, nccl_text(true), [](const std::string& text) {
    pugi::xml_document document;
    if (!document.load_buffer(text.data(), text.size())) throw std::logic_error("no XML");
  });
}
void limit_nlohmann(benchmark::State& state) {
  limit(state, json_text(),
        [](const std::string& text) { benchmark::DoNotOptimize(nlohmann::ordered_json::parse(text)); });
}
void limit_copy(benchmark::State& state) {
  std::string copy(nccl_text(true).size(), ' ');
  limit(state, nccl_text(true), [&](const std::string& text) {
    std::memcpy(copy.data(), text.data(), text.size());
    benchmark::ClobberMemory();
  });
}
BENCHMARK(limit_pugixml)->Unit(benchmark::kMillisecond);
BENCHMARK(limit_nlohmann)->Unit(benchmark::kMillisecond);
BENCHMARK(limit_copy)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace topomoe::bench

BENCHMARK_MAIN();
