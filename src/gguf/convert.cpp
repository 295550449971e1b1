#include "gguf/convert.hpp"

#include <cmath>
#include <concepts>
#include <cstring>
#include <limits>
#include <nibble/base/concat.hpp>
#include <type_traits>
#include <utility>

#include "gguf/cursor.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

template <typename T>
constexpr bool is_integer = std::is_integral_v<T> && !std::is_same_v<T, bool>;

// Whether From can become To at all, whatever its value.
template <typename To, typename From>
constexpr bool is_related = std::is_same_v<To, From> || (is_integer<To> && is_integer<From>) ||
                            (std::is_floating_point_v<To> && std::is_floating_point_v<From>);

// Empty if the value does not fit. A double is rounded to float, but a finite one stays finite.
template <typename To, typename From>
std::optional<To> fit(From from) {
  if constexpr (is_integer<To> && is_integer<From>) {
    if (!std::in_range<To>(from)) return std::nullopt;
  } else if constexpr (std::is_same_v<To, float> && std::is_same_v<From, double>) {
    if (std::isfinite(from) && std::abs(from) > double{std::numeric_limits<float>::max()}) {
      return std::nullopt;
    }
  }
  return static_cast<To>(from);
}

template <typename T>
constexpr const char* name_of() {
  if constexpr (std::is_same_v<T, bool>) return "bool";
  if constexpr (std::is_same_v<T, std::string_view>) return "string";
  if constexpr (std::is_same_v<T, float>) return "f32";
  if constexpr (std::is_same_v<T, double>) return "f64";
  if constexpr (std::is_same_v<T, std::int32_t>) return "i32";
  if constexpr (std::is_same_v<T, std::uint32_t>) return "u32";
  if constexpr (std::is_same_v<T, std::int64_t>) return "i64";
  if constexpr (std::is_same_v<T, std::uint64_t>) return "u64";
}

[[noreturn]] void fail(const key_value& kv, const std::string& file, const std::string& sentence) {
  throw error(errc::bad_file, concat("key '", printable(kv.key), "': ", sentence), {.file = file});
}

template <typename To, typename From>
To checked(From from, const key_value& kv, const std::string& file) {
  if (const auto result = fit<To>(from)) return *result;
  fail(kv, file, concat("the value ", +from, " does not fit ", name_of<To>()));
}

std::string describe(const value& v) {
  const auto* array = std::get_if<std::shared_ptr<const array_view>>(&v.data);
  return array ? concat("array of ", to_text((*array)->element)) : to_text(v.type());
}

// Calls f(From{}) with the C++ type of the numbers in an array.
template <typename Function>
void with_number_type(value_type type, Function&& f) {
  switch (type) {
    case value_type::u8:
      return f(std::uint8_t{});
    case value_type::i8:
      return f(std::int8_t{});
    case value_type::u16:
      return f(std::uint16_t{});
    case value_type::i16:
      return f(std::int16_t{});
    case value_type::u32:
      return f(std::uint32_t{});
    case value_type::i32:
      return f(std::int32_t{});
    case value_type::u64:
      return f(std::uint64_t{});
    case value_type::i64:
      return f(std::int64_t{});
    case value_type::f32:
      return f(float{});
    case value_type::f64:
      return f(double{});
    case value_type::boolean:
      return f(bool{});
    case value_type::string:
    case value_type::array:
      return;
  }
}

template <typename To, typename From>
std::vector<To> convert_numbers(const array_view& array, const key_value& kv,
                                const std::string& file) {
  std::vector<To> out;
  out.reserve(array.count);
  for (std::uint64_t i = 0; i < array.count; ++i) {
    From from;
    std::memcpy(&from, array.bytes.data() + i * sizeof(From), sizeof(From));
    out.push_back(checked<To>(from, kv, file));
  }
  return out;
}

}  // namespace

std::string to_text(value_type type) {
  constexpr const char* names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                   "bool", "string", "array", "u64", "i64", "f64"};
  const auto id = static_cast<std::uint32_t>(type);
  return id < std::size(names) ? names[id] : concat("type ", id);
}

template <typename T>
T convert(const key_value& kv, const std::string& file) {
  return std::visit(
      [&]<typename From>(const From& from) -> T {
        if constexpr (is_related<T, From>) {
          if constexpr (std::is_same_v<T, From>) {
            return from;
          } else {
            return checked<T>(from, kv, file);
          }
        } else {
          fail(kv, file, concat("it is ", describe(kv.value), ", and must be ", name_of<T>()));
        }
      },
      kv.value.data);
}

template <typename T>
std::vector<T> convert_array(const key_value& kv, const std::string& file) {
  const auto* held = std::get_if<std::shared_ptr<const array_view>>(&kv.value.data);
  std::optional<std::vector<T>> out;
  if (held) {
    const array_view& array = **held;
    if constexpr (std::is_same_v<T, std::string_view>) {
      if (array.element == value_type::string) out = array.strings;
    } else {
      with_number_type(array.element, [&]<typename From>(From) {
        if constexpr (is_related<T, From>) out = convert_numbers<T, From>(array, kv, file);
      });
    }
  }
  if (out) return std::move(*out);
  fail(kv, file, concat("it is ", describe(kv.value), ", and must be array of ", name_of<T>()));
}

#define NIBBLE_INSTANTIATE(T)                                  \
  template T convert<T>(const key_value&, const std::string&); \
  template std::vector<T> convert_array<T>(const key_value&, const std::string&);
NIBBLE_INSTANTIATE(bool)
NIBBLE_INSTANTIATE(std::int32_t)
NIBBLE_INSTANTIATE(std::uint32_t)
NIBBLE_INSTANTIATE(std::int64_t)
NIBBLE_INSTANTIATE(std::uint64_t)
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
NIBBLE_INSTANTIATE(std::string_view)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::inline NIBBLE_ABI::gguf
