// nvbandwidth: pairs of GPUs against each other, and against their path.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "topology/doctor/doctor_measured.hpp"
#include "topology/host_tree.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

// Copies of one kind differ little on a healthy box: 23.9 to 26.4 GB/s host to device over eight (nvbandwidth#15), 21.8
// to 22.7 between two halves of six A6000 (#50), NVSwitch pairs by 1 %. Below this part of their median: severe.
constexpr double kOfSiblings = 0.75;
// Of the rate of the narrowest link: 26.3 of 32 GB/s (#50), 55 of 64, 370 of 450. Copy engines only: copies by kernels
// reach 35 of 64 on some (#24). Below this part of it: severe, the link is not what the description says.
constexpr double kOfPath = 0.6;

// A cell of a matrix: what was copied, and what it goes over.
struct Copy {
  std::string name;  // "gpu0 -> gpu3"
  int row = 0, column = 0;
  double GBps = 0;       // measured
  double path_GBps = 0;  // 0: not known
  std::string path;      // "NVL": what it goes by, which siblings share
  std::string narrowest;
  bool assumed = false;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::string GBps_text(double value) { return short_number(value, 1) + " GB/s"; }

class CopyDoctor {
 public:
  CopyDoctor(const MeasuredCopies& run, const Topology& topology, std::vector<Finding>& findings)
      : run_(run), topology_(topology), findings_(findings), gpus_(place_devices(run, topology, findings)) {
    if (!gpus_.empty()) router_.emplace(topology);
  }

  void matrix(const MeasuredMatrix& own) {
    const bool between = own.testcase.find("device_to_device") != std::string::npos;
    const bool host = own.testcase.find("host_to_device") != std::string::npos ||
                      own.testcase.find("device_to_host") != std::string::npos;
    if ((!between && !host) || own.testcase.find("latency") != std::string::npos) return;
    std::map<std::string, std::vector<Copy>> by_path;
    for (std::size_t row = 0; row < own.GBps.size(); ++row)
      for (std::size_t column = 0; column < own.GBps[row].size(); ++column) {
        const double GBps = own.GBps[row][column];
        // Older versions print 0.00 where nothing was measured.
        if (!(GBps > 0) || (between && row == column)) continue;
        Copy copy = between ? pair(static_cast<int>(row), static_cast<int>(column)) : slot(static_cast<int>(column));
        copy.row = static_cast<int>(row), copy.column = static_cast<int>(column), copy.GBps = GBps;
        by_path[copy.path].push_back(std::move(copy));
      }
    for (const auto& [path, copies] : by_path) judge(own, copies, between);
  }

  void failed() {
    for (const std::string& testcase : run_.failed)
      add(Severity::severe, testcase, "ended in an error", "a result",
          "its message in the output; wrong patterns: NVLink errors, ECC, GPUs of other partitions (fabric manager)");
  }

 private:
  void add(Severity severity, const std::string& element, std::string seen, std::string expected, std::string check,
           std::string cost = {}) {
    findings_.push_back({severity, element, std::move(seen), std::move(expected), std::move(cost), std::move(check)});
  }

  int gpu_of(int device) const {
    return static_cast<std::size_t>(device) < gpus_.size() ? gpus_[static_cast<std::size_t>(device)] : -1;
  }
  std::string gpu_name(int device) const {
    const int gpu = gpu_of(device);
    if (gpu < 0) return fmt::format("GPU {}", device);
    const int host = topology_.host_of(gpu);
    const HostTemplate& own = topology_.host_template(host);
    const int index = own.gpus[static_cast<std::size_t>(gpu - topology_.first_gpu_of_host(host))];
    return (topology_.host_count() > 1 ? topology_.host_name(host) + "." : "") +
           shown(own.devices[static_cast<std::size_t>(index)]);
  }

  Copy pair(int row, int column) const {
    Copy out;
    out.name = gpu_name(row) + " and " + gpu_name(column);
    const int a = gpu_of(row), b = gpu_of(column);
    if (a < 0 || b < 0 || a == b) return out;
    // Which of the two sends differs by test and version: the narrower way of both.
    for (const auto& [src, dst] : {std::pair(a, b), std::pair(b, a)}) {
      const Route route = router_->route(src, dst);
      if (route.path_class == PathClass::DIS) return out;
      out.path = name(route.path_class);
      for (const int id : route.links) {
        const LinkInfo link = router_->link(id);
        if (out.path_GBps > 0 && link.GBps_per_direction >= out.path_GBps) continue;
        out.path_GBps = link.GBps_per_direction, out.narrowest = link.name;
        out.assumed = link.source == Source::assumed || link.source == Source::unknown;
      }
    }
    out.path += " of " + short_number(out.path_GBps, 1);
    return out;
  }

