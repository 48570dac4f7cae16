// Reverse-mode differentiation of plain arithmetic in double, for references: write the definition, get its gradient.
// A tape records each operation; derivatives() walks it backward once. Not for anything large.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace topomoe::testing {

class Tape {
 public:
  struct Node {
    std::size_t a, b;
    double da, db;  // derivatives of the node by a and b
  };
  std::size_t add(Node n) {
    nodes_.push_back(n);
    return nodes_.size() - 1;
  }
  // Of node `of` by every node.
  std::vector<double> derivatives(std::size_t of) const {
    std::vector<double> d(nodes_.size(), 0.0);
    d[of] = 1;
    for (std::size_t i = of + 1; i-- > 0;) {
      const Node& n = nodes_[i];
      if (n.da != 0) d[n.a] += n.da * d[i];
      if (n.db != 0) d[n.b] += n.db * d[i];
    }
    return d;
  }

 private:
  std::vector<Node> nodes_;
};

// A value on a tape, or a constant (no tape).
struct Var {
  double v = 0;
  Tape* tape = nullptr;
  std::size_t at = 0;

  Var() = default;
  Var(double value) : v(value) {}  // a constant
  Var(double value, Tape& t) : v(value), tape(&t), at(t.add({0, 0, 0, 0})) {}

  static Var made(double v, const Var& a, double da, const Var& b, double db) {
    Var out(v);
    out.tape = a.tape != nullptr ? a.tape : b.tape;
    if (out.tape != nullptr)
      out.at = out.tape->add({a.at, b.at, a.tape != nullptr ? da : 0, b.tape != nullptr ? db : 0});
    return out;
  }
};

inline Var operator+(const Var& a, const Var& b) { return Var::made(a.v + b.v, a, 1, b, 1); }
inline Var operator-(const Var& a, const Var& b) { return Var::made(a.v - b.v, a, 1, b, -1); }
inline Var operator*(const Var& a, const Var& b) { return Var::made(a.v * b.v, a, b.v, b, a.v); }
inline Var operator/(const Var& a, const Var& b) { return Var::made(a.v / b.v, a, 1 / b.v, b, -a.v / (b.v * b.v)); }
inline Var& operator+=(Var& a, const Var& b) { return a = a + b; }
inline Var exp(const Var& a) { return Var::made(std::exp(a.v), a, std::exp(a.v), {}, 0); }
inline Var log(const Var& a) { return Var::made(std::log(a.v), a, 1 / a.v, {}, 0); }
inline Var sigmoid(const Var& a) { return Var(1) / (Var(1) + exp(Var(-1) * a)); }

}  // namespace topomoe::testing
