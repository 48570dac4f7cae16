// Fixture of kernel tests: one set of test bodies, run through the Device interface against references
// in double precision. Each file of bodies is linked into kernels_test (CPU) and, where CUDA is built,
// into kernels_gpu_test; the two differ only in device_under_test().
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/bf16.hpp"
#include "topomoe/device.hpp"
#include "topomoe/error.hpp"

namespace topomoe::test {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int32_t>;
using Bytes = std::vector<std::uint8_t>;

// Throws MissingEnvironment where this machine lacks it. Defined by *_device_under_test.cpp.
std::unique_ptr<Device> device_under_test();

inline std::chrono::steady_clock::time_point soon() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(30);
}

// The value as it is once stored as dtype.
inline float rounded(float x, DType dtype) { return dtype == DType::f32 ? x : kernels::to_float(kernels::to_bf16(x)); }

// Half the distance between 1 and the next number: the relative error of one rounding.
inline double unit_roundoff(DType dtype) { return dtype == DType::f32 ? std::ldexp(1.0, -24) : std::ldexp(1.0, -8); }

inline double largest(const Doubles& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

// Central differences of loss() by each of the values that it depends on.
template <class Loss>
Doubles differences(Doubles& values, const Loss& loss) {
  constexpr double h = 1e-5;
  Doubles out;
  for (double& x : values) {
    const double at_x = x;
    x = at_x + h;
    const double above = loss();
    x = at_x - h;
    out.push_back((above - loss()) / (2 * h));
    x = at_x;
  }
  return out;
}

// |actual - expected| <= bound, element by element; says where not.
inline void expect_near(const Floats& actual, const Doubles& expected, double bound, const char* what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_LE(std::abs(static_cast<double>(actual[i]) - expected[i]), bound)
        << what << '[' << i << "]: " << actual[i] << ", expected " << expected[i];
  }
}

inline bool same_bits(const float* a, const float* b, std::size_t count) {
  return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}
inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

// Random test data; the same in every run.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  float real() { return std::uniform_real_distribution<float>(-1.0F, 1.0F)(engine_); }
  int whole(int first, int last) { return std::uniform_int_distribution<int>(first, last)(engine_); }
  Floats reals(std::int64_t count, DType dtype = DType::f32) {
    Floats values(static_cast<std::size_t>(count));
    for (float& v : values) v = rounded(real(), dtype);
    return values;
  }
  Ints wholes(std::int64_t count, int first, int last) {
    Ints values(static_cast<std::size_t>(count));
    for (auto& v : values) v = whole(first, last);
    return values;
  }

 private:
  std::mt19937 engine_;
};

// A tensor on the device, seen from the host as fp32 whatever its dtype.
class Tensor {
 public:
  Tensor(Device& device, const Floats& values, DType dtype = DType::f32)
      : device_(&device), count_(values.size()), dtype_(dtype), memory_(device.allocate(bytes())) {
    write(values);
  }
  void* data() const { return memory_.get(); }
  float* floats() const { return reinterpret_cast<float*>(memory_.get()); }

  void write(const Floats& values) const {
    kernels::with_element(dtype_, [&]<class T>(T) {
      std::vector<T> elements(count_);
      std::transform(values.begin(), values.end(), elements.begin(), kernels::from_float<T>);
      device_->to_device(Lane::compute, data(), elements.data(), bytes());
      device_->synchronize(soon());
    });
  }
  Floats read() const {
    Floats values(count_);
    kernels::with_element(dtype_, [&]<class T>(T) {
      std::vector<T> elements(count_);
      device_->to_host(Lane::compute, elements.data(), data(), bytes(), soon());
      std::transform(elements.begin(), elements.end(), values.begin(), [](T x) { return kernels::to_float(x); });
    });
    return values;
  }

 private:
  std::size_t bytes() const { return count_ * size_of(dtype_); }
  Device* device_;
  std::size_t count_;
  DType dtype_;
  DeviceMemory memory_;
};

// An index map, ids or codes on the device.
template <class T>
class Elements {
 public:
  Elements(Device& device, const std::vector<T>& values)
      : device_(&device), count_(values.size()), memory_(device.allocate(count_ * sizeof(T))) {
    write(values);
  }
  T* data() const { return reinterpret_cast<T*>(memory_.get()); }
  void write(const std::vector<T>& values) const {
    device_->to_device(Lane::compute, data(), values.data(), count_ * sizeof(T));
    device_->synchronize(soon());
  }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    device_->to_host(Lane::compute, values.data(), data(), count_ * sizeof(T), soon());
    return values;
  }

 private:
  Device* device_;
  std::size_t count_;
  DeviceMemory memory_;
};
using IntTensor = Elements<std::int32_t>;
using ByteTensor = Elements<std::uint8_t>;

class OnDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      device_ = device_under_test();
    } catch (const MissingEnvironment& error) {
      GTEST_SKIP() << error.what();
    }
  }
  Tensor tensor(const Floats& values, DType dtype = DType::f32) { return {*device_, values, dtype}; }
  Tensor zeros(std::int64_t count, DType dtype = DType::f32) {
    return {*device_, Floats(static_cast<std::size_t>(count)), dtype};
  }
  IntTensor ints(const Ints& values) { return {*device_, values}; }

  std::unique_ptr<Device> device_;
};

}  // namespace topomoe::test
