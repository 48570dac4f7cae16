// Hosts that no route can tell apart, and how many of them lie where: the classes that class_loads.cpp works with.
#pragma once

#include <vector>

#include "topology/router_state.hpp"

namespace topomoe {

// Ordinals base, base + stride, ... (count of them).
struct HostSeries {
  int base = 0, stride = 1, count = 0;
  // How many of them lie in [first, end) and leave `residue` when divided by `modulus`.
  int within(int first, int end, int residue, int modulus) const;
};

// What a route sees of a host: its template (but for rates and names), its number modulo the spread over several NICs,
// and which links above its unit and its pod are dead.
class HostKinds {
 public:
  struct Kind {
    int template_index, residue, unit, pod;  // the first such template; unit, pod: 0 where nothing is dead above it
    bool operator==(const Kind&) const = default;
  };
  // Hosts first .. end-1; those of residue r are of kind kinds[r]. Hosts without GPUs are in no piece; `shift` of them
  // come before this one. A host's ordinal is its number less the shift: series count ordinals.
  struct Piece {
    int first, end, shift;
    std::vector<int> kinds;
    int within(const HostSeries& series, int from, int to, int residue, int modulus) const {
      return series.within((from > first ? from : first) - shift, (to < end ? to : end) - shift, residue - shift,
                           modulus);
    }
  };

  explicit HostKinds(const Router::State&);
  int modulus() const { return modulus_; }
  int count() const { return static_cast<int>(kinds_.size()); }
  const std::vector<Piece>& pieces() const { return pieces_; }
  const Piece& piece_of(int host) const;
  int kind_of(int host) const { return piece_of(host).kinds[static_cast<std::size_t>(host % modulus_)]; }
  int ordinal_of(int host) const { return host - piece_of(host).shift; }
  // Some host of the kind's template.
  int sample(int kind) const;
  int hosts_without_gpus() const { return shift_; }
  // A host of the kind in [first, end) and outside [skip_first, skip_end) that is neither `apart` nor in its domain.
  int find(int kind, int first, int end, int skip_first, int skip_end, int apart) const;

 private:
  const Router::State& state_;
  int modulus_ = 1, shift_ = 0;
  std::vector<Kind> kinds_;
  std::vector<Piece> pieces_;
};

}  // namespace topomoe
