#include "tests/planner/accuracy/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace topomoe::accuracy {
namespace {

struct Errors {
  std::vector<double> all;
  double bias = 0;
  int inside = 0, banded = 0;

  void add(const Pair& p) {
    all.push_back(error_of(p));
    bias += std::log(p.predicted_us / p.measured_us);
    if (p.high_us <= 0) return;
    ++banded;
    inside += p.low_us <= p.measured_us && p.measured_us <= p.high_us;
  }
  std::string text() const {
    const std::string band = banded == 0 ? "" : fmt::format("   in band {:3.0f}%", 100.0 * inside / banded);
    return fmt::format("{:5} pairs   median {:6.1f}%   p90 {:6.1f}%   bias {:+6.1f}%{}", all.size(),
                       100 * quantile(all, 0.5), 100 * quantile(all, 0.9),
                       100 * std::expm1(bias / static_cast<double>(all.size())), band);
  }
};

}  // namespace

double error_of(const Pair& p) { return std::abs(p.predicted_us / p.measured_us - 1); }

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const auto above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

Report::Report(bool every_pair, const std::string& pairs_file) : every_pair_(every_pair) {
  if (pairs_file.empty()) return;
  pairs_.open(pairs_file);
  pairs_ << "table,group,what,predicted_us,measured_us,error\n";
}

void Report::table(const std::string& title, double target, const std::vector<Pair>& pairs) {
  fmt::print("\n{}\n", title);
  std::vector<std::pair<std::string, Errors>> groups;  // in the order they came
  Errors all;
  for (const Pair& p : pairs) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == p.group; });
    if (group == groups.end()) group = groups.insert(groups.end(), {p.group, {}});
    group->second.add(p);
    all.add(p);
    compared_ = true;
    if (pairs_.is_open())
      pairs_ << fmt::format("\"{}\",\"{}\",\"{}\",{:.4f},{:.4f},{:+.4f}\n", title, p.group, p.what, p.predicted_us,
                            p.measured_us, p.predicted_us / p.measured_us - 1);
  }
  for (const auto& [name, errors] : groups) {
    fmt::print("  {:44} {}\n", name, errors.text());
    if (!every_pair_) continue;
    for (const Pair& p : pairs)
      if (p.group == name)
        fmt::print("      {:28} predicted {:12.2f} us   measured {:12.2f} us   {:+7.1f}%\n", p.what, p.predicted_us,
                   p.measured_us, 100 * (p.predicted_us / p.measured_us - 1));
  }
  if (pairs.empty()) return note("  no pairs: nothing was compared"), void(missed_ = missed_ || target > 0);
  fmt::print("  {:44} {}\n", "all", all.text());
  if (target <= 0) return;
  const bool met = quantile(all.all, 0.5) <= target;
  fmt::print("  {}: median {:.1f}%, target {:.0f}%\n", met ? "met" : "MISSED", 100 * quantile(all.all, 0.5),
             100 * target);
  missed_ = missed_ || !met;
}

void Report::skipped(const std::string& title, const std::string& why) {
  fmt::print("\n{}\n  skipped: {}\n", title, why);
}
void Report::require(bool met, const std::string& line) {
  fmt::print("  {}: {}\n", met ? "met" : "MISSED", line);
  missed_ = missed_ || !met;
}
void Report::note(const std::string& line) { fmt::print("{}\n", line); }

}  // namespace topomoe::accuracy
