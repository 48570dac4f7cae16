// What a bench prints.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/bench.hpp"

namespace topomoe {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

std::string rows_json(const std::vector<BenchRow>& rows) {
  std::string out = "[";
  for (const BenchRow& r : rows) {
    const auto [low, high] = std::minmax_element(r.times_us.begin(), r.times_us.end());
    nlohmann::ordered_json j{{"algorithm", r.algorithm},
                             {"chunks", r.chunks},
                             {"ranks", r.ranks},
                             {"hosts", r.hosts},
                             {"bytes_per_rank", r.bytes_per_rank},
                             {"time_us_median", median(r.times_us)},
                             {"time_us_min", *low},
                             {"time_us_max", *high},
                             {"inter_bytes", r.inter_bytes},
                             {"intra_bytes", r.intra_bytes}};
    j["bound_us"] = r.bound_us ? nlohmann::ordered_json(*r.bound_us) : nlohmann::ordered_json();
    j["predicted_us"] = r.predicted_us ? nlohmann::ordered_json(*r.predicted_us) : nlohmann::ordered_json();
    j["picked"] = r.picked ? nlohmann::ordered_json(*r.picked) : nlohmann::ordered_json();
    j["inter_messages"] = r.inter_messages ? nlohmann::ordered_json(*r.inter_messages) : nlohmann::ordered_json();
    if (!r.pass.empty()) j["pass"] = r.pass;
    out += (&r == rows.data() ? "\n " : ",\n ") + j.dump();
  }
  return out + "\n]\n";
}

// Bandwidth is of a rank's whole buffer over the median time.
std::string rows_table(const std::vector<BenchRow>& rows) {
  std::string out = fmt::format("# {} ranks on {} hosts; time of the slowest rank, median of {}\n", rows[0].ranks,
                                rows[0].hosts, rows[0].times_us.size());
  const auto pass = [&](const std::string& text) { return rows[0].pass.empty() ? "" : fmt::format(" {:>8}", text); };
  out += fmt::format("#{:>11} {:>22} {:>6}{} {:>12} {:>12} {:>12} {:>8} {:>13} {:>13} {:>12} {:>7} {:>12}\n", "size",
                     "algorithm", "chunks", pass("pass"), "time", "min", "max", "algbw", "inter", "intra", "bound",
                     "/bound", "predicted");
  out += fmt::format("#{:>11} {:>22} {:>6}{} {:>12} {:>12} {:>12} {:>8} {:>13} {:>13} {:>12} {:>7} {:>12}\n", "(B)", "",
                     "", pass(""), "(us)", "(us)", "(us)", "(GB/s)", "(B)", "(B)", "(us)", "", "(us)");
  for (const BenchRow& r : rows) {
    const auto [low, high] = std::minmax_element(r.times_us.begin(), r.times_us.end());
    const double time = median(r.times_us);
    out += fmt::format("{:>12.0f} {:>22} {:>6}{} {:>12.1f} {:>12.1f} {:>12.1f} {:>8.3f} {:>13.0f} {:>13.0f}",
                       r.bytes_per_rank, r.algorithm, r.chunks, pass(r.pass), time, *low, *high,
                       r.bytes_per_rank / time * 1e-3, r.inter_bytes, r.intra_bytes);
    out += r.bound_us && *r.bound_us > 0 ? fmt::format(" {:>12.1f} {:>7.3f}", *r.bound_us, time / *r.bound_us)
                                         : fmt::format(" {:>12} {:>7}", "-", "-");
    out += r.predicted_us ? fmt::format(" {:>12.1f}{}\n", *r.predicted_us, r.picked == true ? " picked" : "")
                          : fmt::format(" {:>12}\n", "-");
  }
  return out;
}

}  // namespace topomoe
