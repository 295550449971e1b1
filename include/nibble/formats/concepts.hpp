// What a weight format states about itself. Everything else (decoding, row sizes, dot products,
// embedding lookup, GPU kernels, tests) is derived from these members.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/base/half.hpp>
#include <string_view>
#include <type_traits>

namespace nibble::inline NIBBLE_ABI {

// Blocks are read as they lie in the file, and GGUF files are little-endian.
static_assert(std::endian::native == std::endian::little, "nibble reads blocks in place");

// value = scale * code + offset, for all codes of one group.
struct affine {
  float scale;
  float offset;
};

// The facts common to all formats.
//   name        lower case, "q4_k"
//   gguf_id     the type number in a GGUF file
//   block_size  values in a block
//   block       the bytes of a block, laid out as in the file
template <typename F>
concept weight_format = requires {
  { F::name } -> std::convertible_to<std::string_view>;
  { F::gguf_id } -> std::convertible_to<std::uint32_t>;
  { F::block_size } -> std::convertible_to<int>;
  typename F::block;
}
&&std::is_empty_v<F>&& std::is_trivially_copyable_v<typename F::block>;

// One value a block: F32, F16, BF16.
template <typename F>
concept element_format = weight_format<F> && F::block_size == 1 &&
                         requires(typename F::block b, float x) {
  { F::value(b) } -> std::same_as<float>;
  { F::from(x) } -> std::same_as<typename F::block>;
};

// Integer codes in groups that share one {scale, offset}.
//   group_size          values in a group; divides block_size
//   has_offset          false: the offset is always 0, so a dot product needs no activation sums
//   min_code, max_code  the least and greatest code
//   codes(b, g, out)    writes the group_size codes of group g of block b
//   scale(b, g)         the affine map of that group; b: a block, or anything else that has those
//                       members of a block which hold scales
// Every product scale * code is exact in float for finite scales: the bits of a 16-bit float's
// mantissa, of an integer sub-scale and of a code add up to 24 at most. Hence a decoded value is
// rounded once at most (by the offset), whether or not the compiler fuses multiply and add. (Only
// MXFP4's greatest scales can overflow, to infinity.)
template <typename F>
concept block_format = weight_format<F> && F::block_size % F::group_size == 0 &&
                       alignof(typename F::block) <= 2 &&
                       requires(const typename F::block& b, int group, std::int8_t* out) {
  { F::has_offset } -> std::convertible_to<bool>;
  { F::min_code } -> std::convertible_to<int>;
  { F::max_code } -> std::convertible_to<int>;
  { F::codes(b, group, out) } -> std::same_as<void>;
  { F::scale(b, group) } -> std::same_as<affine>;
};

// A block format whose codes are looked up: code = table[index], 0 <= index < 16. Kernels with a
// byte shuffle take the indices and look up by themselves.
template <typename F>
concept table_format = block_format<F> &&
    std::same_as<decltype(F::table), const std::array<std::int8_t, 16>> &&
    requires(const typename F::block& b, int group, std::uint8_t* out) {
  { F::indices(b, group, out) } -> std::same_as<void>;
};

// A block format that can be made from block_size floats (host only). The floats must be finite;
// others give a valid block of unspecified values. importance: how much the squared error of each
// value counts, [block_size], finite and not negative; null means that all count alike.
template <typename F>
concept encodable_format = block_format<F> &&
    requires(const float* x, const float* importance, typename F::block& b) {
  { F::encode(x, importance, b) } -> std::same_as<void>;
};

}  // namespace nibble::inline NIBBLE_ABI
