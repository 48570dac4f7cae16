#include "topomoe/class_loads.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>

#include "topology/host_kinds.hpp"
#include "topology/load_table.hpp"
#include "topology/ring_loads.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using State = Router::State;

RankPattern checked(const State& state, RankPattern pattern) {
  if (pattern.ranks == 0) pattern.ranks = state.gpus;
  if (pattern.ranks < 1 || pattern.ranks > state.gpus)
    throw InvalidInput("ranks", std::to_string(pattern.ranks), fmt::format("allowed: 1 to {}, the GPUs", state.gpus));
  if (pattern.group == 0) pattern.group = pattern.ranks;
  if (pattern.group < 1 || pattern.ranks % pattern.group != 0)
    throw InvalidInput("group", std::to_string(pattern.group), fmt::format("a divisor of the {} ranks", pattern.ranks));
  if (pattern.stride < 1 || pattern.ranks / pattern.group % pattern.stride != 0)
    throw InvalidInput(
        "stride", std::to_string(pattern.stride),
        fmt::format("a divisor of {}, the number of groups of {}", pattern.ranks / pattern.group, pattern.group));
  return pattern;
}

double checked_bytes(double bytes) {
  if (!(bytes >= 0) || bytes > 1e18)
    throw InvalidInput("bytes", std::to_string(bytes), "0 to 1e18 bytes for each pair");
  return bytes;
}

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

// None: the groups do not fall on whole hosts alike.
std::optional<HostPattern> on_hosts(const State& state, const RankPattern& p) {
  constexpr int kAll = 1 << 20;  // more than the GPUs of any host
  int gpus = 0, hosts = 0;
  bool alike = true;
  for (const HostRun& run : state.runs) {
    if (run.gpus_per_host == 0) continue;
    if (gpus == 0) gpus = run.gpus_per_host;
    alike = alike && run.gpus_per_host == gpus;
    hosts += run.hosts;
  }
  if (p.group == p.ranks && p.ranks == state.gpus) return HostPattern{hosts, 1, kAll, 1};
  if (!alike || gpus == 0) return std::nullopt;
  const int span = p.group * p.stride;
  if (p.ranks % gpus != 0) return std::nullopt;
  if (span <= gpus && gpus % span == 0) return HostPattern{1, 1, span, p.stride};
  if (p.stride % gpus == 0) return HostPattern{p.group, p.stride / gpus, 1, 1};
  if (gpus % p.stride == 0 && span % gpus == 0) return HostPattern{span / gpus, 1, kAll, p.stride};
  return std::nullopt;
}

enum Relation { same_unit, same_pod, further, domain, relations };

