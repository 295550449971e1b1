// Comparing all instruction sets of this machine with each other, kernel by kernel, and counting
// what was compared.
#pragma once

#include <bit>
#include <cfloat>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <tuple>

#include "references.hpp"

namespace test {

// One member of cpu::kernel_table: functions by format, or functions that do not depend on it.
struct kernel_slot {
  std::string_view name;
  std::size_t offset, size;
  bool by_format;

  std::size_t functions() const { return size / sizeof(void (*)()); }
  // The name of function i where there are several: "gate[2]".
  std::string function_name(std::size_t i) const {
    return functions() == 1 ? std::string(name) : std::string(name) + "[" + std::to_string(i) + "]";
  }
};

#define NIBBLE_KERNEL_SLOT(member, by_format)                \
  kernel_slot {                                              \
#member, offsetof(nibble::cpu::kernel_table, member),    \
        sizeof(nibble::cpu::kernel_table::member), by_format \
  }
inline constexpr kernel_slot kernel_slots[] = {
    NIBBLE_KERNEL_SLOT(matmul_q8, true),   NIBBLE_KERNEL_SLOT(matmul_f32, true),
    NIBBLE_KERNEL_SLOT(decode, true),      NIBBLE_KERNEL_SLOT(pack, true),
    NIBBLE_KERNEL_SLOT(unpack_row, true),  NIBBLE_KERNEL_SLOT(quantise_q8, false),
    NIBBLE_KERNEL_SLOT(rms_norm, false),   NIBBLE_KERNEL_SLOT(rope_norm, false),
    NIBBLE_KERNEL_SLOT(rope_neox, false),  NIBBLE_KERNEL_SLOT(gate, false),
    NIBBLE_KERNEL_SLOT(add_scaled, false), NIBBLE_KERNEL_SLOT(store_row, false),
    NIBBLE_KERNEL_SLOT(load_row, false),   NIBBLE_KERNEL_SLOT(hadamard, false),
    NIBBLE_KERNEL_SLOT(attend, false),     NIBBLE_KERNEL_SLOT(join_segments, false),
};
#undef NIBBLE_KERNEL_SLOT

// Whether the slots are all of the table that comes after its name and the rows of a strip: nothing
// between or after them.
constexpr bool slots_cover_table() {
  std::size_t at = offsetof(nibble::cpu::kernel_table, matmul_q8);
  for (const kernel_slot& slot : kernel_slots) {
    if (slot.offset != at) return false;
    at += slot.size;
  }
  return at == sizeof(nibble::cpu::kernel_table);
}
static_assert(slots_cover_table(), "a kernel is missing in kernel_slots and in the tests");

// Whether there is a kernel for a format: only integer codes are packed and multiplied by int8.
template <typename F>
constexpr bool has_kernel(const kernel_slot& slot) {
  return nibble::block_format<F> || slot.name == "matmul_f32" || slot.name == "decode";
}

// Kernel, format ("" where there is none) and instruction set.
using combination = std::tuple<std::string, std::string, std::string>;

// What there is to compare, by the lists alone.
inline std::set<combination> all_combinations() {
  std::set<combination> all;
  for (const nibble::cpu::kernel_table* table : tables()) {
    for (const kernel_slot& slot : kernel_slots) {
      if (slot.by_format) {
        nibble::for_each_format([&]<typename F>(F) {
          if (has_kernel<F>(slot)) all.emplace(slot.name, F::name, table->isa);
        });
      } else {
        for (std::size_t i = 0; i < slot.functions(); ++i) {
          all.emplace(slot.function_name(i), "", table->isa);
        }
      }
    }
  }
  return all;
}

// How far instruction sets agree.
enum class agreement {
  exact,      // integers, or one order of operations, none of them fused: the same bits
  by_fusing,  // one order of operations: the same bits where mul_add rounds as often
  bounded,    // the order of additions depends on the width of a vector, or exp is another one
};

inline bool same_bits(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

// Both not a number, or the same infinity, or both finite.
inline bool same_kind(float a, float b) {
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return std::isnan(a) == std::isnan(b);
}

inline bool agrees(float got, const expectation& e) {
  if (std::isnan(e.value)) return std::isnan(got);
  if (std::fabs(e.value) > double{FLT_MAX}) {
    return std::isinf(got) && std::signbit(got) == std::signbit(e.value);
  }
  return std::fabs(got - e.value) <= e.tolerance;
}

class differential {
 public:
  differential() : tables_(tables()) {}

  // run(table) gives a kernel's results on one instruction set. They must agree with what is
  // expected, unless that is empty, and with each other: as far as `how` says, and in being finite.
  template <typename Run>
  void compare(std::string_view kernel, std::string_view format, agreement how,
               const std::vector<expectation>& expected, Run run) {
    const auto* const last = tables_.back();
    const std::vector<float> reference = run(*last);
    REQUIRE((expected.empty() || expected.size() == reference.size()));
    std::vector<float> fused;  // of the first table that fuses
    for (const nibble::cpu::kernel_table* table : tables_) {
      INFO(kernel << " " << format << " on " << table->isa);
      const std::vector<float> got = table == last ? reference : run(*table);
      REQUIRE(got.size() == reference.size());
      if (fuses(*table) && fused.empty()) fused = got;
      const auto& like = fuses(*table) && how == agreement::by_fusing ? fused : reference;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double wanted = expected.empty() ? 0 : expected[i].value;
        const bool fine = (expected.empty() || agrees(got[i], expected[i])) &&
                          same_kind(got[i], reference[i]) &&
                          (how == agreement::bounded || same_bits(got[i], like[i]));
        if (!fine) {
          INFO("result " << i << ": " << got[i] << ", wanted " << wanted << "; scalar "
                         << reference[i] << "; to be the same " << like[i]);
          REQUIRE(fine);
        }
      }
      tested_.emplace(kernel, format, table->isa);
    }
  }

  const std::set<combination>& tested() const { return tested_; }

 private:
  // Whether a * b + c is rounded once: (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24 then, and 0 if the
  // product is rounded.
  static bool fuses(const nibble::cpu::kernel_table& table) {
    const float x = 1 + 0x1p-12f;
    float out = -(1 + 0x1p-11f);
    table.add_scaled(&x, x, 1, &out);
    return out != 0;
  }

  std::vector<const nibble::cpu::kernel_table*> tables_;
  std::set<combination> tested_;
};

}  // namespace test
