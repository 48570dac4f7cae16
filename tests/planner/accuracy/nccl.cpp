// NCCL collectives inside a node: fitted on two numbers of GPUs, judged on the third; fitted on one machine, judged on
// the other.
#include <fmt/format.h>

#include "planner/rates/collective.hpp"
#include "planner/rates/import.hpp"
#include "tests/planner/accuracy/measurements.hpp"
#include "tests/planner/accuracy/tables.hpp"

namespace topomoe::accuracy {
namespace {

constexpr const char* kTable = "nccl_single_node.csv";
constexpr double kLarge_bytes = 65536;

Topology node_of(const std::string& system) {
  return read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/dgx-" + system.substr(0, 4) + ".json");
}

Calibration fitted(const std::string& system, std::vector<int> gpus) {
  ImportRequest request;
  request.system = system, request.gpus = std::move(gpus);
  return import_table(text_of(kTable), kTable, request);
}

struct Split {
  std::vector<Pair> large, small;
  int beaten = 0;  // bounds above a measured time: these would be no bounds
};

// Rows of `system` at `gpus` (0: all), predicted from one calibration.
void predict(Split& split, const std::vector<Row>& rows, const std::string& system, int gpus, const Calibration& from) {
  const CollectiveModel model(node_of(system), std::span(&from, 1));
  for (const Row& row : rows) {
    const int n = whole(row, "num_gpus");
    if (row.at("system") != system || (gpus != 0 && n != gpus)) continue;
    const Collective op = collective_from(row.at("op"), "op");
    const double buffer = number(row, "bytes_per_rank");
    const Estimate e = model.estimate(op, buffer / whole_buffer_bytes(op, 1, n), regular_group(n, 1));
    split.beaten += e.bound_us > number(row, "latency_us");
    (buffer >= kLarge_bytes ? split.large : split.small)
        .push_back({fmt::format("{} {} {} GPUs", system, row.at("op"), n), fmt::format("{:.0f} B", buffer), e.time_us,
                    number(row, "latency_us"), e.low_us, e.high_us});
  }
}

// 8 x L40S over PCIe: three figures of the README. The two shares of planner/rates/routed_node.cpp come from them, so
// that this only says that the model holds them together.
void l40s(Report& report) {
  const CollectiveModel model(read_topology_file(TOPOMOE_SOURCE_DIR "/configs/clusters/l40s-8x-pcie.json"), {});
  std::vector<Pair> pairs;
  for (const auto& [gpus, GBps] : {std::pair{2, 22.0}, {4, 4.5}, {8, 2.1}}) {
    const double bytes = 512 << 20;
    const Estimate e = model.estimate(Collective::alltoall, bytes, regular_group(gpus, 1));
    pairs.push_back({fmt::format("l40s alltoall {} GPUs", gpus), "512 MiB", e.time_us,
                     bytes * (gpus - 1) / gpus / GBps * 1e-3, e.low_us, e.high_us});
  }
  report.table("NCCL, 8 x L40S on PCIe, all-to-all bus bandwidth 22, 4.5, 2.1 GB/s (its shares were set on them)", 1.0,
               pairs);
}

}  // namespace

void nccl(Report& report) {
  const auto rows = read_table(kTable);
  if (rows.empty()) {
    report.skipped("NCCL", std::string("no ") + kTable);
    return l40s(report);
  }
  const std::vector<std::string> systems{"a100_sxm", "h100_sxm"};
  Split held, counts, machines;
  for (const std::string& system : systems) {
    predict(held, rows, system, 0, fitted(system, {}));
    for (const int out : {2, 4, 8}) {
      std::vector<int> rest;
      for (const int n : {2, 4, 8})
        if (n != out) rest.push_back(n);
      predict(counts, rows, system, out, fitted(system, rest));
    }
  }
  predict(machines, rows, "h100_sxm", 0, fitted("a100_sxm", {}));
  predict(machines, rows, "a100_sxm", 0, fitted("h100_sxm", {}));
  std::vector<Pair> all = held.large;
  all.insert(all.end(), held.small.begin(), held.small.end());
  report.table("NCCL, the measured curves on their own points (how far runs spread; nothing is predicted)", 0, all);
  report.note(fmt::format("  NCCL: bound above the measured time in {} of {}", held.beaten, all.size()));
  report.table("NCCL, leaving out one GPU count, >= 64 KiB", 0.10, counts.large);
  report.table("NCCL, leaving out one GPU count, < 64 KiB", 0.20, counts.small);
  report.table("NCCL, leaving out a machine (H100 from A100 and back), >= 64 KiB", 0.15, machines.large);
  report.table("NCCL, leaving out a machine (H100 from A100 and back), < 64 KiB", 0.15, machines.small);
  std::vector<Pair> either = machines.large;
  either.insert(either.end(), machines.small.begin(), machines.small.end());
  for (Pair& p : either) p.group = p.group.substr(0, 8);
  report.table("NCCL, leaving out a machine, all sizes", 0.15, either);
  l40s(report);
}

}  // namespace topomoe::accuracy
