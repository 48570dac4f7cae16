#include "kernels/cpu_isa.hpp"

#include <string>

#include "topomoe/error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace topomoe::kernels {
namespace {

#if defined(__x86_64__)
// Leaf 7 of cpuid: what __builtin_cpu_supports of GCC 12 has no name for.
struct Leaf7 {
  unsigned edx0 = 0, eax1 = 0;
};
Leaf7 leaf7() {
  Leaf7 out;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) out.edx0 = d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) out.eax1 = a;
  return out;
}

// Linux saves 8 KiB of tile registers a thread only where a process has asked for them (since 5.16).
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: asm/prctl.h
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}
#endif

CpuIsa ask() {
#if defined(__x86_64__)
  constexpr unsigned kAmxBf16 = 1U << 22, kAmxTile = 1U << 24;  // edx of leaf 7.0
  constexpr unsigned kAvx512Bf16 = 1U << 5;                     // eax of leaf 7.1
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return CpuIsa::portable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return CpuIsa::avx2;
  const Leaf7 leaf = leaf7();
  if ((leaf.eax1 & kAvx512Bf16) == 0) return CpuIsa::avx512;
  if ((leaf.edx0 & kAmxBf16) == 0 || (leaf.edx0 & kAmxTile) == 0 || !may_use_tiles()) return CpuIsa::avx512_bf16;
  return CpuIsa::amx;
#else
  return CpuIsa::portable;
#endif
}

}  // namespace

CpuIsa best_isa() {
  static const CpuIsa best = ask();
  return best;
}

std::string_view name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::portable: return "portable";
    case CpuIsa::avx2: return "avx2";
    case CpuIsa::avx512: return "avx512";
    case CpuIsa::avx512_bf16: return "avx512_bf16";
    case CpuIsa::amx: return "amx";
  }
  return "unknown";
}

std::vector<CpuIsa> usable_isas() {
  std::vector<CpuIsa> out;
  for (const CpuIsa isa : {CpuIsa::portable, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx})
    if (isa <= best_isa()) out.push_back(isa);
  return out;
}

CpuIsa isa_named(std::string_view wanted) {
  std::string known;
  for (const CpuIsa isa : usable_isas()) {
    if (name(isa) == wanted) return isa;
    known += (known.empty() ? "" : ", ") + std::string(name(isa));
  }
  throw InvalidInput("isa", std::string(wanted), "this CPU has " + known);
}

}  // namespace topomoe::kernels
