// DeepEP on H200 + ConnectX-7: fitted on one node, judged on two; and fitted on both, what is left.
#include "planner/rates/deepep.hpp"

#include <fmt/format.h>

#include "planner/rates/import.hpp"
#include "tests/planner/accuracy/measurements.hpp"
#include "tests/planner/accuracy/tables.hpp"

namespace topomoe::accuracy {
namespace {

// nodes: 0 all.
std::vector<Pair> predict(const std::string& table, const DeepEpModel& model, EpOperation op, bool low_latency,
                          int nodes, bool with_notify) {
  const std::string word = op == EpOperation::dispatch ? "dispatch" : "combine";
  std::vector<Pair> pairs;
  for (const Row& row : read_table(table)) {
    if (nodes != 0 && whole(row, "node_num") != nodes) continue;
    EpRequest r;
    r.operation = op, r.low_latency = low_latency;
    r.tokens = number(row, "num_token"), r.hidden = whole(row, "hidden_size");
    r.experts = whole(row, "num_experts"), r.top_k = whole(row, "num_topk");
    r.nodes = whole(row, "node_num"), r.ranks = 8 * r.nodes;
    if (!low_latency) r.sms = whole(row, word + "_sms");
    const EpEstimate e = model.estimate(r);
    const double notify = with_notify ? e.notify_us : 0;
    const double measured =
        low_latency ? number(row, word + "_avg_t_us")
                    : number(row, word + "_transmit_us") + (with_notify ? number(row, word + "_notify_us") : 0);
    pairs.push_back({low_latency ? fmt::format("{} {} nodes", word, r.nodes)
                                 : fmt::format("{} {} nodes {:2} SMs", word, r.nodes, r.sms),
                     fmt::format("T {:.0f} of {} experts", r.tokens, r.experts), e.time_us + notify, measured,
                     e.low_us + notify, e.high_us + notify});
  }
  return pairs;
}

DeepEpModel fitted(const std::string& table, std::vector<int> gpus) {
  ImportRequest request;
  request.gpus = std::move(gpus);
  const Calibration c = import_table(text_of(table), table, request);
  return DeepEpModel(c.machine, std::span(&c, 1));
}

// What DeepEP's authors publish of more nodes (its README, first version; H800 with ConnectX-7, 4,096 tokens, top-8 in
// 4 groups; SMs not said, 24 taken): bytes to all nodes reached, the own one too, over time. Nothing is fitted on it.
void published(Report& report, const DeepEpModel& model) {
  struct Figure {
    int nodes;
    double dispatch_GBps, combine_GBps;
  };
  std::vector<Pair> pairs;
  for (const Figure& f : {Figure{4, 58, 57}, Figure{8, 51, 50}})
    for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine}) {
      EpRequest r;
      r.operation = op, r.tokens = 4096, r.sms = 24, r.nodes = f.nodes, r.ranks = 8 * f.nodes, r.most_nodes = 4;
      const double GBps = op == EpOperation::dispatch ? f.dispatch_GBps : f.combine_GBps;
      const double bytes = op == EpOperation::dispatch ? 7168 + 4 * 56 : 2 * 7168;
      const double measured = r.tokens * bytes * distinct_groups(256, f.nodes, 8, 4) / GBps * 1e-3;
      const EpEstimate e = model.estimate(r);
      pairs.push_back({op == EpOperation::dispatch ? "dispatch" : "combine", fmt::format("{} nodes", f.nodes),
                       e.time_us, measured, e.low_us, e.high_us});
    }
  report.table("DeepEP normal at 4 and 8 nodes, against the bandwidths its authors publish", 0, pairs);
}

void normal(Report& report) {
  const std::string table = "deepep_normal_h200.csv";
  if (read_table(table).empty()) return report.skipped("DeepEP normal", "no " + table);
  const Calibration all = import_table(text_of(table), table, {});
  const DeepEpModel one = fitted(table, {8}), both(all.machine, std::span(&all, 1));
  for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine}) {
    const std::string word = op == EpOperation::dispatch ? "dispatch" : "combine";
    report.table("DeepEP normal " + word + ", one node fitted, two nodes predicted", 0.30,
                 predict(table, one, op, false, 2, false));
  }
  for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine}) {
    const std::string word = op == EpOperation::dispatch ? "dispatch" : "combine";
    const auto& f = both.figures(op, false);
    report.note(
        fmt::format("\nDeepEP normal {} fitted on both: start {:.1f} us, SM us a KB {:.4f} a rank, {:.4f} a node, "
                    "NIC share {:.3f}, uneven {:.3f} up to {:.0f} tokens, p90 {:.1f}%",
                    word, f.start_us, 1e3 * f.rank_copy_us, 1e3 * f.node_copy_us, f.nic_share, f.uneven,
                    f.uneven_tokens, 100 * f.spread));
    // The curves of one SM count out, so that the model speaks for it and not the curve.
    std::vector<Pair> pairs;
    for (const int sms : {4, 8, 12, 16, 20, 24}) {
      Calibration rest = all;
      std::erase_if(rest.curves, [&](const CalibrationCurve& c) {
        return c.nodes == 2 && c.parameters.contains("sms") && c.parameters.at("sms") == sms;
      });
      const DeepEpModel model(rest.machine, std::span(&rest, 1));
      for (const Pair& p : predict(table, model, op, false, 2, false))
        if (p.group.find(fmt::format(" {:2} SMs", sms)) != std::string::npos) pairs.push_back(p);
    }
    report.table("  one SM count left out", 0, pairs);
  }
  published(report, both);
}

void low_latency(Report& report) {
  const std::string table = "deepep_lowlatency_h200.csv";
  if (read_table(table).empty()) return report.skipped("DeepEP low latency", "no " + table);
  // The model wants curves of the normal kernels too: they say which machine it is.
  ImportRequest eight;
  eight.gpus = {8};
  Calibration c = import_table(text_of("deepep_normal_h200.csv"), "deepep_normal_h200.csv", eight);
  merge_into(c, import_table(text_of(table), table, eight));
  const DeepEpModel one(c.machine, std::span(&c, 1));
  for (const EpOperation op : {EpOperation::dispatch, EpOperation::combine})
    report.table(std::string("DeepEP low latency ") + (op == EpOperation::dispatch ? "dispatch" : "combine") +
                     ", one node fitted, two nodes predicted",
                 0.30, predict(table, one, op, true, 2, false));
}

}  // namespace

void deepep(Report& report) {
  normal(report);
  low_latency(report);
}

}  // namespace topomoe::accuracy
