// The bounds that a GGUF file must keep, for reader and writer alike. Those of the specification
// are marked; the others keep a hostile file from costing more than it is worth.
#pragma once

#include <cstdint>
#include <nibble/base/bytes.hpp>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI::gguf {

inline constexpr std::uint32_t magic = 0x46554747;  // "GGUF" in file order
inline constexpr std::uint32_t newest_version = 3;
inline constexpr std::uint64_t default_alignment = 32;           // specification
inline constexpr std::uint64_t max_key_bytes = 65535;            // specification
inline constexpr std::uint64_t max_tensor_name_bytes = 64;       // specification
inline constexpr std::uint32_t max_dimensions = 4;               // specification
inline constexpr std::uint64_t max_elements = (1ull << 63) - 1;  // of a tensor
inline constexpr std::uint64_t max_alignment = 1ull << 20;
inline constexpr std::uint64_t max_header_bytes = 64ull << 20;  // everything before the data
inline constexpr int max_array_depth = 4;
// a nested array costs some 150 bytes of memory for its 12 in the file
inline constexpr std::uint64_t max_nested_arrays = 65536;
inline constexpr std::uint64_t max_parts = 65535;  // split.count is a u16

// The least room that one entry can take, by which counts are bounded before anything is allocated.
inline constexpr std::uint64_t min_key_value_bytes = 8 + 1 + 4 + 1;       // key, type, u8
inline constexpr std::uint64_t min_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;  // one dimension
inline constexpr std::uint64_t min_string_bytes = 8;
inline constexpr std::uint64_t min_array_bytes = 4 + 8;

// Keys that say something about the file itself.
inline constexpr const char* alignment_key = "general.alignment";
inline constexpr const char* split_no_key = "split.no";
inline constexpr const char* split_count_key = "split.count";
inline constexpr const char* split_tensors_key = "split.tensors.count";

}  // namespace nibble::inline NIBBLE_ABI::gguf
