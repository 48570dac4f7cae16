// What benchmarks of others print, as values: nccl-tests and nvbandwidth, text and JSON. Internal to topology/ and its
// callers; doctor_measured.hpp holds them against a description.
//
// Cells that are no measurement ("N/A", "nan", an empty redop) are NaN. Rows that other output has broken up are left
// out and counted; what contradicts itself is refused by its line. Launchers' prefixes ("[1,0]<stdout>:", "0: ") are
// taken off. GB/s is 1e9 bytes/s, as both programs print it.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace topomoe {

// A GPU as a benchmark names it. Of a rank of nccl-tests, or a device (rank: its number) of nvbandwidth.
struct MeasuredDevice {
  int rank = 0;
  int group = 0;       // of NCCL_TESTS_SPLIT
  std::string host;    // empty: not said
  int device = 0;      // number on its host
  std::string bus_id;  // "0000:1b:00"; "1b" where only the bus is said; empty: not said
  std::string gpu;     // "NVIDIA H100 80GB HBM3"
  bool operator==(const MeasuredDevice&) const = default;
};

struct MeasuredRow {
  struct Half {
    double time_us, algbw_GBps, busbw_GBps, wrong;  // NaN: not measured
  };
  double bytes = 0;  // as nccl-tests counts: the whole buffer of one rank
  Half out_of_place{}, in_place{};
};

// One table of nccl-tests.
struct MeasuredCollective {
  std::string where;
  std::string operation;  // "alltoall" "all_gather" "reduce_scatter" "all_reduce" "send_recv" "broadcast" "reduce"
                          // "gather" "scatter"; empty: not said
  std::string nccl;       // "2.27.3+cuda12.9", "22703"; empty: not said
  int ranks = 0;          // the highest number seen and one; 0: no rank is named
  std::vector<MeasuredDevice> devices;  // those that are named, by rank
  std::vector<MeasuredRow> rows;
  int rows_left_out = 0;
  double out_of_bounds = 0;  // wrong values that the footer counts
};

// One matrix of nvbandwidth.
struct MeasuredMatrix {
  std::string testcase;                   // "device_to_device_memcpy_read_ce"
  std::string description;                // "memcpy CE GPU(row) <- GPU(column) bandwidth (GB/s)"
  std::vector<std::vector<double>> GBps;  // by row, equally long
};

struct MeasuredCopies {
  std::string where;
  std::vector<MeasuredDevice> devices;
  std::vector<MeasuredMatrix> matrices;
  std::vector<std::string> failed;  // testcases that ended in an error
};

using Measured = std::variant<MeasuredCollective, MeasuredCopies>;

// Every run in the text, at least one. `operation`: of nccl-tests output that does not say which test it is.
// InvalidInput names the line, or the key.
std::vector<Measured> read_measured(std::string_view text, const std::string& where, const std::string& operation = "");

std::vector<MeasuredCollective> read_nccl_tests_text(std::string_view text, const std::string& where);
MeasuredCollective read_nccl_tests_json(std::string_view text, const std::string& where);
MeasuredCopies read_nvbandwidth_text(std::string_view text, const std::string& where);
MeasuredCopies read_nvbandwidth_json(std::string_view text, const std::string& where);

// The operation that the name of a binary or a test means: ".../all_reduce_perf", "AllReduce". Empty: none.
std::string measured_operation(std::string_view name);
// "H100" of "NVIDIA H100 80GB HBM3" and of "H100 SXM 80GB": the first word of letters and then digits. Empty: none.
std::string gpu_model(const std::string& gpu);
// "00000000:1B:00.0" and "0000:1b:00" are "0000:1b:00"; "0x1b" is "1b".
std::string plain_bus_id(std::string_view text);

}  // namespace topomoe