  // Between a GPU and the memory of its CPU: C2C, or up through its PCIe switches.
  Copy slot(int device) const {
    Copy out;
    out.name = gpu_name(device);
    const int gpu = gpu_of(device);
    if (gpu < 0) return out;
    const int host = topology_.host_of(gpu);
    const HostTemplate& own = topology_.host_template(host);
    int at = own.gpus[static_cast<std::size_t>(gpu - topology_.first_gpu_of_host(host))];
    const HostTree tree(own);
    const auto take = [&](const Link& link, const std::string& name_of_link) {
      if (out.path_GBps > 0 && link.GBps_per_direction >= out.path_GBps) return;
      out.path_GBps = link.GBps_per_direction, out.narrowest = name_of_link;
      out.assumed = link.source == Source::assumed || link.source == Source::unknown;
    };
    const auto c2c = std::find_if(own.links.begin(), own.links.end(), [&](const Link& link) {
      return link.kind == LinkKind::c2c && (link.src == at || link.dst == at);
    });
    if (c2c != own.links.end()) {
      take(*c2c, out.name + "'s C2C");
      out.path = "C2C";
    } else {
      for (; tree.parent_link[static_cast<std::size_t>(at)] >= 0; at = tree.parent[static_cast<std::size_t>(at)])
        take(own.links[static_cast<std::size_t>(tree.parent_link[static_cast<std::size_t>(at)])],
             "PCIe of " + own.devices[static_cast<std::size_t>(at)].name);
      out.path = "PCIe";
    }
    out.path += " of " + short_number(out.path_GBps, 1);
    return out;
  }

  void judge(const MeasuredMatrix& own, const std::vector<Copy>& copies, bool between) {
    std::vector<double> all;
    for (const Copy& copy : copies) all.push_back(copy.GBps);
    const double middle = median(all);
    std::vector<const Copy*> slow;
    for (const Copy& copy : copies)
      if (copy.GBps < kOfSiblings * middle) slow.push_back(&copy);
    beside_siblings(own, copies, slow, middle, between);
    const Copy& first = copies.front();
    if (first.path_GBps == 0) return;
    // Simultaneous copies share what they take; kernels may be slower than engines.
    const bool alone =
        own.testcase.find("bidirectional") == std::string::npos && own.testcase.find("_ce") != std::string::npos;
    const std::string element = fmt::format("{} by {} GB/s ({})", own.testcase, first.path, run_.where);
    const std::string seen = fmt::format("{} in the middle of {}", GBps_text(middle), copies.size());
    const std::string bound = fmt::format("at most {} by {}{}", GBps_text(first.path_GBps), first.narrowest,
                                          first.assumed ? ", an assumed rate" : "");
    const double share = middle / first.path_GBps;
    if (alone && share > kAboveBound)
      add(Severity::warning, element, seen + ": more than the description allows", bound,
          "the description is wrong (rates or counts of links), or this run was elsewhere; compare with a new dump");
    else if (alone && share < kOfPath)
      add(Severity::severe, element, fmt::format("{}: {:.0f} % of the path", seen, 100 * share),
          fmt::format("{}; {:.0f} % or more of it is healthy", bound, 100 * kOfPath),
          between ? "nvidia-smi nvlink --status; peer-to-peer through the CPU (ACS, IOMMU); lspci -vv: LnkSta against "
                    "LnkCap"
                  : "lspci -vv: LnkSta against LnkCap; NUMA binding of the run; power state of the GPU");
    else if (alone)
      add(Severity::note, element, fmt::format("{}: {:.0f} % of the path, normal", seen, 100 * share), bound, "");
  }

  void beside_siblings(const MeasuredMatrix& own, const std::vector<Copy>& copies, const std::vector<const Copy*>& slow,
                       double middle, bool between) {
    const std::string check = between
                                  ? "nvidia-smi nvlink --status of both; Xid 74 in the kernel log; lspci -vv: LnkSta"
                                  : "lspci -vv: LnkSta against LnkCap of this GPU; reseat, or another slot or riser";
    const std::string as =
        fmt::format("{}, the middle of {} alike ({})", GBps_text(middle), copies.size(), own.testcase);
    // A GPU most of whose pairs are slow is one finding.
    std::map<int, int> pairs, slow_pairs;
    std::map<int, double> least;
    if (between)
      for (const Copy& copy : copies) ++pairs[copy.row], ++pairs[copy.column];
    for (const Copy* copy : slow)
      for (const int device : {copy->row, copy->column}) {
        ++slow_pairs[device];
        least[device] = least.count(device) ? std::min(least[device], copy->GBps) : copy->GBps;
      }
    std::set<int> whole;
    for (const auto& [device, count] : slow_pairs)
      if (between && count > 2 && 4 * count > 3 * pairs[device]) whole.insert(device);
    for (const int device : whole)
      add(Severity::severe, gpu_name(device),
          fmt::format("{} of its {} copies slow, the least {}", slow_pairs[device], pairs[device],
                      GBps_text(least[device])),
          as, check,
          fmt::format("an all-to-all waits for it: at most {:.0f} % of its rate", 100 * least[device] / middle));
    std::set<std::string> said;
    for (const Copy* copy : slow) {
      if (between && (whole.count(copy->row) || whole.count(copy->column))) continue;
      const std::string& element = copy->name;
      if (!said.insert(fmt::format("{} {}", std::min(copy->row, copy->column), std::max(copy->row, copy->column)))
               .second)
        continue;
      add(Severity::severe, element, fmt::format("{} copied", GBps_text(copy->GBps)), as, check,
          fmt::format("what waits for this copy runs at {:.0f} %", 100 * copy->GBps / middle));
    }
  }

  const MeasuredCopies& run_;
  const Topology& topology_;
  std::vector<Finding>& findings_;
  std::vector<int> gpus_;
  std::optional<Router> router_;
};

}  // namespace

void diagnose_copies(const MeasuredCopies& run, const Topology& topology, std::vector<Finding>& findings) {
  CopyDoctor doctor(run, topology, findings);
  doctor.failed();
  for (const MeasuredMatrix& own : run.matrices) doctor.matrix(own);
}

}  // namespace topomoe
