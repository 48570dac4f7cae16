// Physical quantities as types, so that a byte count never meets a rate by accident.
//
// Everything is SI and double precision: 1 GB is 1e9 bytes, 1 GiB is 2^30. Inside the library a
// quantity carries its unit in its type; at the edges (JSON, CLI, structs read from files) it is a
// plain double whose name ends in the unit: _bytes _us _ms _GBps _Gbps _GiB.
#pragma once

#include <compare>

namespace topomoe {

template <class Tag>
struct Quantity {
  double value = 0;

  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity& operator+=(Quantity other) {
    value += other.value;
    return *this;
  }
  constexpr Quantity& operator-=(Quantity other) {
    value -= other.value;
    return *this;
  }
  constexpr Quantity& operator*=(double factor) {
    value *= factor;
    return *this;
  }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return {a.value + b.value}; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return {a.value - b.value}; }
  friend constexpr Quantity operator*(Quantity a, double b) { return {a.value * b}; }
  friend constexpr Quantity operator*(double a, Quantity b) { return {a * b.value}; }
  friend constexpr Quantity operator/(Quantity a, double b) { return {a.value / b}; }
  friend constexpr double operator/(Quantity a, Quantity b) { return a.value / b.value; }
};

using Bytes = Quantity<struct BytesTag>;
using Seconds = Quantity<struct SecondsTag>;
using BytesPerSecond = Quantity<struct BytesPerSecondTag>;
using Flops = Quantity<struct FlopsTag>;
using FlopsPerSecond = Quantity<struct FlopsPerSecondTag>;

constexpr Seconds operator/(Bytes amount, BytesPerSecond rate) { return {amount.value / rate.value}; }
constexpr Seconds operator/(Flops amount, FlopsPerSecond rate) { return {amount.value / rate.value}; }
constexpr Bytes operator*(Seconds time, BytesPerSecond rate) { return {time.value * rate.value}; }

constexpr Bytes bytes(double n) { return {n}; }
constexpr Bytes GiB(double n) { return {n * 1073741824.0}; }
constexpr BytesPerSecond GBps(double n) { return {n * 1e9}; }
constexpr FlopsPerSecond TFLOPps(double n) { return {n * 1e12}; }
constexpr Seconds microseconds(double n) { return {n * 1e-6}; }
constexpr double in_us(Seconds t) { return t.value * 1e6; }
constexpr double in_ms(Seconds t) { return t.value * 1e3; }
constexpr double in_GBps(BytesPerSecond r) { return r.value * 1e-9; }
constexpr double in_GiB(Bytes b) { return b.value / 1073741824.0; }

}  // namespace topomoe
