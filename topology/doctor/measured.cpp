#include "topology/doctor/measured.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "topology/doctor/measured_cells.hpp"
#include "topology/read/json_text.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::string_view kBlank = " \t\r\f\v";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) + 1 - begin);
}

std::string lower(std::string_view text) {
  std::string out;
  for (const char c : text) out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

}  // namespace

// "[1,0]<stdout>:" of Open MPI's --tag-output, "12: " of srun --label.
std::string_view without_launcher(std::string_view line) {
  line = trimmed(line);
  if (line.starts_with('['))
    if (const std::size_t tag = line.find(">:"); tag < 40 && line.substr(0, tag).find("<std") != std::string_view::npos)
      return trimmed(line.substr(tag + 2));
  const std::size_t digits = line.find_first_not_of("0123456789");
  if (digits != 0 && digits < 8 && line.substr(digits).starts_with(": ")) return trimmed(line.substr(digits + 2));
  return line;
}

std::string shown_text(std::string_view text) {
  constexpr std::size_t kMost = 200;
  std::string out(text.substr(0, kMost));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return out;
}

std::vector<std::string_view> measured_words(std::string_view line) {
  std::vector<std::string_view> out;
  while (!(line = trimmed(line)).empty()) {
    const std::size_t end = std::min(line.find_first_of(kBlank), line.size());
    out.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
  return out;
}

int whole_number(std::string_view cell, int limit) {
  int value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  const bool whole = error == std::errc() && end == cell.data() + cell.size() && !cell.empty() && cell.front() != '-';
  return whole && value < limit ? value : -1;
}

double measured_number(std::string_view cell, const std::string& place) {
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error == std::errc::result_out_of_range) value = std::numeric_limits<double>::infinity();
  if (error == std::errc::invalid_argument || end != cell.data() + cell.size() || std::isnan(value))
    return std::numeric_limits<double>::quiet_NaN();
  constexpr double kMost = 1e18;  // bytes, us or GB/s: beyond any machine
  if (value < 0 || value > kMost)
    throw InvalidInput(place, shown_text(cell.substr(0, 40)), "a size, a time or a rate, 0 or more");
  return value;
}

double measured_number(const nlohmann::ordered_json& value, const std::string& place) {
  if (value.is_string()) return measured_number(trimmed(value.get_ref<const std::string&>()), place);
  if (!value.is_number()) return std::numeric_limits<double>::quiet_NaN();
  return measured_number(std::string_view(value.dump()), place);
}

std::string json_text(const nlohmann::ordered_json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? shown_text(at->get_ref<const std::string&>()) : std::string();
}

int json_whole(const nlohmann::ordered_json& object, const char* key, int otherwise, int limit) {
  if (!object.is_object() || !object.contains(key)) return otherwise;
  const nlohmann::ordered_json& value = object.at(key);
  const int number = value.is_string()           ? whole_number(trimmed(value.get<std::string>()), limit)
                     : value.is_number_integer() ? whole_number(value.dump(), limit)
                                                 : -1;
  return number < 0 ? otherwise : number;
}

std::string measured_operation(std::string_view name) {
  struct Known {
    std::string_view word, operation;
  };
  // "reduce" last: others have it in their names.
  constexpr std::array<Known, 9> kKnown{{{"alltoall", "alltoall"},
                                         {"allgather", "all_gather"},
                                         {"reducescatter", "reduce_scatter"},
                                         {"allreduce", "all_reduce"},
                                         {"sendrecv", "send_recv"},
                                         {"broadcast", "broadcast"},
                                         {"gather", "gather"},
                                         {"scatter", "scatter"},
                                         {"reduce", "reduce"}}};
  std::string plain = lower(name);
  if (const std::size_t slash = plain.rfind('/'); slash != std::string::npos) plain.erase(0, slash + 1);
  std::erase(plain, '_');
  if (plain.find("alltoallv") != std::string::npos) return {};  // unequal sizes: no bound here is about it
  for (const Known& known : kKnown)
    if (plain.find(known.word) != std::string::npos) return std::string(known.operation);
  return {};
}

std::string gpu_model(const std::string& gpu) {
  std::size_t begin = 0;
  while (begin < gpu.size()) {
    std::size_t end = begin;
    while (end < gpu.size() && gpu[end] >= 'A' && gpu[end] <= 'Z') ++end;
    const std::size_t digits = end;
    while (end < gpu.size() && gpu[end] >= '0' && gpu[end] <= '9') ++end;
    if (digits > begin && end > digits + 1) return gpu.substr(begin, end - begin);
    begin = gpu.find_first_of(" -_", begin);
    if (begin == std::string::npos) break;
    ++begin;
  }
  return {};
}

std::string plain_bus_id(std::string_view text) {
  std::string id = lower(trimmed(text));
  if (id.starts_with("0x")) id.erase(0, 2);
  if (id.find_first_not_of("0123456789abcdef:.") != std::string::npos) return {};
  if (const std::size_t dot = id.find('.'); dot != std::string::npos) id.erase(dot);
  const std::size_t colon = id.find(':');
  if (colon == std::string::npos) return id;
  if (id.find(':', colon + 1) == std::string::npos) return "0000:" + id;  // "1b:00"
  std::size_t zeros = 0;
  while (colon - zeros > 4 && id[zeros] == '0') ++zeros;
  return id.substr(zeros);
}

std::vector<Measured> read_measured(std::string_view text, const std::string& where, const std::string& operation) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) throw InvalidInput(where, "empty", "output of nccl-tests or nvbandwidth");
  std::vector<Measured> out;
  const auto add = [&](MeasuredCollective own) {
    if (own.operation.empty()) own.operation = operation;
    out.emplace_back(std::move(own));
  };
  if (text[begin] == '{') {
    const nlohmann::ordered_json root = parse_description(text, where);
    if (root.contains("nvbandwidth"))
      out.emplace_back(read_nvbandwidth_json(text, where));
    else
      add(read_nccl_tests_json(text, where));
  } else if (text.find("algbw") != std::string_view::npos || text.find("#  Rank") != std::string_view::npos) {
    for (MeasuredCollective& own : read_nccl_tests_text(text, where)) add(std::move(own));
  } else if (text.find("nvbandwidth") != std::string_view::npos ||
             text.find("bandwidth (GB/s)") != std::string_view::npos) {
    out.emplace_back(read_nvbandwidth_text(text, where));
  } else {
    throw InvalidInput(where, "neither nccl-tests nor nvbandwidth",
                       "what they print, from its first line, or their JSON (nccl-tests -J, nvbandwidth -j)");
  }
  return out;
}

}  // namespace topomoe
