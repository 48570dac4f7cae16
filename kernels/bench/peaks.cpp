#include "kernels/bench/peaks.hpp"

#include <cstdint>
#include <cstring>
#include <random>

#include "kernels/bf16.hpp"
#include "kernels/cpu_isa.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace topomoe::bench {
namespace {

constexpr std::size_t kPiece = 1 << 20, kRepetition = std::size_t{128} << 20;

// All variants that are known to be fastest somewhere; the best of them is the peak.
struct Variant {
  void (*copy)(std::byte* to, const std::byte* from, std::size_t bytes) = nullptr;
  std::uint64_t (*read)(const std::byte* from, std::size_t bytes) = nullptr;
};

void copy_plain(std::byte* to, const std::byte* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
std::uint64_t read_plain(const std::byte* from, std::size_t bytes) {
  std::uint64_t all[8] = {};
  for (std::size_t i = 0; i < bytes; i += sizeof all) {
    std::uint64_t x[8];
    std::memcpy(x, from + i, sizeof x);
    for (int j = 0; j < 8; ++j) all[j] |= x[j];
  }
  std::uint64_t out = 0;
  for (const std::uint64_t x : all) out |= x;
  return out;
}

#if defined(__x86_64__)
#define TOPOMOE_BENCH_AVX512 [[gnu::target("avx512f")]]
#define TOPOMOE_BENCH_AVX2 [[gnu::target("avx2")]]

template <int kAhead>
TOPOMOE_BENCH_AVX512 void copy_avx512(std::byte* to, const std::byte* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 256) {
    for (std::size_t j = 0; kAhead > 0 && j < 256; j += 64)
      _mm_prefetch(reinterpret_cast<const char*>(from + i + j + kAhead), _MM_HINT_T0);
    const __m512i a = _mm512_loadu_si512(from + i), b = _mm512_loadu_si512(from + i + 64);
    const __m512i c = _mm512_loadu_si512(from + i + 128), d = _mm512_loadu_si512(from + i + 192);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), a);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i + 64), b);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i + 128), c);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i + 192), d);
  }
  _mm_sfence();
}
template <int kAhead>
TOPOMOE_BENCH_AVX512 std::uint64_t read_avx512(const std::byte* from, std::size_t bytes) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (std::size_t i = 0; i < bytes; i += 256) {
    for (std::size_t j = 0; kAhead > 0 && j < 256; j += 64)
      _mm_prefetch(reinterpret_cast<const char*>(from + i + j + kAhead), _MM_HINT_T0);
    a = _mm512_or_si512(a, _mm512_loadu_si512(from + i)), b = _mm512_or_si512(b, _mm512_loadu_si512(from + i + 64));
    c = _mm512_or_si512(c, _mm512_loadu_si512(from + i + 128)),
    d = _mm512_or_si512(d, _mm512_loadu_si512(from + i + 192));
  }
  alignas(64) std::byte all[64];
  _mm512_store_si512(all, _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)));
  return read_plain(all, sizeof all);
}
TOPOMOE_BENCH_AVX2 void copy_avx2(std::byte* to, const std::byte* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 64) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + 32));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), a);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + 32), b);
  }
  _mm_sfence();
}

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

constexpr int kProducts = 4;  // of 2 x 2 tiles; each 16 x 16 sums of 32 products
constexpr double kFlops = 2.0 * 16 * 16 * 32;
constexpr int kLoops = 1 << 14;

[[gnu::target("amx-tile,amx-bf16")]] void tile_products(const std::byte* data) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = 16;
  asm volatile("ldtilecfg %0" : : "m"(config));  // GCC 12's intrinsic tells the compiler of the first 8 bytes only
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, data, 64);
  _tile_loadd(5, data + 1024, 64);
  _tile_loadd(6, data + 2048, 64);
  _tile_loadd(7, data + 3072, 64);
  for (int i = 0; i < kLoops; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

constexpr int kChains = 12;  // two units of four cycles each, and some more
constexpr int kFmaLoops = 1 << 17;
constexpr double kFmaFlops = 2.0 * 16 * kChains * kFmaLoops;

TOPOMOE_BENCH_AVX512 void vector_products() {
  __m512 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 x = _mm512_set1_ps(0.75F), y = _mm512_set1_ps(0.25F);
  asm volatile("" : "+v"(x), "+v"(y));  // unknown
  for (int i = 0; i < kFmaLoops; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sum[c] = _mm512_fmadd_ps(sum[c], x, y);
  }
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) asm volatile("" : : "v"(sum[c]));
}
#endif

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = [] {
    std::vector<Variant> out{{copy_plain, read_plain}};
#if defined(__x86_64__)
    if (kernels::best_isa() >= kernels::CpuIsa::avx2) out.push_back({copy_avx2, nullptr});
    if (kernels::best_isa() >= kernels::CpuIsa::avx512)
      out.insert(out.end(), {{copy_avx512<0>, read_avx512<0>},
                             {copy_avx512<1024>, read_avx512<1024>},
                             {copy_avx512<2048>, read_avx512<2048>},
                             {copy_avx512<4096>, read_avx512<4096>}});
#endif
    return out;
  }();
  return all;
}