// What all flows from one host of a kind to one host of another put on links, in flows.
struct PairTable {
  bool known = false;
  std::vector<double> src, dst;  // by directed link of the two hosts
  std::vector<double> leaf;      // [src rank * ranks + dst rank]
};

}  // namespace

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
  std::optional<FoldedLoads> run(double bytes) {
    if (kinds_.count() > kMostKinds) return std::nullopt;
    const Topology& topology = state_.topology;
    result_.vector_of_host_.assign(static_cast<std::size_t>(topology.host_count()), -1);
    result_.fabric_.assign(static_cast<std::size_t>(state_.links - state_.first_fabric_link), 0.0);
    for (const HostRun& run : state_.runs) {
      const int last = run.gpus_per_host == 0 ? run.first_host : run.first_host + run.hosts;
      for (int host = run.first_host; host < last; ++host) {
        if (place_gpu(host, run, 0) >= pattern_.ranks) break;  // the rest is idle
        add_host(host, run);
        if (give_up_) return std::nullopt;
      }
    }
    if (fabric_.top == FabricMap::Top::torus && !add_rings()) return std::nullopt;
    for (auto& own : result_.vectors_)
      for (double& value : own.bytes) value *= bytes;
    for (double& value : result_.fabric_) value *= bytes;
    return std::move(result_);
  }

  static FoldedLoads fold(const LinkLoads& loads);

 private:
  static constexpr int kMostKinds = 512;  // tables for each two of them

  // What one host adds: its own links, and the fabric's links above it.
  struct Sum {
    int vector = -1;
    std::vector<double> up, down;          // by leaf rank
    std::vector<double> pod_up, pod_down;  // by plane
  };

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
  void count_partners(int host) {
    counts_.assign(static_cast<std::size_t>(kinds_.count() * relations), 0);
    const HostSeries series = on_hosts_.series_of(kinds_.ordinal_of(host));
    const bool tree = state_.has_fabric && fabric_.top != FabricMap::Top::torus;
    const int unit_hosts = tree ? fabric_.hosts_per_unit : 0, pod_hosts = unit_hosts * fabric_.units_per_pod;
    const int unit = tree ? fabric_.unit_of(host) * unit_hosts : host;
    const int pod = tree ? fabric_.pod_of(host) * pod_hosts : host;
    const int d = state_.topology.hosts_per_domain, own_domain = d > 1 ? host / d * d : host;
    const int domain_end = d > 1 ? own_domain + d : host + 1;
    const int modulus = kinds_.modulus();
    for (const HostKinds::Piece& piece : kinds_.pieces())
      for (int residue = 0; residue < modulus; ++residue) {
        const auto within = [&](int first, int end) { return piece.within(series, first, end, residue, modulus); };
        // Those of `host`'s domain are counted apart; `host` itself is one of them.
        const auto outside = [&](int first, int end) {
          return within(first, end) - within(std::max(first, own_domain), std::min(end, domain_end));
        };
        int* own = &counts_[static_cast<std::size_t>(piece.kinds[static_cast<std::size_t>(residue)] * relations)];
        const int all = outside(piece.first, piece.end);
        const int near = tree ? outside(pod, pod + pod_hosts) : 0;
        const int nearest = tree ? outside(unit, unit + unit_hosts) : 0;
        own[same_unit] += nearest;
        own[same_pod] += near - nearest;
        own[further] += all - near;
        own[domain] += within(own_domain, domain_end);
      }
    counts_[static_cast<std::size_t>(kinds_.kind_of(host) * relations + domain)] -= 1;  // itself
  }

  int example(int host, int kind, int relation) const {
    const bool tree = state_.has_fabric && fabric_.top != FabricMap::Top::torus;
    const int all = state_.topology.host_count();
    if (!tree) return kinds_.find(kind, 0, all, host, host + 1, host);
    const int unit_hosts = fabric_.hosts_per_unit, pod_hosts = unit_hosts * fabric_.units_per_pod;
    const int unit = fabric_.unit_of(host) * unit_hosts, pod = fabric_.pod_of(host) * pod_hosts;
    if (relation == same_unit) return kinds_.find(kind, unit, unit + unit_hosts, host, host + 1, host);
    if (relation == same_pod) return kinds_.find(kind, pod, pod + pod_hosts, unit, unit + unit_hosts, host);
    return kinds_.find(kind, 0, all, pod, pod + pod_hosts, host);
  }

  void add_pair(PairTable& table, int src_host, int dst_host) {
    const HostRun &src_run = run_of(src_host), &dst_run = run_of(dst_host);
    for (int l = 0; l < src_run.gpus_per_host; ++l)
      for (int m = 0; m < dst_run.gpus_per_host; ++m) {
        if (!on_hosts_.exchange(l, m)) continue;
        const State::Place src = place(src_host, src_run, l), dst = place(dst_host, dst_run, m);
        const State::Hop hop = state_.has_fabric ? state_.choose(src, dst) : State::Hop{};
        if (hop.path_class == PathClass::DIS) {
          if (fabric_.top == FabricMap::Top::torus && fabric_.any_dead) {
            give_up_ = true;
            return;
          }
          refuse(place_gpu(src_host, src_run, l), place_gpu(dst_host, dst_run, m));
        }
        state_.visit_src(src, hop, [&](int offset) { table.src[static_cast<std::size_t>(offset)] += 1; });
        state_.visit_dst(dst, hop, [&](int offset) { table.dst[static_cast<std::size_t>(offset)] += 1; });
        table.leaf[static_cast<std::size_t>(hop.src_rank * fabric_.ranks + hop.dst_rank)] += 1;
      }
  }

  void add_domain_pair(PairTable& table, int src_kind, int dst_kind) {
    const HostRun &src_run = run_of(kinds_.sample(src_kind)), &dst_run = run_of(kinds_.sample(dst_kind));
    const HostPaths& src = state_.paths[static_cast<std::size_t>(src_run.template_index)];
    const HostPaths& dst = state_.paths[static_cast<std::size_t>(dst_run.template_index)];
    for (int l = 0; l < src_run.gpus_per_host; ++l)
      for (int m = 0; m < dst_run.gpus_per_host; ++m) {
        if (!on_hosts_.exchange(l, m)) continue;
        table.src[static_cast<std::size_t>(src.to_nvswitch[static_cast<std::size_t>(l)])] += 1;
        table.dst[static_cast<std::size_t>(dst.from_nvswitch[static_cast<std::size_t>(m)])] += 1;
      }
  }

  // Of flows from `host` (outward) or to it, with any host of `kind` in this relation.
  const PairTable& table(int host, int kind, int relation, bool outward) {
    const int own = kinds_.kind_of(host);
    PairTable& result = tables_[static_cast<std::size_t>(outward ? table_index(own, kind, relation)
                                                                 : table_index(kind, own, relation))];
    if (result.known) return result;
    result.known = true;
    const int src = outward ? own : kind, dst = outward ? kind : own;
    result.src.assign(static_cast<std::size_t>(run_of(kinds_.sample(src)).links_per_host), 0);
    result.dst.assign(static_cast<std::size_t>(run_of(kinds_.sample(dst)).links_per_host), 0);
    result.leaf.assign(static_cast<std::size_t>(fabric_.ranks * fabric_.ranks), 0);
    if (relation == domain) {
      add_domain_pair(result, src, dst);
    } else {
      const int other = example(host, kind, relation);
      add_pair(result, outward ? host : other, outward ? other : host);
    }
    return result;
  }

  Sum sum_of(int host, const HostRun& run) {
    Sum sum;
    sum.vector = static_cast<int>(result_.vectors_.size());
    sum.up.assign(static_cast<std::size_t>(fabric_.ranks), 0);
    sum.down = sum.up;
    sum.pod_up.assign(static_cast<std::size_t>(fabric_.planes), 0);
    sum.pod_down = sum.pod_up;
    result_.vectors_.push_back({host, 0, std::vector<double>(static_cast<std::size_t>(run.links_per_host), 0.0)});
    std::vector<double>& bytes = result_.vectors_.back().bytes;
    const HostPaths& paths = state_.paths[static_cast<std::size_t>(run.template_index)];
    for (int l = 0; l < run.gpus_per_host; ++l)
      for (int m = 0; m < run.gpus_per_host; ++m) {
        if (l == m || !on_hosts_.exchange(l, m)) continue;
        const HostPath& path = paths.between(l, m);
        if (path.path_class == PathClass::DIS) refuse(place_gpu(host, run, l), place_gpu(host, run, m));
        for (int i = path.first; i < path.first + path.count; ++i)
          bytes[static_cast<std::size_t>(paths.pool[static_cast<std::size_t>(i)])] += 1;
      }
    for (int kind = 0; kind < kinds_.count(); ++kind)
      for (int relation = 0; relation < relations; ++relation) {
        const int partners = counts_[static_cast<std::size_t>(kind * relations + relation)];
        if (partners == 0) continue;
        const PairTable& out = table(host, kind, relation, true);
        if (give_up_) return sum;
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] += partners * out.src[i];
        const PairTable& in = table(host, kind, relation, false);
        if (give_up_) return sum;
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] += partners * in.dst[i];
        if (relation != domain) add_above(sum, out, in, partners, relation);
      }
    return sum;
  }

  void add_above(Sum& sum, const PairTable& out, const PairTable& in, double partners, int relation) {
    for (int a = 0; a < fabric_.ranks; ++a)
      for (int b = 0; b < fabric_.ranks; ++b) {
        const auto index = static_cast<std::size_t>(a * fabric_.ranks + b);
        if (relation == same_unit && a == b) continue;  // one leaf
        const auto plane = static_cast<std::size_t>(a % fabric_.planes);
        sum.up[static_cast<std::size_t>(a)] += partners * out.leaf[index];
        sum.down[static_cast<std::size_t>(b)] += partners * in.leaf[index];
        if (relation != further) continue;
        sum.pod_up[plane] += partners * out.leaf[index];
        sum.pod_down[plane] += partners * in.leaf[index];
      }
  }

  void add_host(int host, const HostRun& run) {
    count_partners(host);
    key_ = counts_;
    key_.push_back(kinds_.kind_of(host));
    auto known = last_ != sums_.end() && last_->first == key_ ? last_ : sums_.find(key_);
    if (known == sums_.end()) {
      Sum sum = sum_of(host, run);
      if (give_up_) return;
      known = sums_.emplace(key_, std::move(sum)).first;
    }
    last_ = known;
    const Sum& sum = known->second;
    result_.vector_of_host_[static_cast<std::size_t>(host)] = sum.vector;
    ++result_.vectors_[static_cast<std::size_t>(sum.vector)].hosts;
    if (!state_.has_fabric || fabric_.top == FabricMap::Top::none || fabric_.top == FabricMap::Top::torus) return;
    for (int rank = 0; rank < fabric_.ranks; ++rank) {
      const int leaf = fabric_.unit_of(host) * fabric_.ranks + rank;
      on_fabric(fabric_.leaf_up(leaf)) += sum.up[static_cast<std::size_t>(rank)];
      on_fabric(fabric_.leaf_down(leaf)) += sum.down[static_cast<std::size_t>(rank)];
    }
    for (int plane = 0; plane < fabric_.planes && fabric_.top == FabricMap::Top::core; ++plane) {
      on_fabric(fabric_.pod_up(fabric_.pod_of(host), plane)) += sum.pod_up[static_cast<std::size_t>(plane)];
      on_fabric(fabric_.pod_down(fabric_.pod_of(host), plane)) += sum.pod_down[static_cast<std::size_t>(plane)];
    }
    if (fabric_.top == FabricMap::Top::mesh) add_groups(host);
  }

  double& on_fabric(int id) { return result_.fabric_[static_cast<std::size_t>(id - state_.first_fabric_link)]; }

  // Flows of one host to each other group, on the links between groups.
  void add_groups(int host) {
    const HostSeries series = on_hosts_.series_of(kinds_.ordinal_of(host));
    const int pod_hosts = fabric_.hosts_per_unit * fabric_.units_per_pod, own = fabric_.pod_of(host);
    const int d = state_.topology.hosts_per_domain, own_domain = d > 1 ? host / d * d : host;
    const int domain_end = d > 1 ? own_domain + d : host + 1;
    // Host numbers are ordinals plus at most all hosts without GPUs.
    const int last = std::min(series.base + (series.count - 1) * series.stride + kinds_.hosts_without_gpus(),
                              state_.topology.host_count() - 1);
    std::vector<double> flows(static_cast<std::size_t>(fabric_.planes));
    for (int group = series.base / pod_hosts; group <= last / pod_hosts; ++group) {
      if (group == own) continue;
      std::fill(flows.begin(), flows.end(), 0);
      for (const HostKinds::Piece& piece : kinds_.pieces()) {
        const int first = std::max(piece.first, group * pod_hosts), end = std::min(piece.end, (group + 1) * pod_hosts);
        if (first >= end) continue;
        for (int residue = 0; residue < kinds_.modulus(); ++residue) {
          const int partners =
              piece.within(series, first, end, residue, kinds_.modulus()) -
              piece.within(series, std::max(first, own_domain), std::min(end, domain_end), residue, kinds_.modulus());
          if (partners == 0) continue;
          const PairTable& out = table(host, piece.kinds[static_cast<std::size_t>(residue)], further, true);
          for (int a = 0; a < fabric_.ranks; ++a)
            for (int b = 0; b < fabric_.ranks; ++b)
              flows[static_cast<std::size_t>(a % fabric_.planes)] +=
                  partners * out.leaf[static_cast<std::size_t>(a * fabric_.ranks + b)];
        }
      }
      for (int plane = 0; plane < fabric_.planes; ++plane) {
        const double count = flows[static_cast<std::size_t>(plane)];
        if (count == 0) continue;
        const int middle = fabric_.via(own, group, plane);
        on_fabric(fabric_.between(own, middle, plane)) += count;
        if (middle != group) on_fabric(fabric_.between(middle, group, plane)) += count;
      }
    }
  }

  // Each two hosts of a series exchange as many flows as they have pairs of GPUs that exchange.
  bool add_rings() {
    std::vector<double> weight(static_cast<std::size_t>(state_.topology.host_count()), 0);
    double pairs = 1;
    const bool all_gpus = on_hosts_.block > 512 && on_hosts_.step == 1;
    for (const HostRun& run : state_.runs)
      for (int host = run.first_host; host < run.first_host + run.hosts; ++host)
        if (result_.vector_of_host_[static_cast<std::size_t>(host)] >= 0)
          weight[static_cast<std::size_t>(host)] = all_gpus ? run.gpus_per_host : 1;
    if (!all_gpus) {
      pairs = 0;
      const int gpus = state_.runs.front().gpus_per_host;
      for (int l = 0; l < gpus; ++l)
        for (int m = 0; m < gpus; ++m) pairs += on_hosts_.exchange(l, m) ? 1 : 0;
    }
    std::vector<int> host_of;  // by ordinal
    for (int host = 0; host < state_.topology.host_count(); ++host)
      if (result_.vector_of_host_[static_cast<std::size_t>(host)] >= 0) host_of.push_back(host);
    const int hosts = static_cast<int>(host_of.size()), span = on_hosts_.hosts_in_series * on_hosts_.stride;
    std::vector<double> own(weight.size());
    for (int base = 0; base < hosts; ++base) {
      if (base % span >= on_hosts_.stride) continue;
      const HostSeries series = on_hosts_.series_of(base);
      const auto each = [&](auto call) {
        for (int i = 0; i < series.count; ++i) call(host_of[static_cast<std::size_t>(series.base + i * series.stride)]);
      };
      if (series.count < 2) continue;
      if (std::int64_t{series.count} * series.count > fabric_.hosts) {
        std::fill(own.begin(), own.end(), 0);
        each([&](int host) { own[static_cast<std::size_t>(host)] = weight[static_cast<std::size_t>(host)]; });
        if (!add_ring_loads(fabric_, own, [&](int id, double flows) { on_fabric(id) += flows * pairs; })) return false;
        // Hosts of one domain meet on its plane: taken back.
        each([&](int src) {
          const int d = state_.topology.hosts_per_domain;
          for (int dst = src / d * d; d > 1 && dst < std::min(src / d * d + d, fabric_.hosts); ++dst) {
            const double flows = pairs * own[static_cast<std::size_t>(src)] * own[static_cast<std::size_t>(dst)];
            auto visit = [&](int id) { on_fabric(id) -= flows; };
            if (src != dst && flows > 0) fabric_.visit(src, 0, dst, 0, visit);
          }
        });
        continue;
      }
      bool joined = true;  // few of many hosts: pair by pair
      each([&](int src) {
        each([&](int dst) {
          const double flows = pairs * weight[static_cast<std::size_t>(src)] * weight[static_cast<std::size_t>(dst)];
          auto visit = [&](int id) { on_fabric(id) += flows; };
          if (src == dst || state_.same_domain(src, dst)) return;
          joined = joined && fabric_.joined(src, 0, dst, 0);
          if (joined) fabric_.visit(src, 0, dst, 0, visit);
        });
      });
      if (!joined) return false;
    }
    return true;
  }

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

