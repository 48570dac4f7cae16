// nccl-tests against the bound of its collective.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "topology/doctor/doctor_measured.hpp"
#include "topology/names.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr double kMiB = 1024.0 * 1024;

// Shares of the bound that healthy machines reach at 512 MiB, a little below the least of the A100 and H100 boxes in
// ../shared/measurements/nccl_single_node.csv: 0.500 of 2 GPUs and 0.639 of 4 and 8 (A100 all_gather; all-to-all of 4
// and 8: 0.65 to 0.74; all_reduce of 8 with NVLS 0.99). Between nodes: 23 to 24 of 25 GB/s a NIC are usual
// (nccl-tests#119, #290), 20 "not too bad" (#160), 75 of 100 "a bit low" (nccl#495); of all-to-all there is no table,
// its share inside a node is taken. Through CPUs: 4.5 and 2.1 GB/s of 24 and 11.2 on 4 and 8 L40S without peer-to-peer
// (../shared/measurements/README.md), whose copies go through host memory.
double healthy_share(const RunPlace& run, const std::string& operation, const std::string& klass) {
  if (klass.starts_with("cpu")) return 0.18;
  if (run.ranks == 2 && run.nodes == 1) return 0.49;
  return run.nodes == 1 || operation == "alltoall" ? 0.63 : 0.75;
}
// Below this part of it nothing in those tables comes: severe. (16 nodes at 20 of 53 GB/s was a fault: nccl#1792.)
constexpr double kSevere = 0.75;
// In the same tables, from these sizes on, operations reach 0.9 and 0.5 of their best.
constexpr double kLargeBytes = 256 * kMiB, kMiddleBytes = 16 * kMiB;

struct Best {
  double busbw_GBps = 0, bytes = 0, time_us = 0, largest = 0;
  bool wrong = false;
};

// In-place all-to-alls and sends do not exist: their second half is no result, and old versions call it wrong.
Best best_of(const MeasuredCollective& run) {
  const bool halves = run.operation != "alltoall" && run.operation != "send_recv";
  Best out;
  for (const MeasuredRow& row : run.rows) {
    out.largest = std::max(out.largest, row.bytes);
    for (const MeasuredRow::Half& half : {row.out_of_place, halves ? row.in_place : row.out_of_place}) {
      // All-reduce of floats may differ in the last digits; old versions print that as 2e-06.
      out.wrong = out.wrong || half.wrong >= 1;
      if (half.busbw_GBps > out.busbw_GBps)
        out.busbw_GBps = half.busbw_GBps, out.bytes = row.bytes, out.time_us = half.time_us;
    }
  }
  return out;
}

std::string size_text(double bytes) {
  return bytes >= 1024 * kMiB ? short_number(bytes / (1024 * kMiB)) + " GiB"
         : bytes >= kMiB      ? short_number(bytes / kMiB) + " MiB"
                              : short_number(bytes / 1024) + " KiB";
}

std::string percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

std::string check_of(const std::string& klass) {
  if (klass.starts_with("nic") || klass.starts_with("ring"))
    return "NCCL_DEBUG=INFO: are all NICs used (NET/IB, GDRDMA)? NCCL_IB_HCA, nvidia_peermem; ib_write_bw between two "
           "hosts, rail by rail; port errors (perfquery, ethtool -S)";
  if (klass.starts_with("leaf") || klass.starts_with("pod") || klass.starts_with("group"))
    return "the fabric above the leaves: dead uplinks, ECMP on few paths (adaptive routing); the same run within one "
           "leaf";
  if (klass == "nvlink" || klass == "xgmi")
    return "nvidia-smi nvlink --status, the fabric manager; NCCL_P2P_DISABLE, NCCL_DEBUG=INFO: via P2P or SHM? "
           "nvbandwidth "
           "-t device_to_device_memcpy_read_ce";
  return "NCCL_DEBUG=INFO: via P2P or SHM? ACS and IOMMU (they break peer-to-peer), NCCL_P2P_LEVEL, lspci -vv: LnkSta";
}

class CollectiveDoctor {
 public:
  CollectiveDoctor(const MeasuredCollective& run, const RunPlace& place, std::vector<Finding>& findings)
      : run_(run), place_(place), findings_(findings), best_(best_of(run)) {}

