#include "kernels/matmul.hpp"

#include <cstdio>
#include <thread>

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

using kernels::Bf16;
using kernels::Matmul;
using Implementation = void (*)(const Matmul&, const ProgressHook&);

// False where this build or CPU has no oneDNN for it; then nothing was done.
void onednn_or_portable(const Matmul& op, const ProgressHook& hook) {
  if (!kernels::matmul_onednn(op, hook)) kernels::matmul_portable(op, hook);
}

struct Case {
  std::int64_t m, n, k;
  bool a_transposed = false, b_transposed = true, accumulate = false;
  float scale = 1.0F;
  DType a_dtype = DType::f32, b_dtype = DType::f32, c_dtype = DType::f32;
};

std::vector<std::byte> stored(const Floats& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  kernels::with_element(dtype, [&]<class T>(T) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const T element = kernels::from_float<T>(values[i]);
      std::memcpy(bytes.data() + i * sizeof(T), &element, sizeof(T));
    }
  });
  return bytes;
}
Floats loaded(const std::vector<std::byte>& bytes, DType dtype) {
  Floats values(bytes.size() / size_of(dtype));
  kernels::with_element(dtype, [&]<class T>(T) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      T element;
      std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
      values[i] = kernels::to_float(element);
    }
  });
  return values;
}

// Bound: k additions and one product each in fp32, one rounding of c's type; operands are at most 1.
void check(const Case& c, Implementation implementation) {
  Random random(static_cast<unsigned>(c.m + 100 * c.n + 10000 * c.k));
  const Floats a = random.reals(c.m * c.k, c.a_dtype);
  const Floats b = random.reals(c.k * c.n, c.b_dtype);
  const Floats before = random.reals(c.m * c.n, c.c_dtype);
  Doubles expected;
  for (std::int64_t i = 0; i < c.m; ++i) {
    for (std::int64_t j = 0; j < c.n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < c.k; ++l) {
        sum += static_cast<double>(a[static_cast<std::size_t>(c.a_transposed ? l * c.m + i : i * c.k + l)]) *
               b[static_cast<std::size_t>(c.b_transposed ? j * c.k + l : l * c.n + j)];
      }
      sum *= static_cast<double>(c.scale);
      expected.push_back(c.accumulate ? before[static_cast<std::size_t>(i * c.n + j)] + sum : sum);
    }
  }
  const auto a_bytes = stored(a, c.a_dtype);
  const auto b_bytes = stored(b, c.b_dtype);
  auto c_bytes = stored(before, c.c_dtype);
  implementation({.a = a_bytes.data(),
                  .b = b_bytes.data(),
                  .c = c_bytes.data(),
                  .m = c.m,
                  .n = c.n,
                  .k = c.k,
                  .a_transposed = c.a_transposed,
                  .b_transposed = c.b_transposed,
                  .accumulate = c.accumulate,
                  .scale = c.scale,
                  .a_dtype = c.a_dtype,
                  .b_dtype = c.b_dtype,
                  .c_dtype = c.c_dtype},
                 {});
  const double terms = static_cast<double>(c.k) + 2;
  const double bound = terms * terms * unit_roundoff(DType::f32) + 2 * largest(expected) * unit_roundoff(c.c_dtype);
  expect_near(loaded(c_bytes, c.c_dtype), expected, bound, "product");
}

TEST(Matmul, PortableAndOneDnn_AgreeWithDouble) {
  for (const Implementation implementation : {kernels::matmul_portable, onednn_or_portable}) {
    for (const auto& [m, n, k] : {std::tuple(1, 1, 1), {1, 17, 300}, {3, 16, 8}, {65, 33, 129}, {70, 5, 257}}) {
      for (const bool a_transposed : {false, true}) {
        for (const bool b_transposed : {false, true}) {
          const DType half = DType::bf16;
          check({m, n, k, a_transposed, b_transposed}, implementation);
          check({m, n, k, a_transposed, b_transposed, true, 0.5F}, implementation);
          check({m, n, k, a_transposed, b_transposed, true, -2.0F, half, half, half}, implementation);
          check({m, n, k, a_transposed, b_transposed, true, 1.0F, half, half, DType::f32}, implementation);
          check({m, n, k, a_transposed, b_transposed, false, 1.0F, half, DType::f32, half}, implementation);
        }
      }
    }
  }
}

TEST(Matmul, EmptySizes_Work) {
  for (const Implementation implementation : {kernels::matmul_portable, onednn_or_portable}) {
    check({0, 4, 4}, implementation);
    check({4, 0, 4}, implementation);
    check({4, 4, 0}, implementation);                     // an empty sum is zero,
    check({4, 4, 0, true, false, true}, implementation);  // and adds nothing
  }
}