FoldedLoads ClassLoadBuilder::fold(const LinkLoads& loads) {
  FoldedLoads result(loads.router());
  const State& state = result.router_.state();
  std::map<std::pair<int, std::vector<double>>, int> known;
  for (std::size_t r = 0; r < state.runs.size(); ++r) {
    const HostRun& run = state.runs[r];
    for (int i = 0; i < run.hosts; ++i) {
      std::vector<double> bytes(static_cast<std::size_t>(run.links_per_host));
      for (int l = 0; l < run.links_per_host; ++l)
        bytes[static_cast<std::size_t>(l)] = loads.bytes_on(run.first_link + i * run.links_per_host + l);
      const auto [at, is_new] =
          known.emplace(std::pair(static_cast<int>(r), std::move(bytes)), static_cast<int>(result.vectors_.size()));
      if (is_new) result.vectors_.push_back({run.first_host + i, 0, at->first.second});
      ++result.vectors_[static_cast<std::size_t>(at->second)].hosts;
      result.vector_of_host_.push_back(at->second);
    }
  }
  for (int id = state.first_fabric_link; id < state.links; ++id) result.fabric_.push_back(loads.bytes_on(id));
  return result;
}

double FoldedLoads::bytes_on(int link) const {
  const State& state = router_.state();
  if (link < 0 || link >= state.links)
    throw InvalidInput("link", std::to_string(link), "allowed: 0 to " + std::to_string(state.links - 1));
  if (link >= state.first_fabric_link) return fabric_[static_cast<std::size_t>(link - state.first_fabric_link)];
  const HostRun& run = state.run_of_link(link);
  const int within = link - run.first_link;
  const int vector = vector_of_host_[static_cast<std::size_t>(run.first_host + within / run.links_per_host)];
  return vector < 0
             ? 0
             : vectors_[static_cast<std::size_t>(vector)].bytes[static_cast<std::size_t>(within % run.links_per_host)];
}

