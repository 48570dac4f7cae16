// The tables of others that rates are judged by: ../shared/measurements, or $TOPOMOE_DATA_DIR/measurements.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace topomoe::accuracy {

using Row = std::map<std::string, std::string>;  // column -> cell

// Empty when the file is not there. Throws std::runtime_error for a line that has not as many cells as the header.
std::vector<Row> read_table(const std::string& file);
double number(const Row&, const std::string& column);
int whole(const Row&, const std::string& column);
std::string measurements_path(const std::string& file);
std::string text_of(const std::string& file);  // empty when it is not there

}  // namespace topomoe::accuracy
