// How the numbers of keys and values are stored.
//
// A row is one head of one token. Types with scales hold integer codes: value = scale * code. They
// need rows of a multiple of 8 values, at most 512; the others take any length.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/formats/head_row.hpp>
#include <optional>
#include <string_view>

namespace nibble::inline NIBBLE_ABI {

enum class kv_type {
  f32,
  f16,
  bf16,
  q8_0,  // the codes and scales of the weight format: a scale for 32 values
  q4_0,
  q8,  // eight bits, one scale for the whole row
  q4   // four bits
};

struct kv_type_info {
  kv_type type;
  std::string_view name;
  int bits;             // of a value
  int values_of_scale;  // 0: there are no scales; whole_row: one scale a row
};

// In the order of the enumeration.
inline constexpr std::array<kv_type_info, 7> all_kv_types = {{
    {kv_type::f32, "f32", 32, 0},
    {kv_type::f16, "f16", 16, 0},
    {kv_type::bf16, "bf16", 16, 0},
    {kv_type::q8_0, "q8_0", 8, 32},
    {kv_type::q4_0, "q4_0", 4, 32},
    {kv_type::q8, "q8", 8, whole_row},
    {kv_type::q4, "q4", 4, whole_row},
}};

constexpr const kv_type_info& info_of(kv_type type) {
  return all_kv_types[static_cast<std::size_t>(type)];
}

constexpr bool has_scales(kv_type type) {
  return info_of(type).values_of_scale != 0;
}

// Whether rows of this many values can be stored; sums of products of longer ones with codes would
// not fit 32 bits.
inline constexpr std::int64_t longest_coded_row = 512;
constexpr bool fits(kv_type type, std::int64_t length) {
  return !has_scales(type) || (length % 8 == 0 && length <= longest_coded_row);
}

// Bytes of a row's codes, and of its scales (f16).
constexpr std::size_t code_bytes(kv_type type, std::int64_t length) {
  return static_cast<std::size_t>(length) * static_cast<std::size_t>(info_of(type).bits) / 8;
}
constexpr std::size_t scale_bytes(kv_type type, std::int64_t length) {
  if (!has_scales(type)) return 0;
  return 2 * static_cast<std::size_t>(row_scales(length, info_of(type).values_of_scale));
}
constexpr std::size_t row_bytes(kv_type type, std::int64_t length) {
  return code_bytes(type, length) + scale_bytes(type, length);
}

// By name; none if there is no such type.
constexpr std::optional<kv_type> find_kv_type(std::string_view name) {
  for (const kv_type_info& info : all_kv_types) {
    if (info.name == name) return info.type;
  }
  return std::nullopt;
}

}  // namespace nibble::inline NIBBLE_ABI
