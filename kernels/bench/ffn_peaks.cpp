#include "kernels/bench/ffn_peaks.hpp"

#include <chrono>

#include "kernels/cpu_isa.hpp"
#include "kernels/panel_kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace topomoe::bench {
namespace {

template <class Body>
double seconds(Body body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

#if defined(__x86_64__)
constexpr std::size_t kPart = 128;

[[gnu::target("avx512f")]] void read(const std::byte* from, const std::byte* end) {
  __m512i a = _mm512_setzero_si512(), b = a;
  for (; from < end; from += kPart) {
    a = _mm512_xor_si512(a, _mm512_loadu_si512(from));
    b = _mm512_xor_si512(b, _mm512_loadu_si512(from + 64));
  }
  a = _mm512_xor_si512(a, b);
  asm volatile("" : : "v"(a));  // wanted
}

constexpr std::int64_t kTileRounds = 20000;  // 4 x 16 cycles each: half a millisecond or so
constexpr double kTileFlops = 2.0 * 16 * 16 * 32;

[[gnu::target("amx-tile,amx-bf16,avx512f")]] void multiply_tiles() {
  alignas(64) std::uint16_t data[4][512];
  std::uint32_t state = 7;
  for (auto& tile : data)
    for (std::uint16_t& x : tile) {
      state = state * 1664525U + 1013904223U;
      x = static_cast<std::uint16_t>(0x3F00U | ((state >> 16) & 0x80FFU));  // +-0.5 to 2
    }
  const kernels::PanelKernel kernel = kernels::panel_kernel_amx();
  kernel.begin();
  _tile_loadd(4, data[0], 64);
  _tile_loadd(5, data[1], 64);
  _tile_loadd(6, data[2], 64);
  _tile_loadd(7, data[3], 64);
  for (std::int64_t i = 0; i < kTileRounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  kernel.end();
}

constexpr std::int64_t kFmaRounds = 100000;
constexpr int kChains = 12;  // two units, four cycles each, and some more

[[gnu::target("avx512f")]] void multiply_vectors() {
  __m512 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 x = _mm512_set1_ps(0.75F), y = _mm512_set1_ps(0.25F);
  asm volatile("" : "+v"(x), "+v"(y));  // unknown
  for (std::int64_t i = 0; i < kFmaRounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sum[c] = _mm512_fmadd_ps(sum[c], x, y);
  }
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) asm volatile("" : : "v"(sum[c]));
}
#endif

}  // namespace

double read_GBps(kernels::ThreadPool& pool, std::span<const std::byte> memory) {
#if defined(__x86_64__)
  if (kernels::best_isa() < kernels::CpuIsa::avx512) return 0;
  const auto parts = static_cast<std::size_t>(pool.threads());
  const std::size_t each = memory.size() / kPart / parts * kPart;
  const double s = seconds([&] {
    pool.run(pool.threads(), {}, [&](std::int64_t i, int) {
      const std::byte* from = memory.data() + static_cast<std::size_t>(i) * each;
      read(from, from + each);
    });
  });
  return static_cast<double>(each * parts) / s / 1e9;
#else
  return 0;
#endif
}

double multiply_GFLOPS(kernels::ThreadPool& pool, DType dtype) {
#if defined(__x86_64__)
  const bool tiles = dtype == DType::bf16;
  if (kernels::best_isa() < (tiles ? kernels::CpuIsa::amx : kernels::CpuIsa::avx512)) return 0;
  const double s = seconds(
      [&] { pool.run(pool.threads(), {}, [&](std::int64_t, int) { tiles ? multiply_tiles() : multiply_vectors(); }); });
  const double flops =
      tiles ? static_cast<double>(4 * kTileRounds) * kTileFlops : static_cast<double>(kFmaRounds * kChains) * 2 * 16;
  return pool.threads() * flops / s / 1e9;
#else
  return 0;
#endif
}

}  // namespace topomoe::bench
