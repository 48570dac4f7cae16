// The CSV tables of ../shared/measurements.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <set>
#include <tuple>

#include "planner/rates/compute_tables.hpp"
#include "planner/rates/csv_table.hpp"
#include "planner/rates/fit_knots.hpp"
#include "planner/rates/import.hpp"

namespace topomoe {
namespace {

// Every row's system; the rows of the one that is asked for are handed to `row`.
struct Systems {
  const ImportRequest& request;
  std::set<std::string> seen;
  bool wanted(const std::string& system) {
    seen.insert(system);
    return request.system.empty() || system == request.system;
  }
  // Throws unless exactly one system was meant and found.
  std::string chosen(const std::string& where) const {
    std::string list;
    for (const std::string& s : seen) list += (list.empty() ? "" : ", ") + s;
    if (seen.empty()) throw InvalidInput(where, "no rows", "a table with measurements");
    if (request.system.empty() && seen.size() > 1) throw InvalidInput(where + ": system", list, "--system picks one");
    if (!request.system.empty() && !seen.count(request.system))
      throw InvalidInput(where + ": system", request.system, "the table has " + list);
    return request.system.empty() ? *seen.begin() : request.system;
  }
};

bool wants_gpus(const ImportRequest& r, int gpus) {
  return r.gpus.empty() || std::find(r.gpus.begin(), r.gpus.end(), gpus) != r.gpus.end();
}

Calibration started(const std::string& system, const std::string& where, const ImportRequest& request) {
  Calibration c;
  c.name = !request.name.empty() ? request.name : system;
  c.source = !request.source.empty() ? request.source : "imported from " + where;
  const CalibrationMachine known = machine_of_system(system);
  c.machine = known.gpu.name.empty() ? request.machine : known;
  if (c.machine.gpu.name.empty())
    throw InvalidInput(where + ": system", system, "not a machine known by name: --cluster says what it is");
  return c;
}

// Points by what is fixed along a curve.
using Shapes = std::map<std::tuple<std::string, int, int, std::map<std::string, double>>, std::vector<CalibrationKnot>>;

void add_curves(Calibration& c, const Shapes& shapes, const std::string& unit, const std::string& dtype) {
  for (const auto& [shape, points] : shapes) {
    const auto& [operation, gpus, nodes, parameters] = shape;
    FittedKnots fitted = fit_knots(points);
    c.curves.push_back({operation, gpus, nodes, dtype, unit, parameters, std::move(fitted.knots), fitted.spread, ""});
  }
}

Calibration import_nccl(std::string_view csv, const std::string& where, const ImportRequest& request) {
  CsvTable table(csv, where, {"system", "nccl", "op", "num_gpus", "bytes_per_rank", "latency_us"});
  Systems systems{request, {}};
  Shapes shapes;
  std::set<std::string> versions;
  table.each([&] {
    const int gpus = table.whole("num_gpus");
    if (!systems.wanted(table.text("system")) || !wants_gpus(request, gpus)) return;
    versions.insert(table.text("nccl"));
    shapes[{table.text("op"), gpus, 1, {}}].push_back({table.positive("bytes_per_rank"), table.positive("latency_us")});
  });
  Calibration c = started(systems.chosen(where), where, request);
  if (!versions.empty()) c.software["nccl"] = *versions.rbegin();
  add_curves(c, shapes, "buffer_bytes", "fp16");
  return c;
}

std::map<std::string, double> ep_parameters(const CsvTable& table) {
  return {{"hidden", table.positive("hidden_size")},
          {"topk", table.positive("num_topk")},
          {"experts", table.positive("num_experts")}};
}

constexpr int kGpusPerNode = 8;  // of DeepEP's tables

Calibration import_deepep(std::string_view csv, const std::string& where, const ImportRequest& request) {
  CsvTable table(
      csv, where,
      {"system", "node_num", "hidden_size", "num_token", "num_topk", "num_experts", "dispatch_sms",
       "dispatch_transmit_us", "dispatch_notify_us", "combine_sms", "combine_transmit_us", "combine_notify_us"});
  Systems systems{request, {}};
  Shapes dispatch, combine;
  table.each([&] {
    const int nodes = table.whole("node_num"), gpus = nodes * kGpusPerNode;
    if (!systems.wanted(table.text("system")) || !wants_gpus(request, gpus)) return;
    const double tokens = table.positive("num_token");
    for (const std::string op : {"dispatch", "combine"}) {
      auto parameters = ep_parameters(table);
      Shapes& shapes = op == "dispatch" ? dispatch : combine;
      // The notify kernel's time hardly depends on SMs; of all SM counts one curve.
      if (const double notify = table.number(op + "_notify_us"); notify > 0)
        shapes[{op + "_notify", gpus, nodes, parameters}].push_back({tokens, notify});
      parameters["sms"] = table.positive(op + "_sms");
      shapes[{op, gpus, nodes, parameters}].push_back({tokens, table.positive(op + "_transmit_us")});
    }
  });
  Calibration c = started(systems.chosen(where), where, request);
  add_curves(c, dispatch, "tokens", "fp8");
  add_curves(c, combine, "tokens", "bf16");
  return c;
}

Calibration import_deepep_low_latency(std::string_view csv, const std::string& where, const ImportRequest& request) {
  CsvTable table(csv, where,
                 {"system", "node_num", "hidden_size", "num_token", "num_topk", "num_experts", "dispatch_avg_t_us",
                  "combine_avg_t_us"});
  Systems systems{request, {}};
  Shapes dispatch, combine;
  table.each([&] {
    const int nodes = table.whole("node_num"), gpus = nodes * kGpusPerNode;
    if (!systems.wanted(table.text("system")) || !wants_gpus(request, gpus)) return;
    const double tokens = table.positive("num_token");
    const auto parameters = ep_parameters(table);
    dispatch[{"dispatch_low_latency", gpus, nodes, parameters}].push_back(
        {tokens, table.positive("dispatch_avg_t_us")});
    combine[{"combine_low_latency", gpus, nodes, parameters}].push_back({tokens, table.positive("combine_avg_t_us")});
  });
  Calibration c = started(systems.chosen(where), where, request);
  add_curves(c, dispatch, "tokens", "fp8");
  add_curves(c, combine, "tokens", "bf16");
  return c;
}

Calibration import_gemm(std::string_view csv, const std::string& where, const ImportRequest& request) {
  Systems systems{request, {}};
  std::vector<GemmPoint> points;
  Shapes shapes;
  for (const GemmRow& row : read_gemm_table(csv, where)) {
    if (!systems.wanted(row.system)) continue;
    const auto& [m, n, k, time_us] = points.emplace_back(row.point);
    shapes[{"gemm", 1, 1, {{"k", k}, {"n", n}}}].push_back({m, time_us});
  }
  Calibration c = started(systems.chosen(where), where, request);
  add_curves(c, shapes, "rows", "bf16");
  put_figures(c, fit_gemm(points, bf16_rates(c.machine.gpu)));
  return c;
}

Calibration import_moe_kernel(std::string_view csv, const std::string& where, const ImportRequest& request) {
  Systems systems{request, {}};
  std::vector<MoeFfnPoint> points;
  for (const MoeKernelRow& row : read_moe_kernel_table(csv, where))
    if (systems.wanted(row.system)) points.push_back(row.point);
  Calibration c = started(systems.chosen(where), where, request);
  put_figures(c, fit_moe_ffn(points, bf16_rates(c.machine.gpu)));
  return c;
}

struct KnownTable {
  std::string_view column;  // that no other table has
  Calibration (*read)(std::string_view, const std::string&, const ImportRequest&);
};
constexpr std::array<KnownTable, 5> kTables{{{"bytes_per_rank", import_nccl},
                                             {"dispatch_transmit_us", import_deepep},
                                             {"dispatch_avg_t_us", import_deepep_low_latency},
                                             {"inter_size", import_moe_kernel},
                                             {"m", import_gemm}}};

}  // namespace

Calibration import_table(std::string_view csv, const std::string& where, const ImportRequest& request) {
  std::string_view first = csv.substr(0, csv.find('\n'));
  if (!first.empty() && first.back() == '\r') first.remove_suffix(1);
  const auto header = split(first, ',');
  for (const KnownTable& known : kTables)
    if (std::find(header.begin(), header.end(), known.column) != header.end()) return known.read(csv, where, request);
  throw InvalidInput(
      where, std::string(first.substr(0, 60)),
      "not a table that is known: nccl-tests text or JSON, nvbandwidth JSON, or the columns of NCCL, DeepEP, "
      "GEMM and MoE kernel tables (planner/rates/README.md)");
}

// Datasheet figures, as configs/clusters has them; SM counts and NICs from memory.
CalibrationMachine machine_of_system(std::string_view system) {
  const auto sxm = [](GpuSpec gpu, double nvlink, double pcie, double nic) {
    gpu.source = Source::datasheet;
    gpu.source_note = "NVIDIA datasheets as collected in aiconfigurator's system files; SM count, FP32 from memory";
    return CalibrationMachine{std::move(gpu), 8, "nvswitch", nvlink, pcie, nic};
  };
  if (system == "a100_sxm") return sxm({"A100 SXM 80GB", 80, 2039, 312, 0, 19.5, 108}, 300, 32, 25);
  if (system == "h100_sxm") return sxm({"H100 SXM 80GB", 80, 3350, 989, 1978, 67, 132}, 450, 64, 50);
  if (system == "h200_sxm") return sxm({"H200 SXM 141GB", 140.4, 4800, 989, 1978, 67, 132}, 450, 64, 50);
  return {};
}

}  // namespace topomoe