namespace {

template <class Vectors>
LoadTable table_of(const Router& router, const Vectors& vectors, const std::vector<double>& fabric) {
  const State& state = router.state();
  LoadTable table(router);
  for (const auto& own : vectors) {
    const auto next = std::upper_bound(state.runs.begin(), state.runs.end(), own.first_host,
                                       [](int wanted, const HostRun& run) { return wanted < run.first_host; });
    const HostRun& run = *(next - 1);
    const int base = run.first_link + (own.first_host - run.first_host) * run.links_per_host;
    for (std::size_t i = 0; i < own.bytes.size(); ++i) table.add(base + static_cast<int>(i), own.bytes[i], own.hosts);
  }
  for (std::size_t i = 0; i < fabric.size(); ++i)
    table.add(state.first_fabric_link + static_cast<int>(i), fabric[i], 1);
  return table;
}

}  // namespace

Bottleneck FoldedLoads::bottleneck() const { return table_of(router_, vectors_, fabric_).bottleneck(); }
std::vector<ClassLoad> FoldedLoads::by_class() const { return table_of(router_, vectors_, fabric_).by_class(); }

LinkLoads FoldedLoads::unfold() const {
  LinkLoads loads(router_);
  for (int id = 0; id < router_.link_count(); ++id) loads.add_to_link(id, bytes_on(id));
  return loads;
}

