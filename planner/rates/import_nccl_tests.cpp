// nccl-tests: its table of text, and the JSON of -J.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <sstream>

#include "planner/plan/json.hpp"
#include "planner/rates/fit_knots.hpp"
#include "planner/rates/gpu_facts.hpp"
#include "planner/rates/import.hpp"

namespace topomoe {
namespace {

struct TestName {
  std::string_view test, operation;
};
constexpr std::array<TestName, 5> kTests{{{"alltoall", "alltoall"},
                                          {"all_gather", "all_gather"},
                                          {"reduce_scatter", "reduce_scatter"},
                                          {"all_reduce", "all_reduce"},
                                          {"sendrecv", "send_recv"}}};

// The operation of a binary's or a test's name: ".../all_reduce_perf", "AllReduce". Empty: none that is known.
std::string operation_in(std::string text) {
  std::string plain;
  for (const char c : text)
    if (c != '_') plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const TestName& known : kTests) {
    std::string word;
    for (const char c : known.test)
      if (c != '_') word += c;
    if (plain.find(word) != std::string::npos) return std::string(known.operation);
  }
  return "";
}

// Numbers as numbers or as strings; NaN for "nan", "N/A" and everything else.
double tolerant_number(const ordered_json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nan("");
  const std::string text = value.get<std::string>();
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return end == text.c_str() ? std::nan("") : number;
}

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

// "#  Rank  0 Group  0 Pid  1234 on  node01 device  0 [0x1b] NVIDIA H100 80GB HBM3"
void read_rank_line(const std::string& line, Found& found) {
  std::istringstream words(line);
  std::string word, host;
  words >> word >> word;  // "#", "Rank"
  if (word != "Rank") return;
  ++found.ranks;
  while (words >> word && word != "on") {
  }
  if (words >> host) found.hosts.insert(host);
  const auto bracket = line.find(']');
  if (bracket == std::string::npos) return;
  const auto begin = line.find_first_not_of(' ', bracket + 1);
  if (begin != std::string::npos) found.gpu = line.substr(begin, line.find_last_not_of(" \r") + 1 - begin);
}

}  // namespace

// Columns: size count type redop root, then time algbw busbw #wrong out of place and again in place. Versions differ in
// what stands between count and time, so the time is found from the right: the four columns before the last four.
Calibration import_nccl_tests_text(std::string_view text, const std::string& where, const ImportRequest& request) {
  Found found;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const auto begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos) continue;
    if (const auto at = line.find("NCCL version "); at != std::string::npos)
      std::istringstream(line.substr(at + 13)) >> found.nccl;
    if (line[begin] == '#') {
      read_rank_line(line, found);
      if (found.operation.empty() && line.find("perf") != std::string::npos) found.operation = operation_in(line);
      continue;
    }
    std::istringstream words(line);
    std::vector<std::string> cells;
    for (std::string word; words >> word;) cells.push_back(word);
    if (cells.size() < 9) continue;  // what the test prints besides its table
    const double size = tolerant_number(cells[0]), time_us = tolerant_number(cells[cells.size() - 8]);
    if (cells[0].find_first_not_of("0123456789") == std::string::npos) found.points.push_back({size, time_us});
  }
  return calibration_of(std::move(found), where, request);
}

Calibration import_nccl_tests_json(std::string_view text, const std::string& where, const ImportRequest& request) {
  const ordered_json json = parse_json(text, where);
  Found found;
  const auto string_at = [&](const ordered_json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  if (const auto args = json.find("args"); args != json.end()) {
    if (args->is_array() && !args->empty() && args->front().is_string())
      found.operation = operation_in(args->front().get<std::string>());
    if (args->is_string()) found.operation = operation_in(args->get<std::string>());
  }
  for (const char* key : {"test", "collective", "name"})
    if (found.operation.empty()) found.operation = operation_in(string_at(json, key));
  found.nccl = string_at(json, "nccl_version");
  if (const auto code = json.find("nccl_version"); code != json.end() && code->is_number_integer())
    found.nccl = fmt::format("{}", code->get<std::int64_t>());
  if (const auto devices = json.find("devices"); devices != json.end() && devices->is_array())
    for (const ordered_json& device : *devices) {
      ++found.ranks;
      if (!device.is_object()) continue;
      for (const char* key : {"hostname", "host"})
        if (const std::string host = string_at(device, key); !host.empty()) found.hosts.insert(host);
      for (const char* key : {"device_name", "name"})
        if (found.gpu.empty()) found.gpu = string_at(device, key);
    }
  const auto results = json.find("results");
  if (results == json.end() || !results->is_array())
    throw InvalidInput(where + ": results", "missing", "nccl-tests writes them with -J");
  for (const ordered_json& row : *results) {
    if (!row.is_object() || !row.contains("size") || !row.contains("out_of_place")) continue;
    const ordered_json& timed = row["out_of_place"];
    if (!timed.is_object()) continue;
    for (const char* key : {"time", "time_us"})
      if (timed.contains(key)) {
        found.points.push_back({tolerant_number(row["size"]), tolerant_number(timed[key])});
        break;
      }
  }
  return calibration_of(std::move(found), where, request);
}

Calibration import_nvbandwidth_json(std::string_view text, const std::string& where, const ImportRequest& request) {
  const ordered_json json = parse_json(text, where);
  const auto root = json.find("nvbandwidth");
  if (root == json.end() || !root->is_object() || !root->contains("testcases") || !(*root)["testcases"].is_array())
    throw InvalidInput(where + ": nvbandwidth.testcases", "missing", "nvbandwidth writes them with -j");
  Calibration c;
  c.machine = request.machine;
  if (const auto gpus = root->find("GPU Device list"); c.machine.gpu.name.empty() && gpus != root->end() &&
                                                       gpus->is_array() && !gpus->empty() &&
                                                       gpus->front().is_string()) {
    // "0: NVIDIA H100 80GB HBM3: (0000:1b:00)"
    std::string name = gpus->front().get<std::string>();
    if (const auto colon = name.find(": "); colon != std::string::npos) name = name.substr(colon + 2);
    c.machine.gpu.name = name.substr(0, name.find(": ("));
  }
  if (c.machine.gpu.name.empty())
    throw InvalidInput(where + ": GPU Device list", "missing", "--cluster says which machine it was");
  for (const ordered_json& test : (*root)["testcases"]) {
    if (!test.is_object() || !test.contains("name") || !test["name"].is_string()) continue;
    if (test.contains("status") && test["status"] != "Passed") continue;
    if (!test.contains("bandwidth_matrix") || !test["bandwidth_matrix"].is_array()) continue;
    double sum = 0;
    int cells = 0;
    for (const ordered_json& row : test["bandwidth_matrix"])
      if (row.is_array())
        for (const ordered_json& cell : row)
          if (const double GBps = tolerant_number(cell); std::isfinite(GBps) && GBps > 0) sum += GBps, ++cells;
    if (cells > 0) c.figures["nvbandwidth." + test["name"].get<std::string>() + "_GBps"] = sum / cells;
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
