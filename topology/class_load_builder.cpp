#include "topology/class_load_builder.hpp"

#include <algorithm>

#include "topomoe/error.hpp"

namespace topomoe {

std::optional<HostPattern> on_hosts(const Router::State& state, const RankPattern& p) {
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

std::optional<FoldedLoads> ClassLoadBuilder::run(double bytes) {
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

void ClassLoadBuilder::count_partners(int host) {
  counts_.assign(static_cast<std::size_t>(kinds_.count() * relations), 0);
  const HostSeries series = on_hosts_.series_of(kinds_.ordinal_of(host));
  const bool tree = state_.has_fabric && fabric_.top != FabricMap::Top::torus;
  const Span unit = tree ? span_of_unit(host) : Span{}, pod = tree ? span_of_pod(host) : Span{};
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
      const int near = tree ? outside(pod.first, pod.end) : 0;
      const int nearest = tree ? outside(unit.first, unit.end) : 0;
      own[same_unit] += nearest;
      own[same_pod] += near - nearest;
      own[further] += all - near;
      own[domain] += within(own_domain, domain_end);
    }
  counts_[static_cast<std::size_t>(kinds_.kind_of(host) * relations + domain)] -= 1;  // itself
}

int ClassLoadBuilder::example(int host, int kind, int relation) const {
  const bool tree = state_.has_fabric && fabric_.top != FabricMap::Top::torus;
  const int all = state_.topology.host_count();
  if (!tree) return kinds_.find(kind, 0, all, host, host + 1, host);
  const Span unit = span_of_unit(host), pod = span_of_pod(host);
  if (relation == same_unit) return kinds_.find(kind, unit.first, unit.end, host, host + 1, host);
  if (relation == same_pod) return kinds_.find(kind, pod.first, pod.end, unit.first, unit.end, host);
  return kinds_.find(kind, 0, all, pod.first, pod.end, host);
}

void ClassLoadBuilder::add_pair(PairTable& table, int src_host, int dst_host) {
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

void ClassLoadBuilder::add_domain_pair(PairTable& table, int src_kind, int dst_kind) {
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

const ClassLoadBuilder::PairTable& ClassLoadBuilder::table(int host, int kind, int relation, bool outward) {
  const int own = kinds_.kind_of(host);
  PairTable& result =
      tables_[static_cast<std::size_t>(outward ? table_index(own, kind, relation) : table_index(kind, own, relation))];
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

ClassLoadBuilder::Sum ClassLoadBuilder::sum_of(int host, const HostRun& run) {
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

void ClassLoadBuilder::add_host(int host, const HostRun& run) {
  count_partners(host);
  key_ = counts_;
  key_.push_back(kinds_.kind_of(host));
  key_.push_back(run.template_index);  // what is folded together has one rate
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

}  // namespace topomoe
