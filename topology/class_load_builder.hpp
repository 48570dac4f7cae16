// Loads of one all-to-all by kinds of hosts: how class_loads.cpp comes to them.
//
// For each host it counts how many hosts of each kind it exchanges with, by how close they are (so that hosts under
// leaves of different sizes are told apart); for each two kinds and
// closeness one pair of hosts is walked, and its links taken so many times. Hosts with equal counts share the sum.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "topology/host_kinds.hpp"
#include "topomoe/class_loads.hpp"

namespace topomoe {

// The pattern on hosts: which hosts exchange (series of hosts, equal for all) and which local GPUs of them.
struct HostPattern {
  int hosts_in_series = 0, stride = 1;
  int block = 1, step = 1;  // GPUs l and m exchange where l / block == m / block and l % step == m % step
  HostSeries series_of(int ordinal) const {
    const int span = hosts_in_series * stride;
    return {ordinal / span * span + ordinal % stride, stride, hosts_in_series};
  }
  bool exchange(int l, int m) const { return l / block == m / block && l % step == m % step; }
};

// None: the groups do not fall on whole hosts alike. The pattern must divide the ranks.
std::optional<HostPattern> on_hosts(const Router::State&, const RankPattern&);

class ClassLoadBuilder {
 public:
  ClassLoadBuilder(const Router& router, const RankPattern& pattern, const HostPattern& hosts)
      : router_(router),
        state_(router.state()),
        fabric_(state_.fabric),
        pattern_(pattern),
        on_hosts_(hosts),
        kinds_(state_),
        result_(router) {
    if (kinds_.count() <= kMostKinds)
      tables_.resize(static_cast<std::size_t>(kinds_.count() * kinds_.count() * relations));
  }

  // Nothing where a dead link of a torus asks for a look at each pair, or hardly two hosts are alike.
  std::optional<FoldedLoads> run(double bytes);
  static FoldedLoads fold(const LinkLoads& loads);

 private:
  using State = Router::State;
  // How close two hosts are.
  enum Relation { same_unit, same_pod, further, domain, relations };
  // What all flows from one host of a kind to one host of another put on links, in flows.
  struct PairTable {
    bool known = false;
    std::vector<double> src, dst;  // by directed link of the two hosts
    std::vector<double> leaf;      // [src rank * ranks + dst rank]
  };
  static constexpr int kMostKinds = 512;  // tables for each two of them

  // What one host adds: its own links, and the fabric's links above it.
  struct Sum {
    int vector = -1;
    std::vector<double> up, down;          // by leaf rank
    std::vector<double> pod_up, pod_down;  // by plane
  };

  struct Span {
    int first = 0, end = 0;  // hosts
  };
  Span span_of_unit(int host) const {
    const int unit = fabric_.unit_of(host);
    return {fabric_.first_host(unit), fabric_.first_host(unit + 1)};
  }
  Span span_of_pod(int host) const {
    const int pod = fabric_.pod_of(host);
    return {fabric_.first_host_of_pod(pod), fabric_.first_host_of_pod(pod + 1)};
  }
  int table_index(int src, int dst, int relation) const { return (src * kinds_.count() + dst) * relations + relation; }
  static int place_gpu(int host, const HostRun& run, int local) {
    return run.first_gpu + (host - run.first_host) * run.gpus_per_host + local;
  }
  State::Place place(int host, const HostRun& run, int local) const {
    return state_.place(place_gpu(host, run, local));
  }
  void refuse(int src_gpu, int dst_gpu) const { LinkLoads(router_).add(src_gpu, dst_gpu, 1); }  // says it in its words
  const HostRun& run_of(int host) const {
    const auto next = std::upper_bound(state_.runs.begin(), state_.runs.end(), host,
                                       [](int wanted, const HostRun& run) { return wanted < run.first_host; });
    return *(next - 1);
  }

  // How many hosts of each kind `host` exchanges with, by relation: counts_[kind * relations + relation].
  void count_partners(int host);
  int example(int host, int kind, int relation) const;
  void add_pair(PairTable& table, int src_host, int dst_host);
  void add_domain_pair(PairTable& table, int src_kind, int dst_kind);
  // Of flows from `host` (outward) or to it, with any host of `kind` in this relation.
  const PairTable& table(int host, int kind, int relation, bool outward);
  Sum sum_of(int host, const HostRun& run);
  void add_above(Sum& sum, const PairTable& out, const PairTable& in, double partners, int relation);
  void add_host(int host, const HostRun& run);
  double& on_fabric(int id) { return result_.fabric_[static_cast<std::size_t>(id - state_.first_fabric_link)]; }

  // Flows of one host to each other group, on the links between groups.
  void add_groups(int host);
  // Each two hosts of a series exchange as many flows as they have pairs of GPUs that exchange.
  bool add_rings();

  const Router& router_;
  const State& state_;
  const FabricMap& fabric_;
  const RankPattern pattern_;
  const HostPattern on_hosts_;
  const HostKinds kinds_;
  std::vector<PairTable> tables_;
  std::vector<int> counts_, key_;
  std::map<std::vector<int>, Sum> sums_;
  std::map<std::vector<int>, Sum>::iterator last_ = sums_.end();
  bool give_up_ = false;
  FoldedLoads result_;
};

}  // namespace topomoe
