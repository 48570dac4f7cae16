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

void normal(Report& report) {
  const std::string table = "deepep_normal_h200.csv";
  if (read_table(table).empty()) return report.skipped("DeepEP normal", "no " + table);
  const DeepEpModel one = fitted(table, {8}), both = fitted(table, {});
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
    report.table("  both fitted, on their own points, notify included", 0, predict(table, both, op, false, 0, true));
  }
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