FoldedLoads all_to_all_loads(const Router& router, double bytes_per_pair, const RankPattern& given) {
  checked_bytes(bytes_per_pair);
  const RankPattern pattern = checked(router.state(), given);
  if (const auto hosts = on_hosts(router.state(), pattern))
    if (auto loads = ClassLoadBuilder(router, pattern, *hosts).run(bytes_per_pair)) return std::move(*loads);
  LinkLoads loads(router);
  const int span = pattern.group * pattern.stride;
  for (int rank = 0; rank < pattern.ranks; ++rank) {
    const int first = rank / span * span + rank % pattern.stride;
    for (int i = 0; i < pattern.group; ++i)
      if (const int peer = first + i * pattern.stride; peer != rank) loads.add(rank, peer, bytes_per_pair);
  }
  return ClassLoadBuilder::fold(loads);
}

FoldedLoads ring_loads(const Router& router, double bytes, const RankPattern& given) {
  checked_bytes(bytes);
  const RankPattern pattern = checked(router.state(), given);
  LinkLoads loads(router);
  const int span = pattern.group * pattern.stride;
  for (int rank = 0; rank < pattern.ranks; ++rank) {
    const int next = rank + pattern.stride;
    loads.add(rank, next / span == rank / span ? next : next - span, bytes);
  }
  return ClassLoadBuilder::fold(loads);
}

}  // namespace topomoe
