// Sixteen rows of sixteen at once, over F16 and Key of simd_*.hpp, which is included first: turned so that a lane is a
// row, folded to one lane a row, sorted in every lane.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>

namespace topomoe::kernels {
namespace {

// Four steps turn 16 x 16; of each, kSecond is the other half of what comes out. Lane 4 b + i of the result is row
// 4 b + i where rows enter as below.

// x[c] becomes column c: its lane r is what lane c of x[r] was.
TOPOMOE_INLINE void turn(F16 (&x)[16]) {
  F16 quarter[4][4];  // [i][b]: quarter b of rows i, 4 + i, 8 + i, 12 + i
  for (int i = 0; i < 4; ++i) {
    const F16 a = step<1, false>(x[i], x[4 + i]), b = step<1, false>(x[8 + i], x[12 + i]);
    const F16 c = step<1, true>(x[i], x[4 + i]), d = step<1, true>(x[8 + i], x[12 + i]);
    quarter[i][0] = step<2, false>(a, b), quarter[i][1] = step<2, true>(a, b);
    quarter[i][2] = step<2, false>(c, d), quarter[i][3] = step<2, true>(c, d);
  }
  for (int b = 0; b < 4; ++b) {
    const F16 p = step<3, false>(quarter[0][b], quarter[1][b]), q = step<3, false>(quarter[2][b], quarter[3][b]);
    const F16 r = step<3, true>(quarter[0][b], quarter[1][b]), s = step<3, true>(quarter[2][b], quarter[3][b]);
    x[4 * b] = step<4, false>(p, q), x[4 * b + 1] = step<4, true>(p, q);
    x[4 * b + 2] = step<4, false>(r, s), x[4 * b + 3] = step<4, true>(r, s);
  }
}

// What lanes are merged by when they are folded in halves: i and i + 8, i and i + 4, ...
struct Largest {
  F16 x;
  TOPOMOE_INLINE static Largest of(F16 a, F16 b) { return {most(a, b)}; }
  TOPOMOE_INLINE void add(F16 a) { x = most(x, a); }
  template <int kStep>
  TOPOMOE_INLINE static Largest merged(Largest a, Largest b) {
    return {most(step<kStep, false>(a.x, b.x), step<kStep, true>(a.x, b.x))};
  }
};
struct Sum {
  F16 x;
  template <int kStep>
  TOPOMOE_INLINE static Sum merged(Sum a, Sum b) {
    return {add(step<kStep, false>(a.x, b.x), step<kStep, true>(a.x, b.x))};
  }
};
struct TwoLargest {
  F16 first, second;
  TOPOMOE_INLINE static TwoLargest of(F16 a, F16 b) { return {most(a, b), least(a, b)}; }
  TOPOMOE_INLINE void add(F16 a) { second = most(second, least(first, a)), first = most(first, a); }
  template <int kStep>
  TOPOMOE_INLINE static TwoLargest merged(TwoLargest a, TwoLargest b) {
    const F16 p = step<kStep, false>(a.first, b.first), q = step<kStep, true>(a.first, b.first);
    return {most(p, q),
            most(least(p, q), most(step<kStep, false>(a.second, b.second), step<kStep, true>(a.second, b.second)))};
  }
};

// Of rows i, 4 + i, 8 + i, 12 + i.
template <class T>
TOPOMOE_INLINE T folded_quarter(T a, T b, T c, T d) {
  return T::template merged<2>(T::template merged<1>(a, b), T::template merged<1>(c, d));
}
// Of i = 0 to 3: lane r is row r's.
template <class T>
TOPOMOE_INLINE T folded_quarters(const T (&quarter)[4]) {
  return T::template merged<4>(T::template merged<3>(quarter[0], quarter[1]),
                               T::template merged<3>(quarter[2], quarter[3]));
}
template <class T>
TOPOMOE_INLINE T folded(const T (&row)[16]) {
  T quarter[4];
  for (int i = 0; i < 4; ++i) quarter[i] = folded_quarter(row[i], row[4 + i], row[8 + i], row[12 + i]);
  return folded_quarters(quarter);
}

// Batcher's odd-even merge sort (1968) of sixteen: which are compared, in order.
struct Exchanges {
  int first[63], second[63];
  constexpr Exchanges() : first(), second() {
    int n = 0;
    for (int p = 1; p < 16; p *= 2)
      for (int k = p; k > 0; k /= 2)
        for (int j = k % p; j + k < 16; j += 2 * k)
          for (int i = j; i < j + k && i + k < 16; ++i)
            if (i / (2 * p) == (i + k) / (2 * p)) first[n] = i, second[n++] = i + k;
  }
};
constexpr Exchanges kExchanges;

template <class T>
TOPOMOE_INLINE void exchange(T& a, T& b) {
  const T larger = most(a, b);
  b = least(a, b);
  a = larger;
}
template <class T, std::size_t... I>
TOPOMOE_INLINE void sort(T (&x)[16], std::index_sequence<I...>) {
  (exchange(x[kExchanges.first[I]], x[kExchanges.second[I]]), ...);
}
// Lane by lane, the largest first.
template <class T>
TOPOMOE_INLINE void sort(T (&x)[16]) {
  sort(x, std::make_index_sequence<63>());
}

}  // namespace
}  // namespace topomoe::kernels