  void judge(const BusbwCeiling& bound) {
    const double healthy = healthy_share(place_, run_.operation, bound.klass);
    const double seen = best_.busbw_GBps, share = seen / bound.usual_GBps;
    const std::string busbw = fmt::format("bus bandwidth {} GB/s at {}", short_number(seen, 1), size_text(best_.bytes));
    const std::string at_most =
        fmt::format("{}at most {} GB/s{}{} by {}{}",
                    place_.other_hosts ? "of the first hosts of the description, not those that ran it: " : "",
                    short_number(bound.usual_GBps, 1), ring() ? " of a ring" : "",
                    bound.formula.empty() ? "" : " (" + bound.formula + ")", bound.bottleneck,
                    bound.assumed ? ", an assumed rate" : "");
    const std::string nodes = by_nodes(bound);
    if (bound.unknown) {
      add(Severity::note, busbw, at_most + nodes,
          bound.klass.starts_with("nic")
              ? "not judged: the description does not know this rate; give it in a cluster.json"
              : "not judged: the description does not know these links (NVLink?); give a dump "
                "of the running machine (NCCL_TOPO_DUMP_FILE)");
      return;
    }
    if (seen > kAboveBound * bound.in_switch_GBps) {
      add(Severity::warning, busbw + ": more than the description allows", at_most + other_bounds(bound) + nodes,
          "the description is wrong (rates or counts of links), or this run was elsewhere or took several NICs for one "
          "flow; compare with a new dump");
      return;
    }
    if (seen > kAboveBound * bound.usual_GBps) {
      add(Severity::note, busbw + ", above a ring's bound", at_most + other_bounds(bound) + nodes,
          seen > kAboveBound * bound.any_GBps
              ? "only reduction in switches (NVLS, SHARP) gets there: NCCL_DEBUG=INFO says whether it is used"
              : "normal of trees and NVLS, which reduce inside a node first; NCCL_ALGO=RING measures the network");
      return;
    }
    // What smaller sizes reach of what large ones do.
    const double of_size = best_.largest >= kLargeBytes ? 1 : 0.5;
    const std::string said = fmt::format("{}: {} of the bound", busbw, percent(share));
    const std::string range = fmt::format("{}; {} or more of it is healthy{}{}", at_most, percent(healthy * of_size),
                                          of_size < 1 ? " at no more than " + size_text(best_.largest) : "", nodes);
    if (best_.largest < kMiddleBytes) {
      add(Severity::note, said, at_most + nodes,
          fmt::format("not judged: up to {} latency counts; run to 1 GiB (-e 1G)", size_text(best_.largest)));
    } else if (share >= healthy * of_size) {
      add(Severity::note, said + ", normal", range, "");
    } else {
      const bool severe = share < kSevere * healthy * of_size;
      const double then_us = best_.time_us * share / (healthy * of_size);
      add(severe ? Severity::severe : Severity::warning, said, range, check_of(bound.klass),
          std::isfinite(then_us)
              ? fmt::format("{} of {}: {} us, {} at {}", run_.operation, size_text(best_.bytes),
                            short_number(best_.time_us, 0), short_number(then_us, 0), percent(healthy * of_size))
              : "");
    }
  }

  void wrong_values() {
    if (run_.out_of_bounds > 0 || best_.wrong)
      add(Severity::severe,
          run_.out_of_bounds > 0 ? fmt::format("{:.0f} wrong values", run_.out_of_bounds) : "wrong values", "none",
          "GPU memory (nvidia-smi -q -d ECC, Xid), NVLink errors, relaxed ordering of NICs; run again with -c 1",
          "results of training are wrong");
  }

 private:
  bool ring() const { return run_.operation != "alltoall" && run_.operation != "send_recv"; }
  void add(Severity severity, std::string seen, std::string expected, std::string check, std::string cost = {}) {
    findings_.push_back(
        {severity, run_name(run_), std::move(seen), std::move(expected), std::move(cost), std::move(check)});
  }
  static std::string other_bounds(const BusbwCeiling& bound) {
    std::string out;
    if (bound.any_GBps > kAboveBound * bound.usual_GBps)
      out += fmt::format(", {} of any algorithm", short_number(bound.any_GBps, 1));
    if (bound.in_switch_GBps > kAboveBound * bound.any_GBps)
      out += fmt::format(", {} reduced in switches", short_number(bound.in_switch_GBps, 1));
    return out;
  }
  std::string by_nodes(const BusbwCeiling& bound) const {
    if (run_.operation != "alltoall" || place_.nodes < 2) return {};
    const std::string list = all_to_all_by_nodes(place_);
    if (list.empty()) return {};
    return fmt::format("; bound by nodes: {}{}", list,
                       bound.formula.empty() ? "" : " (over N nodes the NICs allow N/(N-1) of their rate)");
  }

