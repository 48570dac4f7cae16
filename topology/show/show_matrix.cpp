// Matrices of path class and rate as text and JSON.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "topology/names.hpp"
#include "topology/read/json_fields.hpp"
#include "topology/show/host_matrix.hpp"

namespace topomoe {
namespace {

// Sixteen GPUs by sixteen NICs still fit a screen; beyond, NICs that all GPUs see alike share a column, and of more
// GPUs the text counts kinds of pairs. The JSON has all.
constexpr std::size_t kMostShown = 16;

using Cell = std::function<std::string(std::size_t, std::size_t)>;

std::string table(const std::vector<std::string>& columns, const std::vector<std::string>& rows, const Cell& text) {
  std::vector<std::string> cells;
  std::size_t width = 4, first = 6;
  for (const std::string& row : rows) first = std::max(first, row.size());
  for (std::size_t row = 0; row < rows.size(); ++row)
    for (std::size_t column = 0; column < columns.size(); ++column) {
      cells.push_back(text(row, column));
      width = std::max({width, cells.back().size(), columns[column].size()});
    }
  std::string out = fmt::format("  {:{}}", "", first);
  for (const std::string& column : columns) out += fmt::format(" {:>{}}", column, width);
  for (std::size_t row = 0; row < rows.size(); ++row) {
    out += fmt::format("\n  {:{}}", rows[row], first);
    for (std::size_t column = 0; column < columns.size(); ++column)
      out += fmt::format(" {:>{}}", cells[row * columns.size() + column], width);
  }
  return out + "\n";
}

// "  GPU to GPU: 240 x NVL 150": of what is too large for a table.
std::string counted(const char* what, const std::vector<PathCell>& cells) {
  std::map<std::string, int> kinds;
  for (const PathCell& cell : cells)
    if (cell.path_class != PathClass::LOC) ++kinds[cell_text(cell)];
  std::vector<std::string> words;
  for (const auto& [kind, count] : kinds) words.push_back(fmt::format("{} x {}", count, kind));
  constexpr std::size_t kMostKinds = 12;
  std::string out = fmt::format("  {}: ", what);
  for (std::size_t i = 0; i < std::min(words.size(), kMostKinds); ++i) out += (i == 0 ? "" : ", ") + words[i];
  if (words.size() > kMostKinds) out += fmt::format(" and {} kinds more", words.size() - kMostKinds);
  return out + " (the table: --format json)\n";
}

// NICs first .. end-1 that are one column.
struct NicColumn {
  int first = 0, end = 0;
  std::string name;
};

std::vector<NicColumn> nic_columns(const HostMatrix& matrix) {
  const int nics = static_cast<int>(matrix.nics.size());
  const auto alike = [&](int a, int b) {
    for (std::size_t row = 0; row < matrix.gpus.size(); ++row)
      if (matrix.gpu_nic(row, static_cast<std::size_t>(a)) != matrix.gpu_nic(row, static_cast<std::size_t>(b)))
        return false;
    return true;
  };
  std::vector<NicColumn> out;
  for (int nic = 0; nic < nics; ++nic) {
    const std::string& name = matrix.nics[static_cast<std::size_t>(nic)];
    if (matrix.nics.size() > kMostShown && !out.empty() && alike(out.back().first, nic)) {
      out.back().end = nic + 1;
      out.back().name = matrix.nics[static_cast<std::size_t>(out.back().first)] + ".." + name;
    } else {
      out.push_back({nic, nic + 1, name});
    }
  }
  return out;
}

nlohmann::ordered_json cell_json(const PathCell& cell) {
  nlohmann::ordered_json value;
  value["path_class"] = name(cell.path_class);
  // LOC has no rate: it never leaves the GPU.
  value["GBps_per_direction"] =
      cell.path_class == PathClass::LOC ? nlohmann::ordered_json() : json_number(cell.GBps_per_direction);
  return value;
}

nlohmann::ordered_json rows_json(const std::vector<PathCell>& cells, std::size_t rows) {
  auto out = nlohmann::ordered_json::array();
  const std::size_t columns = rows == 0 ? 0 : cells.size() / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    auto line = nlohmann::ordered_json::array();
    for (std::size_t column = 0; column < columns; ++column) line.push_back(cell_json(cells[row * columns + column]));
    out.push_back(std::move(line));
  }
  return out;
}

}  // namespace

