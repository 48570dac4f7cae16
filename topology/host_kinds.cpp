#include "topology/host_kinds.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "topomoe/error.hpp"

namespace topomoe {

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

  // Units and pods with a dead link above them, each alone of its kind.
  const FabricMap& fabric = state.fabric;
  std::set<int> dead_units, dead_pods, cuts;
  const int hosts_per_pod = fabric.hosts_per_unit * fabric.units_per_pod;
  if (state.has_fabric && fabric.top != FabricMap::Top::torus)
    for (const auto& [id, factor] : fabric.factors) {
      if (factor > 0) continue;
      if (id < fabric.first_upper) {
        dead_units.insert((id - fabric.first) / 2 / fabric.ranks);
      } else if (fabric.top == FabricMap::Top::core) {
        dead_pods.insert((id - fabric.first_upper) / 2 / fabric.planes);
      } else {
        const int which = id - fabric.first_upper, group = which / (fabric.pods - 1) % fabric.pods;
        const int other = which % (fabric.pods - 1);
        dead_pods.insert(group);
        dead_pods.insert(other < group ? other : other + 1);
      }
    }
  for (const int unit : dead_units) cuts.insert({unit * fabric.hosts_per_unit, (unit + 1) * fabric.hosts_per_unit});
  for (const int pod : dead_pods) cuts.insert({pod * hosts_per_pod, (pod + 1) * hosts_per_pod});

  const auto add_piece = [&](const HostRun& run, int first, int end) {
    const int unit = first / fabric.hosts_per_unit, pod = first / hosts_per_pod;
    Piece piece{first, end, shift_, {}};
    for (int residue = 0; residue < modulus_; ++residue) {
      const Kind kind{run.template_index, residue, dead_units.count(unit) == 1 ? unit : -1,
                      dead_pods.count(pod) == 1 ? pod : -1};
      const auto known = std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& own) {
        return own.template_index == kind.template_index && own.residue == residue && own.unit == kind.unit &&
               own.pod == kind.pod;
      });
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