  const MeasuredCollective& run_;
  const RunPlace& place_;
  std::vector<Finding>& findings_;
  const Best best_;
};

}  // namespace

JudgedRun diagnose_collective(const MeasuredCollective& run, const Topology& topology, std::vector<Finding>& findings) {
  if (run.operation.empty())
    throw InvalidInput(run.where + ": operation", "not in the output",
                       "say which test it was: --op alltoall, all_reduce, ...");
  const auto add = [&](Severity severity, std::string seen, std::string expected, std::string check) {
    findings.push_back({severity, run_name(run), std::move(seen), std::move(expected), "", std::move(check)});
  };
  const auto place = place_run(run, topology, findings);
  if (run.rows_left_out > 0)
    add(Severity::note, fmt::format("{} rows that cannot be read", run.rows_left_out), "whole lines",
        "other output between them (NCCL_DEBUG_FILE takes it elsewhere)");
  if (!place) return {};
  CollectiveDoctor doctor(run, *place, findings);
  doctor.wrong_values();
  if (place->ranks < 2) {
    add(Severity::note, "one rank", "two or more; nothing is sent", "");
    return {};
  }
  if (run.operation == "gather" || run.operation == "scatter") {
    const double seen = best_of(run).busbw_GBps;
    add(Severity::note, fmt::format("bus bandwidth {} GB/s", short_number(seen, 1)), "no bound that is known",
        "not judged: what it can reach depends on its root; run all_gather or reduce_scatter");
    return {};
  }
  try {
    const BusbwCeiling bound = busbw_ceiling(*place, run.operation);
    if (bound.usual_GBps > 0) {
      doctor.judge(bound);
      return {place->nodes, best_of(run).busbw_GBps, bound.unknown ? 0 : bound.usual_GBps};
    }
    add(Severity::warning, "no way between its ranks in the description", "links; the run is not compared",
        "give a description that has them");
  } catch (const InvalidInput& error) {
    add(Severity::warning, "cannot be held against the description", error.what(),
        "a path between all ranks of the run");
  }
  return {};
}

void diagnose_scaling(std::vector<JudgedRun> runs, std::vector<Finding>& findings) {
  std::erase_if(runs, [](const JudgedRun& own) { return own.bound_GBps == 0 || own.seen_GBps == 0; });
  std::stable_sort(runs.begin(), runs.end(), [](const JudgedRun& a, const JudgedRun& b) { return a.nodes < b.nodes; });
  for (std::size_t i = 1; i < runs.size(); ++i) {
    const JudgedRun &before = runs[i - 1], &after = runs[i];
    if (before.nodes == after.nodes) continue;
    const double seen = after.seen_GBps / before.seen_GBps, bound = after.bound_GBps / before.bound_GBps;
    // Half of what runs of one size differ by among healthy machines (0.64 to 0.78 of the bound), rounded.
    constexpr double kAsMuch = 0.9;
    const bool as_bound = seen >= kAsMuch * bound;
    if (seen >= 1 && as_bound) continue;
    findings.push_back(
        {as_bound ? Severity::note : Severity::warning,
         fmt::format("alltoall from {} to {} nodes", before.nodes, after.nodes),
         fmt::format("bus bandwidth {} to {} GB/s: x {}", short_number(before.seen_GBps, 1),
                     short_number(after.seen_GBps, 1), short_number(seen)),
         fmt::format("the bound: {} to {} GB/s: x {}{}", short_number(before.bound_GBps, 1),
                     short_number(after.bound_GBps, 1), short_number(bound),
                     as_bound ? "; that much is arithmetic, not a fault" : ""),
         "",
         as_bound
             ? ""
             : "the fabric between those nodes: other leaves, ECMP on few paths; sizes of messages (each peer gets "
               "1/n of the buffer: run to larger ones)"});
  }
}

std::vector<Finding> diagnose_measured(const Topology& topology, std::span<const Measured> measured) {
  std::vector<Finding> out;
  std::vector<JudgedRun> all_to_alls;
  for (const Measured& own : measured) {
    if (const auto* run = std::get_if<MeasuredCollective>(&own)) {
      const JudgedRun judged = diagnose_collective(*run, topology, out);
      if (run->operation == "alltoall") all_to_alls.push_back(judged);
    } else {
      diagnose_copies(std::get<MeasuredCopies>(own), topology, out);
    }
  }
  diagnose_scaling(std::move(all_to_alls), out);
  std::stable_sort(out.begin(), out.end(), [](const Finding& a, const Finding& b) { return a.severity < b.severity; });
  return out;
}

}  // namespace topomoe