std::string rate_text(double GBps) { return short_number(GBps, GBps < 1 ? 3 : 2); }

std::string cell_text(const PathCell& cell) {
  if (cell.path_class == PathClass::LOC) return "-";
  if (cell.path_class == PathClass::DIS) return "DIS";
  return fmt::format("{} {}", name(cell.path_class), rate_text(cell.GBps_per_direction));
}

std::string matrix_text(const HostMatrix& matrix) {
  if (matrix.gpus.empty()) return "";
  if (matrix.gpus.size() > kMostShown)
    return counted("GPU to GPU", matrix.gpu_to_gpu) +
           (matrix.nics.empty() ? "" : counted("GPU to NIC", matrix.gpu_to_nic));
  std::string out = "  GPU to GPU: path class, GB/s one direction\n";
  out += table(matrix.gpus, matrix.gpus,
               [&](std::size_t row, std::size_t column) { return cell_text(matrix.gpu_gpu(row, column)); });
  if (matrix.nics.empty()) return out;
  const std::vector<NicColumn> columns = nic_columns(matrix);
  if (columns.size() > kMostShown) return out + counted("GPU to NIC", matrix.gpu_to_nic);
  std::vector<std::string> names;
  for (const NicColumn& column : columns) names.push_back(column.name);
  out += "  GPU to NIC: path class, GB/s one direction; * its own\n";
  return out + table(names, matrix.gpus, [&](std::size_t row, std::size_t column) {
           const NicColumn& own = columns[column];
           const bool is_own = matrix.own_nic[row] >= own.first && matrix.own_nic[row] < own.end;
           return cell_text(matrix.gpu_nic(row, static_cast<std::size_t>(own.first))) + (is_own ? "*" : "");
         });
}

std::string host_pairs_text(const Topology& topology, const std::vector<HostPair>& pairs) {
  if (pairs.empty()) return "";
  std::string out = "between hosts: path class, GB/s one direction of one GPU alone\n";
  for (const HostPair& pair : pairs) {
    out +=
        fmt::format("  {} to {}, {}: ", topology.host_name(pair.host), topology.host_name(pair.other), pair.relation);
    out += pair.other_rail
               ? fmt::format("same rail {}, other rail {}\n", cell_text(pair.same_rail), cell_text(*pair.other_rail))
               : cell_text(pair.same_rail) + "\n";
  }
  return out;
}

void matrix_json(const HostMatrix& matrix, nlohmann::ordered_json& host) {
  host["gpus"] = matrix.gpus;
  host["nics"] = matrix.nics;
  host["gpu_to_gpu"] = rows_json(matrix.gpu_to_gpu, matrix.gpus.size());
  host["gpu_to_nic"] = rows_json(matrix.gpu_to_nic, matrix.gpus.size());
  auto own = nlohmann::ordered_json::array();
  for (const int nic : matrix.own_nic) own.push_back(nic < 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(nic));
  host["own_nic"] = std::move(own);
}

nlohmann::ordered_json host_pairs_json(const std::vector<HostPair>& pairs) {
  auto out = nlohmann::ordered_json::array();
  for (const HostPair& pair : pairs) {
    nlohmann::ordered_json value;
    value["hosts"] = {pair.host, pair.other};
    value["relation"] = pair.relation;
    value["same_rail"] = cell_json(pair.same_rail);
    value["other_rail"] = pair.other_rail ? cell_json(*pair.other_rail) : nlohmann::ordered_json();
    out.push_back(std::move(value));
  }
  return out;
}

}  // namespace topomoe
