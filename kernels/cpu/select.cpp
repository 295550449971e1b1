#include "cpu/select.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace nibble::inline v0::cpu {

namespace {

#if defined(__x86_64__)
// The names ask the operating system, too, whether it saves the registers. F16C has no name in
// clang 14; its bit counts only together with AVX2, whose registers it uses.
bool has_avx2() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1u << 29)) != 0;
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace

std::vector<const kernel_table*> available_kernels() {
  std::vector<const kernel_table*> tables;
#if defined(__x86_64__)
  if (has_avx512() && __builtin_cpu_supports("avx512vnni")) {
    tables.push_back(&kernels_avx512vnni());
  }
  if (has_avx512()) tables.push_back(&kernels_avx512());
  if (has_avx2()) tables.push_back(&kernels_avx2());
  if (__builtin_cpu_supports("sse4.2")) tables.push_back(&kernels_sse42());
#endif
  tables.push_back(&kernels_scalar());
  return tables;
}

const kernel_table* find_kernels(std::string_view isa) {
  for (const kernel_table* table : available_kernels()) {
    if (isa == table->isa) return table;
  }
  return nullptr;
}

}  // namespace nibble::inline v0::cpu
