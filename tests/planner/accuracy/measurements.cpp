#include "tests/planner/accuracy/measurements.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace topomoe::accuracy {
namespace {

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells(1);
  for (const char c : line)
    if (c == ',')
      cells.emplace_back();
    else if (c != '\r')
      cells.back() += c;
  return cells;
}

}  // namespace

std::string measurements_path(const std::string& file) {
  const char* folder = std::getenv("TOPOMOE_DATA_DIR");
  return (folder ? std::string(folder) : std::string(TOPOMOE_SOURCE_DIR "/../shared")) + "/measurements/" + file;
}

std::string text_of(const std::string& file) {
  std::ifstream in(measurements_path(file));
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::vector<Row> read_table(const std::string& file) {
  std::ifstream in(measurements_path(file));
  std::vector<Row> rows;
  std::string line;
  if (!std::getline(in, line)) return rows;
  const auto header = cells_of(line);
  while (std::getline(in, line)) {
    const auto cells = cells_of(line);
    if (cells.size() != header.size()) throw std::runtime_error(file + ": " + line);
    Row& row = rows.emplace_back();
    for (std::size_t i = 0; i < cells.size(); ++i) row[header[i]] = cells[i];
  }
  return rows;
}

double number(const Row& row, const std::string& column) { return std::stod(row.at(column)); }
int whole(const Row& row, const std::string& column) { return std::stoi(row.at(column)); }

}  // namespace topomoe::accuracy
