// What a bench prints.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/bench.hpp"

namespace topomoe {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

std::string rows_json(const std::vector<ExchangeRow>& rows) {
  std::string out = "[";
  for (const ExchangeRow& r : rows) {
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
    out += (&r == rows.data() ? "\n " : ",\n ") + j.dump();
  }
  return out + "\n]\n";
}

}  // namespace topomoe
