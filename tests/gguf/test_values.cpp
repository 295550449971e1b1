// Every type of metadata through every type that a caller can ask for.
#include <catch.hpp>
#include <cmath>
#include <limits>
#include <nibble/gguf/writer.hpp>

#include "raw_file.hpp"

namespace {

using nibble::gguf::file;
using nibble::gguf::value;
using nibble::gguf::value_type;
using nibble::gguf::writer;

// Both the scalar and an array of one element, as T; they must agree. Empty: an error.
template <typename T>
std::optional<T> read(const file& f, bool array) {
  std::optional<T> out;
  const auto error = test::error_of([&] {
    if (array)
      out = f.get_array<T>("a")->at(0);
    else
      out = f.get<T>("s");
  });
  if (error) {
    CHECK(error->code() == nibble::errc::bad_file);
    CHECK(test::says(error->what(), "memory", "key '"));
  }
  return out;
}

template <typename To, typename From>
void check_integer(From from) {
  writer w;
  w.set("s", from);
  w.set_array("a", std::span<const From>(&from, 1));
  const auto bytes = w.to_bytes();
  const file f(bytes, "memory");
  for (const bool array : {false, true}) {
    const auto found = read<To>(f, array);
    CHECK(found.has_value() == std::in_range<To>(from));
    if (found) CHECK(std::cmp_equal(*found, from));
    CHECK_FALSE(read<float>(f, array));
    CHECK_FALSE(read<double>(f, array));
    CHECK_FALSE(read<bool>(f, array));
    CHECK_FALSE(read<std::string_view>(f, array));
  }
}

template <typename From>
void check_integers() {
  for (const From from :
       {From{0}, From{1}, std::numeric_limits<From>::min(), std::numeric_limits<From>::max()}) {
    INFO(+from);
    check_integer<std::int32_t>(from);
    check_integer<std::uint32_t>(from);
    check_integer<std::int64_t>(from);
    check_integer<std::uint64_t>(from);
  }
}

}  // namespace

TEST_CASE("integers convert where they fit, and to nothing else") {
  check_integers<std::uint8_t>();
  check_integers<std::int8_t>();
  check_integers<std::uint16_t>();
  check_integers<std::int16_t>();
  check_integers<std::uint32_t>();
  check_integers<std::int32_t>();
  check_integers<std::uint64_t>();
  check_integers<std::int64_t>();
}

TEST_CASE("floats convert to floats") {
  const auto through = [](auto from, bool array) {
    writer w;
    w.set("s", from);
    w.set_array("a", std::span<const decltype(from)>(&from, 1));
    const auto bytes = w.to_bytes();
    const file f(bytes, "memory");
    CHECK_FALSE(read<std::int32_t>(f, array));
    CHECK_FALSE(read<std::uint64_t>(f, array));
    CHECK_FALSE(read<bool>(f, array));
    return std::pair(read<float>(f, array), read<double>(f, array));
  };
  for (const bool array : {false, true}) {
    CHECK(through(0.1f, array) == std::pair(std::optional(0.1f), std::optional(double{0.1f})));
    CHECK(through(0.1, array) == std::pair(std::optional(0.1f), std::optional(0.1)));
    CHECK(through(1e300, array).first == std::nullopt);
    CHECK(through(-1e300, array).second == -1e300);
    CHECK(std::isinf(*through(std::numeric_limits<double>::infinity(), array).first));
    CHECK(std::isnan(*through(std::numeric_limits<double>::quiet_NaN(), array).first));
  }
}

TEST_CASE("bools, strings and arrays") {
  writer w;
  w.set("yes", true);
  w.set("no", false);
  w.set("text", std::string("a\0b", 3));
  const std::string strings[] = {"", "two", std::string(1000, 'x')};
  w.set_array("strings", std::span<const std::string>(strings));
  w.set_array("empty", std::span<const float>());
  const std::byte bools[] = {std::byte{1}, std::byte{0}};
  const auto inner = std::make_shared<const nibble::gguf::array_view>(
      nibble::gguf::array_view{value_type::boolean, 2, bools, {}, {}});
  w.set("bools", value{inner});
  w.set("nested", value{std::make_shared<const nibble::gguf::array_view>(nibble::gguf::array_view{
                      value_type::array, 2, {}, {}, {value{inner}, value{inner}}})});
  const auto bytes = w.to_bytes();
  const file f(bytes, "memory");

  CHECK(f.get<bool>("yes") == true);
  CHECK(f.get<bool>("no") == false);
  CHECK_FALSE(test::error_of([&] { f.get<bool>("yes"); }));
  CHECK(test::error_of([&] { f.get<std::int32_t>("yes"); }));
  CHECK(f.get<std::string_view>("text") == std::string_view("a\0b", 3));
  CHECK(f.get_array<std::string_view>("strings")->at(2) == strings[2]);
  CHECK(f.get_array<bool>("bools") == std::vector{true, false});
  CHECK(f.get_array<float>("empty")->empty());
  const auto& nested =
      std::get<std::shared_ptr<const nibble::gguf::array_view>>(f.find("nested")->data);
  REQUIRE(nested->arrays.size() == 2);
  CHECK(nested->arrays[1].type() == value_type::array);

  CHECK(f.get<bool>("absent") == std::nullopt);
  CHECK(f.get_array<bool>("absent") == std::nullopt);
  CHECK(f.find("absent") == nullptr);
  CHECK(f.find_tensor("absent") == nullptr);
  const auto missing = test::error_of([&] { f.require<float>("absent"); });
  REQUIRE(missing);
  CHECK(test::says(missing->what(), "'absent' is missing"));
  const auto scalar = test::error_of([&] { f.get_array<std::int32_t>("yes"); });
  REQUIRE(scalar);
  CHECK(test::says(scalar->what(), "it is bool, and must be array of i32"));
  const auto list = test::error_of([&] { f.get<std::int32_t>("strings"); });
  REQUIRE(list);
  CHECK(test::says(list->what(), "it is array of string, and must be i32"));
}

TEST_CASE("printable text has no control characters and an end") {
  using nibble::gguf::printable;
  CHECK(printable("a b\xc3\xa9\xc2\xa0") == "a b\xc3\xa9\xc2\xa0");
  CHECK(printable("\x1b\n\x7f") == "\\x1b\\x0a\\x7f");
  CHECK(printable("\xc2\x80\xc2\x9f!") == "\\xc2\\x80\\xc2\\x9f!");
  CHECK(printable("\xc2") == "\xc2");
  CHECK(printable("abc", 3) == "abc");
  CHECK(printable("ab\xc3\xa9", 3) == "ab...");
  CHECK(printable(std::string(1000, 'x')) == std::string(96, 'x') + "...");
}

TEST_CASE("the names and sizes of types") {
  CHECK(to_text(value_type::boolean) == "bool");
  CHECK(to_text(value_type::f64) == "f64");
  CHECK(to_text(value_type{13}) == "type 13");
  for (std::uint32_t type = 0; type < test::id::end; ++type) {
    CHECK(size_of(value_type{type}) == test::number_size(type));
  }
  CHECK(size_of(value_type{13}) == 0);
}