// Windows of memory() in turn, so that none is found in a cache.
std::size_t next_window(std::size_t of) {
  static std::size_t turn = 0;
  return ++turn * kRepetition % of;
}

double bytes_per_second(Limit limit, const Variant& v, kernels::ThreadPool& pool) {
  const std::size_t half = kMemoryBytes / 2, window = next_window(limit == Limit::copy ? half : kMemoryBytes);
  std::byte *const from = memory() + window, *const to = memory() + half + window;
  const double begin = seconds();
  pool.run(kRepetition / kPiece, {}, [&](std::int64_t piece, int) {
    const std::size_t at = static_cast<std::size_t>(piece) * kPiece;
    if (limit == Limit::copy)
      v.copy(to + at, from + at, kPiece);
    else
      benchmark::DoNotOptimize(v.read(from + at, kPiece));
  });
  return (limit == Limit::copy ? 2.0 : 1.0) * kRepetition / (seconds() - begin);
}

// Which variant is fastest with so many threads: the best of three each, once.
const Variant& fastest(Limit limit, kernels::ThreadPool& pool) {
  static std::vector<const Variant*> known[2];
  std::vector<const Variant*>& of = known[limit == Limit::copy ? 0 : 1];
  const auto threads = static_cast<std::size_t>(pool.threads());
  if (of.size() <= threads) of.resize(threads + 1);
  if (of[threads] != nullptr) return *of[threads];
  double best = 0;
  for (const Variant& v : variants())
    for (int i = 0; i < 3 && (limit == Limit::copy ? v.copy != nullptr : v.read != nullptr); ++i)
      if (const double rate = bytes_per_second(limit, v, pool); rate > best) best = rate, of[threads] = &v;
  return *of[threads];
}

double flops_per_second(Limit limit, kernels::ThreadPool& pool) {
#if defined(__x86_64__)
  const bool tiles = limit == Limit::amx;
  const int pieces = 8 * pool.threads();
  const double begin = seconds();
  pool.run(pieces, {}, [&](std::int64_t, int) { tiles ? tile_products(memory()) : vector_products(); });
  return (tiles ? kFlops * kProducts * kLoops : kFmaFlops) * pieces / (seconds() - begin);
#else
  (void)limit, (void)pool;
  return 0;
#endif
}

}  // namespace

std::string missing(Limit limit) {
  const kernels::CpuIsa isa = kernels::best_isa();
  const std::string up_to = ": this CPU has, or the system lets us use, up to " + std::string(name(isa));
  if (limit == Limit::amx && isa != kernels::CpuIsa::amx) return "no AMX" + up_to;
  if (limit == Limit::fma && isa < kernels::CpuIsa::avx512) return "no AVX-512" + up_to;
  return {};
}

double measure(Limit limit, kernels::ThreadPool& pool) {
  if (limit == Limit::amx || limit == Limit::fma) return flops_per_second(limit, pool);
  return bytes_per_second(limit, fastest(limit, pool), pool);
}

std::byte* memory() {
  static std::byte* const all = [] {
    constexpr std::size_t kLargePage = 2 << 20;
    auto* const bytes = static_cast<std::byte*>(::operator new (kMemoryBytes, std::align_val_t{kLargePage}));
#if defined(__linux__)
    (void)madvise(bytes, kMemoryBytes, MADV_HUGEPAGE);
#endif
    std::minstd_rand engine(1);
    std::vector<kernels::Bf16> some(1 << 20);
    std::uniform_real_distribution<float> draw(-1.0F, 1.0F);
    for (kernels::Bf16& x : some) x = kernels::to_bf16(draw(engine));
    const std::size_t part = some.size() * sizeof some[0];
    for (std::size_t at = 0; at < kMemoryBytes; at += part) std::memcpy(bytes + at, some.data(), part);
    return bytes;
  }();
  return all;
}

}  // namespace topomoe::bench
