// The loops of x86-64. Each repeats twelve steps that do not wait for each other.
#include "peaks/loops.hpp"

#if defined(__x86_64__)

namespace bench {
namespace {

// Stays in the nearest cache; zeros, so that no sum becomes a slow subnormal.
alignas(64) constinit unsigned char buffer[4096] = {};

#define NIBBLE_ASM(prologue, steps, epilogue)                                                    \
  asm volatile(prologue "1:\n\t" steps                                                           \
                        "subq $1, %0\n\t"                                                        \
                        "jnz 1b\n\t" epilogue                                                    \
               : "+r"(rounds)                                                                    \
               : "r"(buffer)                                                                     \
               : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
                 "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

// A step for each of the sums 0 to 5 with a register of its own for what lies between, twice.
#define NIBBLE_PAIRS(step, v)                                                                \
  step(v, "0", "6") step(v, "1", "7") step(v, "2", "8") step(v, "3", "9") step(v, "4", "10") \
      step(v, "5", "11")
#define NIBBLE_SIX_TWICE(step, v) NIBBLE_PAIRS(step, v) NIBBLE_PAIRS(step, v)
// A step for each of the sums 0 to 11.
#define NIBBLE_TWELVE(step, v)                                                               \
  step(v, "0") step(v, "1") step(v, "2") step(v, "3") step(v, "4") step(v, "5") step(v, "6") \
      step(v, "7") step(v, "8") step(v, "9") step(v, "10") step(v, "11")

// Vectors `v` are "%%ymm" or "%%zmm"; 13 to 15 are factors.
#define NIBBLE_INT8(v, sum, between)            \
  "vpmaddubsw " v "14, " v "15, " v between     \
  "\n\t"                                        \
  "vpmaddwd " v "13, " v between ", " v between \
  "\n\t"                                        \
  "vpaddd " v between ", " v sum ", " v sum "\n\t"
#define NIBBLE_INT8_16(v, sum, between)     \
  "vpmaddubsw " v "14, " v "15, " v between \
  "\n\t"                                    \
  "vpaddw " v between ", " v sum ", " v sum "\n\t"
#define NIBBLE_VNNI(v, sum) "vpdpbusd " v "14, " v "15, " v sum "\n\t"
#define NIBBLE_VNNI_VEX(v, sum) "%{vex%} " NIBBLE_VNNI(v, sum)
#define NIBBLE_FMA(v, sum) "vfmadd231ps " v "14, " v "15, " v sum "\n\t"
#define NIBBLE_LOAD(v, at) "vmovups 64*" at "(%1), " v at "\n\t"

#define NIBBLE_VECTOR_LOOP(name, steps)                  \
  void name(std::int64_t rounds) {                       \
    NIBBLE_ASM("vzeroall\n\t", steps, "vzeroupper\n\t"); \
  }
NIBBLE_VECTOR_LOOP(int8_256, NIBBLE_SIX_TWICE(NIBBLE_INT8, "%%ymm"))
NIBBLE_VECTOR_LOOP(int8_512, NIBBLE_SIX_TWICE(NIBBLE_INT8, "%%zmm"))
NIBBLE_VECTOR_LOOP(int8_16_256, NIBBLE_SIX_TWICE(NIBBLE_INT8_16, "%%ymm"))
NIBBLE_VECTOR_LOOP(int8_16_512, NIBBLE_SIX_TWICE(NIBBLE_INT8_16, "%%zmm"))
NIBBLE_VECTOR_LOOP(vnni_256, NIBBLE_TWELVE(NIBBLE_VNNI_VEX, "%%ymm"))
NIBBLE_VECTOR_LOOP(vnni_512, NIBBLE_TWELVE(NIBBLE_VNNI, "%%zmm"))
NIBBLE_VECTOR_LOOP(fma_256, NIBBLE_TWELVE(NIBBLE_FMA, "%%ymm"))
NIBBLE_VECTOR_LOOP(fma_512, NIBBLE_TWELVE(NIBBLE_FMA, "%%zmm"))
NIBBLE_VECTOR_LOOP(load_256, NIBBLE_TWELVE(NIBBLE_LOAD, "%%ymm"))
NIBBLE_VECTOR_LOOP(load_512, NIBBLE_TWELVE(NIBBLE_LOAD, "%%zmm"))

// 256 bytes a round, from memory; `ahead` may ask for what lies further.
#define NIBBLE_READ_FOUR(load, v, width, at)                                                   \
  load " " at "+0*" #width "(%1), " v "0\n\t" load " " at "+1*" #width "(%1), " v "1\n\t" load \
       " " at "+2*" #width "(%1), " v "2\n\t" load " " at "+3*" #width "(%1), " v "3\n\t"
#define NIBBLE_READ(name, steps, ahead, epilogue)                                           \
  void name(const void* from, std::size_t bytes) {                                          \
    std::size_t rounds = bytes / 256;                                                       \
    asm volatile("1:\n\t" ahead steps "addq $256, %1\n\tsubq $1, %0\n\tjnz 1b\n\t" epilogue \
                 : "+r"(rounds), "+r"(from)                                                 \
                 :                                                                          \
                 : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3");                         \
  }
#define NIBBLE_AHEAD                                                             \
  "prefetcht1 8192(%1)\n\tprefetcht1 8192+64(%1)\n\tprefetcht1 8192+128(%1)\n\t" \
  "prefetcht1 8192+192(%1)\n\tprefetcht0 1024(%1)\n\tprefetcht0 1024+64(%1)\n\t" \
  "prefetcht0 1024+128(%1)\n\tprefetcht0 1024+192(%1)\n\t"
#define NIBBLE_STEPS_128                        \
  NIBBLE_READ_FOUR("movups", "%%xmm", 16, "0")  \
  NIBBLE_READ_FOUR("movups", "%%xmm", 16, "64") \
  NIBBLE_READ_FOUR("movups", "%%xmm", 16, "128") NIBBLE_READ_FOUR("movups", "%%xmm", 16, "192")
#define NIBBLE_STEPS_256 \
  NIBBLE_READ_FOUR("vmovups", "%%ymm", 32, "0") NIBBLE_READ_FOUR("vmovups", "%%ymm", 32, "128")
#define NIBBLE_STEPS_512 NIBBLE_READ_FOUR("vmovups", "%%zmm", 64, "0")
NIBBLE_READ(read_128, NIBBLE_STEPS_128, "", "")
NIBBLE_READ(read_128_ahead, NIBBLE_STEPS_128, NIBBLE_AHEAD, "")
NIBBLE_READ(read_256, NIBBLE_STEPS_256, "", "vzeroupper\n\t")
NIBBLE_READ(read_256_ahead, NIBBLE_STEPS_256, NIBBLE_AHEAD, "vzeroupper\n\t")
NIBBLE_READ(read_512, NIBBLE_STEPS_512, "", "vzeroupper\n\t")
NIBBLE_READ(read_512_ahead, NIBBLE_STEPS_512, NIBBLE_AHEAD, "vzeroupper\n\t")

// 128 bits, in which the result takes the place of a factor.
#define NIBBLE_SSE_INT8(v, sum, between)                                            \
  "movdqa " v "15, " v between "\n\tpmaddubsw " v "14, " v between "\n\tpmaddwd " v \
  "13, " v between "\n\tpaddd " v between ", " v sum "\n\t"
#define NIBBLE_SSE_INT8_16(v, sum, between)                                               \
  "movdqa " v "15, " v between "\n\tpmaddubsw " v "14, " v between "\n\tpaddw " v between \
  ", " v sum "\n\t"
#define NIBBLE_SSE_FP32(v, sum, between)                                                         \
  "movaps " v "15, " v between "\n\tmulps " v "14, " v between "\n\taddps " v between ", " v sum \
  "\n\t"
#define NIBBLE_SSE_LOAD(v, at) "movups 64*" at "(%1), " v at "\n\t"
#define NIBBLE_ZERO(v, sum) "pxor " v sum ", " v sum "\n\t"
#define NIBBLE_SSE_LOOP(name, steps)                                                             \
  void name(std::int64_t rounds) {                                                               \
    NIBBLE_ASM(NIBBLE_TWELVE(NIBBLE_ZERO, "%%xmm") "pxor %%xmm13, %%xmm13\n\t"                 \
                                                   "pxor %%xmm14, %%xmm14\n\t"                 \
                                                   "pxor %%xmm15, %%xmm15\n\t",                \
               steps, ""); \
  }
NIBBLE_SSE_LOOP(int8_128, NIBBLE_SIX_TWICE(NIBBLE_SSE_INT8, "%%xmm"))
NIBBLE_SSE_LOOP(int8_16_128, NIBBLE_SIX_TWICE(NIBBLE_SSE_INT8_16, "%%xmm"))
NIBBLE_SSE_LOOP(fp32_128, NIBBLE_SIX_TWICE(NIBBLE_SSE_FP32, "%%xmm"))
NIBBLE_SSE_LOOP(load_128, NIBBLE_TWELVE(NIBBLE_SSE_LOAD, "%%xmm"))

constexpr const char* classic = "vpmaddubsw + vpmaddwd + vpaddd";
constexpr const char* classic_16 = "vpmaddubsw + vpaddw";

constexpr peak_loops all[] = {
    {"sse42",
     {"pmaddubsw + pmaddwd + paddd", int8_128, 12 * 16},
     {"pmaddubsw + paddw", int8_16_128, 12 * 16},
     {"mulps + addps", fp32_128, 12 * 4},
     {"movups", load_128, 12 * 16},
     {read_128, read_128_ahead}},
    {"avx2",
     {classic, int8_256, 12 * 32},
     {classic_16, int8_16_256, 12 * 32},
     {"vfmadd231ps", fma_256, 12 * 8},
     {"vmovups", load_256, 12 * 32},
     {read_256, read_256_ahead}},
    {"avxvnni",
     {"vpdpbusd, 256 bits", vnni_256, 12 * 32},
     {"vpdpbusd, 256 bits", vnni_256, 12 * 32},
     {"vfmadd231ps", fma_256, 12 * 8},
     {"vmovups", load_256, 12 * 32},
     {read_256, read_256_ahead}},
    {"avx512",
     {"vpmaddubsw + vpmaddwd + vpaddd, 512 bits", int8_512, 12 * 64},
     {"vpmaddubsw + vpaddw, 512 bits", int8_16_512, 12 * 64},
     {"vfmadd231ps, 512 bits", fma_512, 12 * 16},
     {"vmovups, 512 bits", load_512, 12 * 64},
     {read_512, read_512_ahead}},
    {"avx512vnni",
     {"vpdpbusd, 512 bits", vnni_512, 12 * 64},
     {"vpdpbusd, 512 bits", vnni_512, 12 * 64},
     {"vfmadd231ps, 512 bits", fma_512, 12 * 16},
     {"vmovups, 512 bits", load_512, 12 * 64},
     {read_512, read_512_ahead}},
};

}  // namespace

const peak_loops& loops_of(std::string_view isa) {
  for (const peak_loops& loops : all) {
    if (loops.isa == isa) return loops;
  }
  return portable_loops();
}

}  // namespace bench

#endif
