#include "topology/host_kinds.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

bool same_path(const HostPath& a, const HostPath& b) {
  return a.path_class == b.path_class && a.first == b.first && a.count == b.count;
}

// Whether every route through them is the same but for rates and names.
bool same_routes(const HostTemplate& a, const HostPaths& pa, const HostTemplate& b, const HostPaths& pb) {
  const auto same = [](const auto& x, const auto& y, auto equal) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), equal);
  };
  return pa.gpus == pb.gpus && pa.nics == pb.nics && pa.directed.size() == pb.directed.size() && pa.pool == pb.pool &&
         pa.own_nics == pb.own_nics && pa.to_nvswitch == pb.to_nvswitch && pa.from_nvswitch == pb.from_nvswitch &&
         same(pa.gpu_gpu, pb.gpu_gpu, same_path) && same(pa.gpu_nic, pb.gpu_nic, same_path) &&
         same(pa.nic_gpu, pb.nic_gpu, same_path) &&
         same(a.nics, b.nics, [](const Nic& x, const Nic& y) { return x.rail == y.rail; });
}

}  // namespace

int HostSeries::within(int first, int end, int residue, int modulus) const {
  if (first >= end || count == 0) return 0;
  // Indices i with first <= base + i * stride < end.
  const int low = first <= base ? 0 : (first - base + stride - 1) / stride;
  const int high = end <= base ? 0 : std::min(count, (end - base + stride - 1) / stride);
  if (low >= high) return 0;
  if (modulus == 1) return high - low;
  const int common = std::gcd(stride, modulus);
  const int gap = ((residue - base) % modulus + modulus) % modulus;
  if (gap % common != 0) return 0;
  const int period = modulus / common;
  int i = 0;
  while ((static_cast<long long>(i) * stride - gap) % modulus != 0) ++i;
  const auto below = [&](int limit) { return limit <= i ? 0 : (limit - i - 1) / period + 1; };
  return below(high) - below(low);
}

HostKinds::HostKinds(const Router::State& state) : state_(state) {
  for (const HostPaths& paths : state.paths)
    for (const auto& own : paths.own_nics)
      if (!own.empty()) modulus_ = std::lcm(modulus_, static_cast<int>(own.size()));

  // Which of its uplinks are dead tells units apart, and pods; groups of a dragonfly+ are told apart by their number,
  // since a dead link joins two of them.
  const FabricMap& fabric = state.fabric;
  std::map<int, std::set<int>> dead_units, dead_pods;
  std::set<int> cuts;
  if (state.has_fabric && fabric.top != FabricMap::Top::torus)
    for (const auto& [id, factor] : fabric.factors) {
      if (factor > 0) continue;
      if (id < fabric.first_upper) {
        const int leaf = (id - fabric.first) / 2;
        dead_units[leaf / fabric.ranks].insert(leaf % fabric.ranks);
      } else if (fabric.top == FabricMap::Top::core) {
        const int which = (id - fabric.first_upper) / 2;
        dead_pods[which / fabric.planes].insert(which % fabric.planes);
      } else {
        const int which = id - fabric.first_upper, group = which / (fabric.pods - 1) % fabric.pods;
        const int rest = which % (fabric.pods - 1), other = rest < group ? rest : rest + 1;
        dead_pods[group] = {group};
        dead_pods[other] = {other};
      }
    }
  for (const auto& [unit, dead] : dead_units) cuts.insert({fabric.first_host(unit), fabric.first_host(unit + 1)});
  for (const auto& [pod, dead] : dead_pods)
    cuts.insert({fabric.first_host_of_pod(pod), fabric.first_host_of_pod(pod + 1)});
  std::map<std::set<int>, int> luck{{{}, 0}};
  const auto luck_of = [&](const std::map<int, std::set<int>>& dead, int which) {
    const auto found = dead.find(which);
    return found == dead.end() ? 0 : luck.emplace(found->second, static_cast<int>(luck.size())).first->second;
  };

  // A degraded host has the routes of its neighbours, and is of their kind.
  std::vector<int> like;
  for (std::size_t i = 0; i < state.paths.size(); ++i) {
    std::size_t first = 0;
    while (first < i && !same_routes(state.topology.templates[first], state.paths[first], state.topology.templates[i],
                                     state.paths[i]))
      ++first;
    like.push_back(static_cast<int>(first));
  }

  const auto add_piece = [&](const HostRun& run, int first, int end) {
    const int unit = fabric.unit_of(first), pod = fabric.pod_of_unit(unit);
    Piece piece{first, end, shift_, {}};
    for (int residue = 0; residue < modulus_; ++residue) {
      const Kind kind{like[static_cast<std::size_t>(run.template_index)], residue, luck_of(dead_units, unit),
                      luck_of(dead_pods, pod)};
      const auto known = std::find(kinds_.begin(), kinds_.end(), kind);
      piece.kinds.push_back(static_cast<int>(known - kinds_.begin()));
      if (known == kinds_.end()) kinds_.push_back(kind);
    }
    pieces_.push_back(std::move(piece));
  };
  for (const HostRun& run : state.runs) {
    if (run.gpus_per_host == 0) {
      shift_ += run.hosts;
      continue;
    }
    int first = run.first_host;
    const int end = run.first_host + run.hosts;
    for (auto cut = cuts.upper_bound(first); cut != cuts.end() && *cut < end; ++cut) {
      add_piece(run, first, *cut);
      first = *cut;
    }
    add_piece(run, first, end);
  }
}

const HostKinds::Piece& HostKinds::piece_of(int host) const {
  const auto next = std::upper_bound(pieces_.begin(), pieces_.end(), host,
                                     [](int wanted, const Piece& own) { return wanted < own.first; });
  TOPOMOE_ASSERT(next != pieces_.begin() && host < (next - 1)->end);
  return *(next - 1);
}

int HostKinds::sample(int kind) const {
  for (const Piece& piece : pieces_)
    if (std::find(piece.kinds.begin(), piece.kinds.end(), kind) != piece.kinds.end()) return piece.first;
  TOPOMOE_ASSERT(false);
  return -1;
}

int HostKinds::find(int kind, int first, int end, int skip_first, int skip_end, int apart) const {
  for (const Piece& piece : pieces_) {
    if (std::find(piece.kinds.begin(), piece.kinds.end(), kind) == piece.kinds.end()) continue;
    const int last = std::min(end, piece.end);
    for (int host = std::max(first, piece.first); host < last; ++host) {
      if (host >= skip_first && host < skip_end) host = skip_end;
      if (host >= last) break;
      if (host == apart || state_.same_domain(host, apart)) continue;
      if (piece.kinds[static_cast<std::size_t>(host % modulus_)] == kind) return host;
    }
  }
  TOPOMOE_ASSERT(false);
  return -1;
}

}  // namespace topomoe
