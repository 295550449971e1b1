// Block sizes, until formats/list.hpp states them.
#pragma once

#include <cstdint>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/formats/format_id.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace nibble::inline NIBBLE_ABI {

struct format_info {
  format_id id;
  std::string_view name;
  std::uint32_t block_size;
  std::uint32_t block_bytes;
};
inline constexpr format_info format_infos[] = {
    {format_id{0}, "f32", 1, 4},       {format_id{1}, "f16", 1, 2},
    {format_id{2}, "q4_0", 32, 18},    {format_id{3}, "q4_1", 32, 20},
    {format_id{6}, "q5_0", 32, 22},    {format_id{7}, "q5_1", 32, 24},
    {format_id{8}, "q8_0", 32, 34},    {format_id{10}, "q2_k", 256, 84},
    {format_id{11}, "q3_k", 256, 110}, {format_id{12}, "q4_k", 256, 144},
    {format_id{13}, "q5_k", 256, 176}, {format_id{14}, "q6_k", 256, 210},
    {format_id{20}, "iq4_nl", 32, 18}, {format_id{23}, "iq4_xs", 256, 136},
    {format_id{30}, "bf16", 1, 2},     {format_id{34}, "tq1_0", 256, 54},
    {format_id{35}, "tq2_0", 256, 66}, {format_id{39}, "mxfp4", 32, 17},
};
constexpr const format_info* find_format_info(format_id id) {
  for (const format_info& info : format_infos) {
    if (info.id == id) return &info;
  }
  return nullptr;
}
constexpr bool has_format(format_id id) {
  return find_format_info(id) != nullptr;
}
inline std::string format_name(format_id id) {
  if (const format_info* info = find_format_info(id)) return std::string(info->name);
  return concat("type ", static_cast<std::uint32_t>(id));
}
inline std::string format_names() {
  std::string names;
  for (const format_info& info : format_infos) {
    if (!names.empty()) names += ", ";
    names += info.name;
  }
  return names;
}
constexpr std::optional<std::uint64_t> checked_row_bytes(format_id id, std::uint64_t n) {
  const format_info* const info = find_format_info(id);
  if (info == nullptr || n % info->block_size != 0) return std::nullopt;
  return checked_mul(n / info->block_size, info->block_bytes);
}

}  // namespace nibble::inline NIBBLE_ABI
