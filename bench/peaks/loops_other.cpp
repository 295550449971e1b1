// The loops of 64-bit ARM, and of processors that have none of their own.
#include "peaks/loops.hpp"

#if !defined(__x86_64__)

namespace bench {

#if defined(__aarch64__)
namespace {

alignas(64) constinit unsigned char buffer[4096] = {};

#define NIBBLE_LOOP(name, extension, steps)                                                     \
  void name(std::int64_t rounds) {                                                              \
    asm volatile(extension "movi v28.16b, #0\n\tmovi v29.16b, #0\n\t" NIBBLE_TWELVE(            \
                     NIBBLE_ZERO) "1:\n\t" steps                                                \
                                  "subs %0, %0, #1\n\t"                                         \
                                  "b.ne 1b\n\t"                                                 \
                 : "+r"(rounds)                                                                 \
                 : "r"(buffer)                                                                  \
                 : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9",  \
                   "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", \
                   "v21", "v22", "v23", "v28", "v29");                                          \
  }
#define NIBBLE_PAIRS(step)                                                                        \
  step("0", "12") step("1", "13") step("2", "14") step("3", "15") step("4", "16") step("5", "17") \
      step("6", "18") step("7", "19") step("8", "20") step("9", "21") step("10", "22")            \
          step("11", "23")
#define NIBBLE_TWELVE(step)                                                                 \
  step("0") step("1") step("2") step("3") step("4") step("5") step("6") step("7") step("8") \
      step("9") step("10") step("11")
#define NIBBLE_ZERO(sum) "movi v" sum ".16b, #0\n\t"
#define NIBBLE_INT8(sum, between) \
  "smull v" between               \
  ".8h, v28.8b, v29.8b\n\t"       \
  "smlal2 v" between              \
  ".8h, v28.16b, v29.16b\n\t"     \
  "sadalp v" sum ".4s, v" between ".8h\n\t"
#define NIBBLE_INT8_16(sum) \
  "smlal v" sum             \
  ".8h, v28.8b, v29.8b\n\t" \
  "smlal2 v" sum ".8h, v28.16b, v29.16b\n\t"
#define NIBBLE_SDOT(sum) "sdot v" sum ".4s, v28.16b, v29.16b\n\t"
#define NIBBLE_FMLA(sum) "fmla v" sum ".4s, v28.4s, v29.4s\n\t"
#define NIBBLE_LOAD(at) "ldr q" at ", [%1, #(64 * " at ")]\n\t"

NIBBLE_LOOP(int8, "", NIBBLE_PAIRS(NIBBLE_INT8))
NIBBLE_LOOP(int8_16, "", NIBBLE_TWELVE(NIBBLE_INT8_16))
NIBBLE_LOOP(sdot, ".arch armv8.2-a+dotprod\n\t", NIBBLE_TWELVE(NIBBLE_SDOT))
NIBBLE_LOOP(fmla, "", NIBBLE_TWELVE(NIBBLE_FMLA))
NIBBLE_LOOP(load, "", NIBBLE_TWELVE(NIBBLE_LOAD))

void read_128(const void* from, std::size_t bytes) {
  std::size_t rounds = bytes / 128;
  asm volatile(
      "1:\n\t"
      "ldp q0, q1, [%1]\n\tldp q2, q3, [%1, #32]\n\t"
      "ldp q4, q5, [%1, #64]\n\tldp q6, q7, [%1, #96]\n\t"
      "add %1, %1, #128\n\tsubs %0, %0, #1\n\tb.ne 1b\n\t"
      : "+r"(rounds), "+r"(from)
      :
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7");
}

constexpr peak_loops all[] = {
    {"neon",
     {"smull + smlal2 + sadalp", int8, 12 * 16},
     {"smlal + smlal2", int8_16, 12 * 16},
     {"fmla", fmla, 12 * 4},
     {"ldr", load, 12 * 16},
     {read_128, nullptr}},
    {"neon_dotprod",
     {"sdot", sdot, 12 * 16},
     {"sdot", sdot, 12 * 16},
     {"fmla", fmla, 12 * 4},
     {"ldr", load, 12 * 16},
     {read_128, nullptr}},
};

}  // namespace

const peak_loops& loops_of(std::string_view isa) {
  for (const peak_loops& loops : all) {
    if (loops.isa == isa) return loops;
  }
  return portable_loops();
}

#else

const peak_loops& loops_of(std::string_view) {
  return portable_loops();
}

#endif

}  // namespace bench

#endif