// Whether every row has the bits it has alone, for 1 to 70 rows starting at the first or a later one.
bool is_row_invariant(const Case& c, Implementation implementation) {
  constexpr std::int64_t kRows = 70;
  Random random(9);
  const auto a = stored(random.reals(kRows * c.k), c.a_dtype);
  const auto b = stored(random.reals(c.k * c.n), c.b_dtype);
  const auto row_bytes = static_cast<std::size_t>(c.n) * size_of(c.c_dtype);
  auto product = [&](std::int64_t first, std::int64_t rows, std::byte* out) {
    implementation({.a = a.data() + static_cast<std::size_t>(first * c.k) * size_of(c.a_dtype),
                    .b = b.data(),
                    .c = out,
                    .m = rows,
                    .n = c.n,
                    .k = c.k,
                    .b_transposed = c.b_transposed,
                    .a_dtype = c.a_dtype,
                    .b_dtype = c.b_dtype,
                    .c_dtype = c.c_dtype},
                   {});
  };
  std::vector<std::byte> alone(kRows * row_bytes), together(kRows * row_bytes);
  for (std::int64_t row = 0; row < kRows; ++row) product(row, 1, &alone[static_cast<std::size_t>(row) * row_bytes]);
  for (std::int64_t rows = 2; rows <= kRows; rows += rows < 20 ? 1 : 5) {
    for (const std::int64_t first : {std::int64_t{0}, kRows - rows}) {
      product(first, rows, together.data());
      const std::byte* expected = &alone[static_cast<std::size_t>(first) * row_bytes];
      if (std::memcmp(together.data(), expected, static_cast<std::size_t>(rows) * row_bytes) != 0) return false;
    }
  }
  return true;
}

TEST(Matmul, Fp32_IsRowInvariant) {
  for (const std::int64_t hidden : {8, 64, 96, 256}) {
    for (const std::int64_t ffn : {16, 48, 128, 512}) {
      EXPECT_TRUE(is_row_invariant({.m = 0, .n = ffn, .k = hidden}, kernels::matmul_cpu));
      EXPECT_TRUE(is_row_invariant({.m = 0, .n = hidden, .k = ffn}, kernels::matmul_cpu));
      EXPECT_TRUE(is_row_invariant({.m = 0, .n = hidden, .k = ffn, .b_transposed = false}, kernels::matmul_cpu));
    }
  }
}

// Not a promise: prints what is behind the choice in matmul_cpu (kernels/README.md).
TEST(Matmul, OneDnn_RowInvarianceIsReported) {
  constexpr std::int64_t k = 1024, n = 512;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    float element = 0;
    if (!kernels::matmul_onednn({.a = &element, .b = &element, .k = 1, .a_dtype = dtype, .b_dtype = dtype}, {})) {
      std::printf("oneDNN: not built in, or no such instructions on this CPU\n");
      continue;
    }
    const Case c{.m = 0, .n = n, .k = k, .a_dtype = dtype, .b_dtype = dtype, .c_dtype = dtype};
    std::printf("oneDNN %s, %d x %d: %srow-invariant\n", dtype == DType::f32 ? "fp32" : "bf16", static_cast<int>(n),
                static_cast<int>(k), is_row_invariant(c, onednn_or_portable) ? "" : "not ");
  }
}

TEST(Matmul, ManyThreads_GetTheSameBits) {
  constexpr std::int64_t n = 48, k = 96;
  Random random(2);
  const Floats a = random.reals(33 * k);
  const Floats b = random.reals(n * k);
  std::vector<Floats> results(4, Floats(33 * n));
  std::vector<std::thread> threads;
  for (Floats& result : results) {
    threads.emplace_back([&a, &b, &result] {
      kernels::matmul_cpu({.a = a.data(), .b = b.data(), .c = result.data(), .m = 33, .n = n, .k = k}, {});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Floats& result : results) EXPECT_TRUE(same_bits(result, results.front()));
}

TEST(Matmul, LongProduct_CallsTheProgressHookOften) {
  constexpr std::int64_t size = 512;  // 268 Mflop: at most a millisecond a call at 2 GFLOP/s is 134 calls
  const Floats a(size * size, 1.0F);
  Floats c(size * size);
  int calls = 0;
  const ProgressHook hook{[](void* state) { ++*static_cast<int*>(state); }, &calls};
  kernels::matmul_portable({.a = a.data(), .b = a.data(), .c = c.data(), .m = size, .n = size, .k = size}, hook);
  EXPECT_GE(calls, 120);
  EXPECT_EQ(c.back(), static_cast<float>(size));
}

}  // namespace
}  // namespace topomoe::test
