// What the flows of a host put on the fabric above it.
#include <algorithm>
#include <cstdint>

#include "topology/class_load_builder.hpp"
#include "topology/ring_loads.hpp"

namespace topomoe {

void ClassLoadBuilder::add_above(Sum& sum, const PairTable& out, const PairTable& in, double partners, int relation) {
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

void ClassLoadBuilder::add_groups(int host) {
  const HostSeries series = on_hosts_.series_of(kinds_.ordinal_of(host));
  const int own = fabric_.pod_of(host);
  const int d = state_.topology.hosts_per_domain, own_domain = d > 1 ? host / d * d : host;
  const int domain_end = d > 1 ? own_domain + d : host + 1;
  // Host numbers are ordinals plus at most all hosts without GPUs.
  const int last = std::min(series.base + (series.count - 1) * series.stride + kinds_.hosts_without_gpus(),
                            state_.topology.host_count() - 1);
  std::vector<double> flows(static_cast<std::size_t>(fabric_.planes));
  for (int group = fabric_.pod_of(series.base), end_group = fabric_.pod_of(last); group <= end_group; ++group) {
    if (group == own) continue;
    const int group_first = fabric_.first_host_of_pod(group), group_end = fabric_.first_host_of_pod(group + 1);
    std::fill(flows.begin(), flows.end(), 0);
    for (const HostKinds::Piece& piece : kinds_.pieces()) {
      const int first = std::max(piece.first, group_first), end = std::min(piece.end, group_end);
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

bool ClassLoadBuilder::add_rings() {
  std::vector<double> weight(static_cast<std::size_t>(state_.topology.host_count()), 0);
  double pairs = 1;
  const bool all_gpus = on_hosts_.block > 512 && on_hosts_.step == 1;
  for (const HostRun& run : state_.runs)
    for (int host = run.first_host; host < run.first_host + run.hosts; ++host)
      if (result_.vector_of_host_[static_cast<std::size_t>(host)] >= 0)
        weight[static_cast<std::size_t>(host)] = all_gpus ? run.gpus_per_host : 1;
  if (!all_gpus) {
    pairs = 0;
    int gpus = 0;  // of a host that has some
    for (const HostRun& run : state_.runs) gpus = std::max(gpus, run.gpus_per_host);
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

}  // namespace topomoe
