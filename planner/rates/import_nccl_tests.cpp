// What nccl-tests and nvbandwidth measured (topology/doctor/measured.hpp reads it) as curves and figures.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <set>

#include "planner/plan/json.hpp"
#include "planner/rates/fit_knots.hpp"
#include "planner/rates/gpu_facts.hpp"
#include "planner/rates/import.hpp"
#include "topology/doctor/measured.hpp"

namespace topomoe {
namespace {

struct Found {
  std::string operation, gpu, nccl;
  int ranks = 0;
  std::set<std::string> hosts;
  std::vector<CalibrationKnot> points;
};

Calibration calibration_of(Found found, const std::string& where, const ImportRequest& request) {
  if (!request.operation.empty()) found.operation = request.operation;
  if (found.operation.empty())
    throw InvalidInput(where + ": operation", "not in the file",
                       "say which test it was: --op alltoall, all_reduce, ...");
  if (found.ranks == 0 && request.gpus.size() == 1) found.ranks = request.gpus.front();
  if (found.ranks < 1) throw InvalidInput(where + ": ranks", "not in the file", "say how many: --gpus N");
  if (!request.gpus.empty() && std::find(request.gpus.begin(), request.gpus.end(), found.ranks) == request.gpus.end())
    throw InvalidInput(where + ": ranks", std::to_string(found.ranks), "not among the --gpus asked for");
  std::erase_if(found.points, [](const CalibrationKnot& p) {
    return !std::isfinite(p.size) || !std::isfinite(p.time_us) || p.size <= 0 || p.time_us <= 0;
  });
  if (found.points.empty())
    throw InvalidInput(where, "no row with a size and a time", "output of a finished nccl-tests run");
  Calibration c;
  c.machine = request.machine;
  if (c.machine.interconnect.empty())
    throw InvalidInput(where + ": machine", found.gpu.empty() ? "not in the file" : found.gpu + ", no rates",
                       "--cluster F says which machine was measured, with its link rates");
  const std::string_view told = gpu_facts(c.machine.gpu.name).model, seen = gpu_facts(found.gpu).model;
  if (!told.empty() && !seen.empty() && told != seen)
    throw InvalidInput(where + ": GPU", found.gpu, "the cluster given has " + c.machine.gpu.name);
  c.name = request.name.empty() ? c.machine.gpu.name : request.name;
  c.source = request.source.empty() ? "imported from " + where : request.source;
  if (!found.nccl.empty()) c.software["nccl"] = found.nccl;
  // Hosts are not nodes where a scale-up domain spans several; the machine knows how large one is.
  int nodes = std::max<int>(1, static_cast<int>(found.hosts.size()));
  if (c.machine.gpus_per_node > 0) nodes = (found.ranks + c.machine.gpus_per_node - 1) / c.machine.gpus_per_node;
  if (found.ranks % nodes != 0) nodes = 1;
  FittedKnots fitted = fit_knots(std::move(found.points));
  c.curves.push_back(
      {found.operation, found.ranks, nodes, "", "buffer_bytes", {}, std::move(fitted.knots), fitted.spread, ""});
  return c;
}

// Of these there are curves; a broadcast is not one.
bool has_curve(const std::string& operation) {
  constexpr std::array<std::string_view, 5> kCurves{"alltoall", "all_gather", "reduce_scatter", "all_reduce",
                                                    "send_recv"};
  return std::find(kCurves.begin(), kCurves.end(), operation) != kCurves.end();
}

// Runs of one test on as many ranks are one curve.
Calibration calibration_of(const std::vector<MeasuredCollective>& runs, const std::string& where,
                           const ImportRequest& request) {
  std::vector<Found> all;
  for (const MeasuredCollective& run : runs) {
    const std::string operation = has_curve(run.operation) ? run.operation : "";
    auto at = std::find_if(all.begin(), all.end(),
                           [&](const Found& own) { return own.operation == operation && own.ranks == run.ranks; });
    if (at == all.end()) at = all.insert(at, {operation, "", "", run.ranks, {}, {}});
    if (at->nccl.empty()) at->nccl = run.nccl;
    for (const MeasuredDevice& device : run.devices) {
      at->hosts.insert(device.host);
      if (at->gpu.empty()) at->gpu = device.gpu;
    }
    for (const MeasuredRow& row : run.rows) at->points.push_back({row.bytes, row.out_of_place.time_us});
  }
  Calibration out = calibration_of(all.at(0), where, request);
  for (std::size_t i = 1; i < all.size(); ++i) merge_into(out, calibration_of(all[i], where, request));
  return out;
}

}  // namespace

Calibration import_nccl_tests_text(std::string_view text, const std::string& where, const ImportRequest& request) {
  return calibration_of(read_nccl_tests_text(text, where), where, request);
}

Calibration import_nccl_tests_json(std::string_view text, const std::string& where, const ImportRequest& request) {
  return calibration_of({read_nccl_tests_json(text, where)}, where, request);
}

Calibration import_nvbandwidth_json(std::string_view text, const std::string& where, const ImportRequest& request) {
  const MeasuredCopies run = read_nvbandwidth_json(text, where);
  Calibration c;
  c.machine = request.machine;
  if (c.machine.gpu.name.empty() && !run.devices.empty()) c.machine.gpu.name = run.devices.front().gpu;
  if (c.machine.gpu.name.empty())
    throw InvalidInput(where + ": GPU Device list", "missing", "--cluster says which machine it was");
  for (const MeasuredMatrix& own : run.matrices) {
    double sum = 0;
    int cells = 0;
    for (const std::vector<double>& row : own.GBps)
      for (const double GBps : row)
        if (GBps > 0) sum += GBps, ++cells;
    if (cells > 0) c.figures["nvbandwidth." + own.testcase + "_GBps"] = sum / cells;
  }
  if (c.figures.empty()) throw InvalidInput(where, "no testcase that passed", "output of a finished nvbandwidth run");
  c.name = request.name.empty() ? c.machine.gpu.name : request.name;
  c.source = request.source.empty() ? "imported from " + where : request.source;
  return c;
}

Calibration import_measurements(std::string_view text, const std::string& where, const ImportRequest& request) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) throw InvalidInput(where, "empty", "a file with measurements");
  Calibration c;
  if (text[begin] == '{') {
    const ordered_json json = parse_json(text, where);
    if (json.contains("schema"))
      c = read_calibration(text, where);
    else if (json.contains("nvbandwidth"))
      c = import_nvbandwidth_json(text, where, request);
    else
      c = import_nccl_tests_json(text, where, request);
  } else if (text[begin] == '#' || text.find("\n#") != std::string_view::npos) {
    c = import_nccl_tests_text(text, where, request);
  } else {
    c = import_table(text, where, request);
  }
  // Six digits: fits end at slightly different figures where the floating point of the machine differs.
  for (auto& [key, value] : c.figures) value = std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
  check(c, where);
  return c;
}

void merge_into(Calibration& base, const Calibration& more) {
  for (const CalibrationCurve& curve : more.curves) {
    const auto same = std::find_if(base.curves.begin(), base.curves.end(), [&](const CalibrationCurve& c) {
      return c.operation == curve.operation && c.gpus == curve.gpus && c.nodes == curve.nodes &&
             c.dtype == curve.dtype && c.size_unit == curve.size_unit && c.parameters == curve.parameters;
    });
    if (same == base.curves.end())
      base.curves.push_back(curve);
    else
      *same = curve;
  }
  for (const auto& [key, value] : more.figures) base.figures[key] = value;
  for (const auto& [key, value] : more.software) base.software[key] = value;
  if (base.source.find(more.source) == std::string::npos) base.source += "; " + more.source;
}

}  // namespace topomoe
