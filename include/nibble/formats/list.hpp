// The list of weight formats. A new format is one struct in a header of its own and one line in
// `all_formats`; run-time dispatch, names, sizes, decoding and tests follow from that line.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/bf16.hpp>
#include <nibble/formats/concepts.hpp>
#include <nibble/formats/f16.hpp>
#include <nibble/formats/f32.hpp>
#include <nibble/formats/format_id.hpp>
#include <nibble/formats/iq4_nl.hpp>
#include <nibble/formats/iq4_xs.hpp>
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/q2_k.hpp>
#include <nibble/formats/q3_k.hpp>
#include <nibble/formats/q4_0.hpp>
#include <nibble/formats/q4_1.hpp>
#include <nibble/formats/q4_k.hpp>
#include <nibble/formats/q5_0.hpp>
#include <nibble/formats/q5_1.hpp>
#include <nibble/formats/q5_k.hpp>
#include <nibble/formats/q6_k.hpp>
#include <nibble/formats/q8_0.hpp>
#include <nibble/formats/tq1_0.hpp>
#include <nibble/formats/tq2_0.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

namespace nibble::inline NIBBLE_ABI {

template <typename... Ts>
struct type_list {
  static constexpr int size = sizeof...(Ts);
};

// clang-format off
using all_formats = type_list<
    formats::f32,
    formats::f16,
    formats::bf16,
    formats::q4_0,
    formats::q4_1,
    formats::q5_0,
    formats::q5_1,
    formats::q8_0,
    formats::q2_k,
    formats::q3_k,
    formats::q4_k,
    formats::q5_k,
    formats::q6_k,
    formats::iq4_nl,
    formats::iq4_xs,
    formats::mxfp4,
    formats::tq1_0,
    formats::tq2_0>;
// clang-format on

inline constexpr int format_count = all_formats::size;

template <weight_format F>
inline constexpr format_id id_of = format_id{F::gguf_id};

// What is known of a type of GGUF files without decoding it.
struct format_info {
  format_id id;
  std::string_view name;
  std::uint32_t block_size;  // values
  std::uint32_t block_bytes;
};

namespace detail {

template <typename... Fs>
constexpr auto make_format_infos(type_list<Fs...>) {
  static_assert(((element_format<Fs> || block_format<Fs>)&&...));
  return std::array{
      format_info{id_of<Fs>, Fs::name, Fs::block_size, sizeof(typename Fs::block)}...};
}

}  // namespace detail

// The facts of all_formats, in its order: format_index() is the position here.
inline constexpr std::array<format_info, format_count> format_infos =
    detail::make_format_infos(all_formats{});

// Types that GGUF files may hold and nibble does not compute with. Their sizes let a reader check
// the bounds of such tensors, their names let an error say what was found. Models that need such a
// tensor are refused when they are loaded.
// From the enumeration of the GGUF specification and its reference implementation's block sizes.
inline constexpr std::array foreign_format_infos{
    format_info{format_id{9}, "q8_1", 32, 36},      format_info{format_id{15}, "q8_k", 256, 292},
    format_info{format_id{16}, "iq2_xxs", 256, 66}, format_info{format_id{17}, "iq2_xs", 256, 74},
    format_info{format_id{18}, "iq3_xxs", 256, 98}, format_info{format_id{19}, "iq1_s", 256, 50},
    format_info{format_id{21}, "iq3_s", 256, 110},  format_info{format_id{22}, "iq2_s", 256, 82},
    format_info{format_id{24}, "i8", 1, 1},         format_info{format_id{25}, "i16", 1, 2},
    format_info{format_id{26}, "i32", 1, 4},        format_info{format_id{27}, "i64", 1, 8},
    format_info{format_id{28}, "f64", 1, 8},        format_info{format_id{29}, "iq1_m", 256, 56},
    format_info{format_id{40}, "nvfp4", 64, 36},    format_info{format_id{41}, "q1_0", 128, 18},
};

// Position of a format in all_formats: dense, for tables indexed by format.
constexpr std::optional<int> format_index(format_id id) {
  for (int i = 0; i < format_count; ++i) {
    if (format_infos[static_cast<std::size_t>(i)].id == id) return i;
  }
  return std::nullopt;
}

template <weight_format F>
inline constexpr int index_of = *format_index(id_of<F>);

// Whether nibble computes with this format.
constexpr bool has_format(format_id id) {
  return format_index(id).has_value();
}

// Null for ids that neither list has.
constexpr const format_info* find_format_info(format_id id) {
  if (const auto index = format_index(id)) return &format_infos[static_cast<std::size_t>(*index)];
  for (const format_info& info : foreign_format_infos) {
    if (info.id == id) return &info;
  }
  return nullptr;
}

// "q4_k"; foreign types by name too ("iq2_xxs"), others as "type 77".
inline std::string format_name(format_id id) {
  if (const format_info* info = find_format_info(id)) return std::string(info->name);
  return concat("type ", static_cast<std::uint32_t>(id));
}

// The format of nibble with this name (lower case); empty if there is none.
constexpr std::optional<format_id> find_format(std::string_view name) {
  for (const format_info& info : format_infos) {
    if (info.name == name) return info.id;
  }
  return std::nullopt;
}

// Every format's name, in the list's order: "f32, f16, ...".
inline std::string format_names() {
  std::string names;
  for (const format_info& info : format_infos) {
    if (!names.empty()) names += ", ";
    names += info.name;
  }
  return names;
}

// The error for a format that nibble does not have.
[[noreturn]] inline void throw_unsupported(format_id id, const error_context& where = {}) {
  throw error(errc::unsupported,
              concat("nibble has no weight format ", format_name(id), " (GGUF type ",
                     static_cast<std::uint32_t>(id), "); it has: ", format_names(), "."),
              where);
}

// Calls f(F{}) for every format of the list, in order.
template <typename Function>
constexpr void for_each_format(Function&& f) {
  [&f]<typename... Fs>(type_list<Fs...>) { (static_cast<void>(f(Fs{})), ...); }(all_formats{});
}

namespace detail {

template <typename Function, typename First, typename... Rest>
constexpr decltype(auto) dispatch(format_id id, Function& f, type_list<First, Rest...>) {
  if (id == id_of<First>) return f(First{});
  if constexpr (sizeof...(Rest) > 0) {
    return dispatch(id, f, type_list<Rest...>{});
  } else {
    throw_unsupported(id);
  }
}

}  // namespace detail

// Calls f(F{}), F the format with this id, and returns its result (the same type for every format).
//   with_format(id, []<typename F>(F) { return F::block_size; })
// Throws error: unsupported, naming the id, if nibble does not have the format.
template <typename Function>
constexpr decltype(auto) with_format(format_id id, Function&& f) {
  return detail::dispatch(id, f, all_formats{});
}

// Bytes of a row of n values; empty if n is not a multiple of the block size, the bytes do not fit
// 64 bits, or the id is unknown. Works for foreign types as well.
constexpr std::optional<std::uint64_t> checked_row_bytes(format_id id, std::uint64_t n) {
  const format_info* const info = find_format_info(id);
  if (info == nullptr || n % info->block_size != 0) return std::nullopt;
  return checked_mul(n / info->block_size, info->block_bytes);
}

// The same; throws error: unsupported (unknown id) or invalid_argument (n), saying which.
inline std::uint64_t row_bytes(format_id id, std::uint64_t n) {
  if (const auto bytes = checked_row_bytes(id, n)) return *bytes;
  const format_info* const info = find_format_info(id);
  if (info == nullptr) throw_unsupported(id);
  if (n % info->block_size != 0) {
    throw error(errc::invalid_argument,
                concat("a row of ", n, " values cannot be ", info->name,
                       ": its length must be a multiple of ", info->block_size, "."));
  }
  throw error(errc::invalid_argument, concat("a row of ", n, " values in ", info->name,
                                             " has more bytes than 64 bits can count."));
}

}  // namespace nibble::inline NIBBLE_ABI
