#include "planner/rates/node_collective.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "planner/rates/gpu_facts.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/same_machine.hpp"

namespace topomoe {
namespace {

// Per hop of a ring and per doubling of an all-to-all's peers, as a share of the floor at 2 GPUs: H100 0.16 and 0.13,
// A100 0.11 and 0.13. For machines measured at one number of GPUs only.
constexpr double kStepShare = 0.13;
// An all-reduce in the switch takes as long at 72 GPUs as at 8. About twice what 8 H100 show for a ring. Assumed.
constexpr double kInSwitchFloor_us = 30;
// NCCL's all-to-all at large sizes, 8 x H100: 317 of 450 GB/s; and 7 us at 512 B.
constexpr double kDatasheetShare = 0.70, kDatasheetFloor_us = 7, kDatasheetStep_us = 0.9;

struct Measured {
  SizeCurve curve;
  double floor_us;
  double spread;
};

double us(const SizeCurve& curve, double size) { return in_us(curve(size)); }

// The median of the four smallest sizes: one of them may be an outlier.
double floor_of(const std::vector<CalibrationKnot>& knots) {
  std::vector<double> small;
  for (std::size_t i = 0; i < std::min<std::size_t>(4, knots.size()); ++i) small.push_back(knots[i].time_us);
  std::sort(small.begin(), small.end());
  return 0.5 * (small[(small.size() - 1) / 2] + small[small.size() / 2]);
}

// Of send_recv there are few tables: half an all-to-all of two GPUs, without the half that stays.
std::map<int, Measured> curves_by_gpus(const Calibration& c, Collective op) {
  std::map<int, Measured> found;
  for (const CalibrationCurve& curve : c.curves) {
    if (curve.operation != to_string(op) || curve.nodes != 1 || curve.gpus < 2 || curve.size_unit != "buffer_bytes" ||
        !is_alone(curve))
      continue;
    std::vector<SizeCurve::Knot> knots;
    for (const CalibrationKnot& k : curve.knots) knots.push_back({k.size, k.time_us * 1e-6});
    found.insert_or_assign(curve.gpus, Measured{SizeCurve(knots, c.name), floor_of(curve.knots), curve.spread});
  }
  return found;
}

struct Source {
  const Calibration* calibration = nullptr;
  std::map<int, Measured> curves;
  Collective measured_op = Collective::alltoall;  // of `curves`
  MachineRatio ratio;
  double distance = 0;
};

// A step of GPU count counts as much as a tenth of a ratio: H100 at 4 GPUs tells more of H100 at 8 than A100 at 8 does.
double count_distance(const std::map<int, Measured>& curves, int gpus) {
  double least = 1e9;
  for (const auto& [n, curve] : curves) least = std::min(least, std::abs(std::log2(1.0 * n / gpus)));
  return 0.1 * least;
}

std::optional<Source> nearest(std::span<const Calibration> all, const CalibrationMachine& machine, Collective op,
                              int gpus) {
  std::optional<Source> best;
  for (const Calibration& c : all) {
    if (c.machine.interconnect != machine.interconnect) continue;
    for (const Collective from : {op, Collective::alltoall}) {
      if (from != op && op != Collective::send_recv) continue;
      Source s{&c, curves_by_gpus(c, from), from, ratio_between(c.machine, machine), 0};
      if (s.curves.empty()) continue;
      s.distance = s.ratio.distance + count_distance(s.curves, gpus) + (from == op ? 0 : 0.2);
      // Later files are the user's own: at equal distance they win.
      if (!best || s.distance <= best->distance) best = std::move(s);
    }
  }
  return best;
}

// The measured counts on both sides of n, or the two nearest where n lies outside.
std::pair<int, int> neighbours(const std::map<int, Measured>& curves, int n) {
  if (curves.size() == 1) return {curves.begin()->first, curves.begin()->first};
  auto above = curves.lower_bound(n);
  if (above == curves.end()) --above;
  if (above == curves.begin()) ++above;
  return {std::prev(above)->first, above->first};
}

double floor_at(const Source& s, Collective op, int n, bool in_switch) {
  const auto [a, b] = neighbours(s.curves, n);
  const double at_a = s.curves.at(a).floor_us, at_b = s.curves.at(b).floor_us;
  const double x = latency_steps(op, n), x_a = latency_steps(op, a), x_b = latency_steps(op, b);
  double floor =
      a == b ? at_a * (1 + kStepShare * x) / (1 + kStepShare * x_a) : at_a + (at_b - at_a) * (x - x_a) / (x_b - x_a);
  floor = std::max(floor, 0.5 * std::min(at_a, at_b));
  if (op == Collective::all_reduce && in_switch && n > b) floor = std::min(floor, std::max(at_b, kInSwitchFloor_us));
  return floor;
}

// Time above the floor per unit of work, at n GPUs of the machine that was measured.
double excess_per_work(const Source& s, int n, bool in_switch, double size) {
  const auto [a, b] = neighbours(s.curves, n);
  const auto at = [&](int m) {
    const Measured& measured = s.curves.at(m);
    return std::max(us(measured.curve, size) - measured.floor_us, 0.0) / work_of(s.measured_op, m, in_switch);
  };
  if (n <= a) return at(a);
  if (n >= b) return at(b);
  const double f = std::log(1.0 * n / a) / std::log(1.0 * b / a);
  return at(a) * (1 - f) + at(b) * f;
}

std::string source_text(const Source& s, const CalibrationMachine& to, Collective op, int gpus, bool same_machine,
                        bool same_count) {
  std::string counts;
  for (const auto& [n, curve] : s.curves) counts += (counts.empty() ? "" : ", ") + std::to_string(n);
  const std::string from = source_name(*s.calibration) + " " + std::string(to_string(s.measured_op));
  if (same_machine && same_count) return fmt::format("measured: {}, {} GPUs", from, gpus);
  std::string how;
  if (!same_machine)
    how = fmt::format(" to {} (rate x {:.3g}, latency x {:.3g})", to.gpu.name, s.ratio.bandwidth, s.ratio.latency);
  if (!same_count) how += fmt::format(" to {} GPUs", gpus);
  if (s.measured_op != op) how += " to " + std::string(to_string(op));
  return fmt::format("scaled: {} measured at {} GPUs,{}", from, counts, how);
}

}  // namespace

bool is_alone(const CalibrationCurve& c) { return !c.parameters.contains("in_a_row"); }

NodeCurve node_curve_of(const CalibrationCurve& c, const std::string& calibration_name) {
  std::vector<SizeCurve::Knot> knots;
  for (const CalibrationKnot& k : c.knots) knots.push_back({k.size, k.time_us * 1e-6});
  std::string text = fmt::format("measured: {} {}, {} GPUs", calibration_name, c.operation, c.gpus);
  if (c.nodes > 1) text += fmt::format(" on {} nodes", c.nodes);
  return {SizeCurve(std::move(knots), text), floor_of(c.knots), std::max(kMeasuredError, c.spread), text};
}

std::optional<NodeCurve> measured_node_curve(std::span<const Calibration> all, const CalibrationMachine& machine,
                                             Collective op, int gpus) {
  auto source = nearest(all, machine, op, gpus);
  if (!source) return std::nullopt;
  const int n = source->measured_op == op ? gpus : 2;
  const bool here = gpu_facts(machine.gpu.name).reduces_in_switch;
  const bool there = gpu_facts(source->calibration->machine.gpu.name).reduces_in_switch;
  const double scale = source->measured_op == op ? 1 : 2;  // bytes of the measured buffer for one byte sent
  const double work = work_of(op, gpus, here) / (source->measured_op == op ? 1 : scale);
  const MachineRatio& ratio = source->ratio;
  const bool same_machine = ratio.distance == 0, same_count = source->curves.count(n) != 0;
  const auto near = neighbours(source->curves, n);
  const int low = near.first, high = near.second;

  const double floor = floor_at(*source, source->measured_op, n, there && here);
  // Latency and rate of another machine move the whole curve along both axes: t'(S) = l t(S / (l b)).
  const double stretch = ratio.latency * ratio.bandwidth;
  std::vector<double> sizes;
  for (const int m : {low, high}) {
    if (same_count && m != n) continue;
    for (const CalibrationCurve& c : source->calibration->curves)
      if (c.operation == to_string(source->measured_op) && c.gpus == m && c.nodes == 1 && is_alone(c))
        for (const CalibrationKnot& k : c.knots) sizes.push_back(k.size);
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());

  const bool as_measured = same_count && source->measured_op == op && here == there;
  std::vector<SizeCurve::Knot> knots;
  for (const double size : sizes) {
    const double t =
        as_measured ? us(source->curves.at(n).curve, size) : floor + work * excess_per_work(*source, n, there, size);
    knots.push_back({size * stretch / scale, ratio.latency * t * 1e-6});
  }
  double error = same_count ? std::max(kMeasuredError, source->curves.at(n).spread) : kOtherCountError;
  if (!same_count && n > 2 * high) error *= std::log2(1.0 * n / high);
  if (source->curves.size() == 1 && !same_count) error *= 1.5;
  // H200 for H100: every ratio is 1, only the boards differ.
  if (!same_machine) error = std::hypot(error, ratio.distance < 0.02 ? kOtherCountError : kOtherMachineError);
  if (source->measured_op != op) error = std::hypot(error, kOtherCountError);
  std::string text = source_text(*source, machine, op, gpus, same_machine, same_count);
  return NodeCurve{SizeCurve(std::move(knots), text), ratio.latency * floor, error, text};
}

NodeCurve datasheet_node_curve(const CalibrationMachine& machine, Collective op, int gpus) {
  const GpuFacts facts = gpu_facts(machine.gpu.name);
  const double clock = facts.clock_GHz > 0 ? 1.98 / facts.clock_GHz : 1;  // the figures above are of H100
  const double floor =
      clock * (kDatasheetFloor_us + kDatasheetStep_us * (latency_steps(op, gpus) - latency_steps(op, 2)));
  const double rate = kDatasheetShare * machine.nvlink_GBps / work_of(op, gpus, facts.reduces_in_switch);
  std::string text = fmt::format("datasheet: {:g} GB/s NVLink x {} reached by NCCL on other machines",
                                 machine.nvlink_GBps, kDatasheetShare);
  return {SizeCurve::from_rate(microseconds(floor), GBps(rate), text), floor, kDatasheetError, text};
}

}  // namespace topomoe
