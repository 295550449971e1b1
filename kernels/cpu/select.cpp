#include "cpu/select.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace nibble::inline v0::cpu {

namespace {

bool always() {
  return true;
}

#if defined(__x86_64__)
// POPCNT came with SSE4.2, and compilers take it for a part of that.
bool has_sse42() {
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}

// The names ask the operating system, too, whether it saves the registers. F16C has no name in
// clang 14; its bit counts only together with AVX2, whose registers it uses.
bool has_avx2() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1u << 29)) != 0;
  return f16c && has_sse42() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

// No name in clang 14 either: leaf 7, subleaf 1 (the first gives the number of subleaves).
[[maybe_unused]] bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || a < 1) return false;
  __get_cpuid_count(7, 1, &a, &b, &c, &d);
  return (a & (1u << 4)) != 0 && has_avx2();
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

bool has_avx512vnni() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

constexpr built_isa isas[] = {
    {"avx512vnni", has_avx512vnni, kernels_avx512vnni},
#if !defined(NIBBLE_FEWER_ISAS)
    {"avxvnni", has_avxvnni, kernels_avxvnni},
    {"avx512", has_avx512, kernels_avx512},
#endif
    {"avx2", has_avx2, kernels_avx2},
#if !defined(NIBBLE_FEWER_ISAS)
    {"sse42", has_sse42, kernels_sse42},
#endif
    {"scalar", always, kernels_scalar},
};
#elif defined(__aarch64__)
// Dot products, and what else g++ and clang may use in code for armv8.2-a with them.
bool has_dotprod() {
#if defined(__linux__)
  constexpr unsigned long wanted = HWCAP_ASIMDDP | HWCAP_ASIMDRDM | HWCAP_ATOMICS | HWCAP_CRC32;
  return (::getauxval(AT_HWCAP) & wanted) == wanted;
#elif defined(__APPLE__)
  int has = 0;
  std::size_t size = sizeof has;
  return ::sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
#elif defined(__ARM_FEATURE_DOTPROD)
  return true;  // everything was compiled for it
#else
  return false;
#endif
}

constexpr built_isa isas[] = {
    {"neon_dotprod", has_dotprod, kernels_neon_dotprod},
    {"neon", always, kernels_neon},
    {"scalar", always, kernels_scalar},
};
#else
constexpr built_isa isas[] = {{"scalar", always, kernels_scalar}};
#endif

}  // namespace

std::span<const built_isa> built_isas() {
  return isas;
}

std::vector<const kernel_table*> available_kernels() {
  std::vector<const kernel_table*> tables;
  for (const built_isa& isa : isas) {
    if (isa.runs()) tables.push_back(&isa.table());
  }
  return tables;
}

const kernel_table* find_kernels(std::string_view isa) {
  for (const built_isa& built : isas) {
    if (built.name == isa && built.runs()) return &built.table();
  }
  return nullptr;
}

}  // namespace nibble::inline v0::cpu
