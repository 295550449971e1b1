// Files that were cut off, changed or made to hurt: an error or a usable file, never a crash. The
// sanitizers of the preset `dev` are what looks on.
#include <sys/stat.h>

#include <catch.hpp>
#include <iostream>
#include <nibble/gguf/writer.hpp>

#include "gguf/mapping.hpp"
#include "raw_file.hpp"
#include "temporary_folder.hpp"
#include "test_data.hpp"
#include "walk.hpp"

namespace {

using test::blob;

// Opens a copy of exactly these bytes, so that reading beyond them is caught.
bool opens(const std::byte* begin, std::size_t size) {
  const blob copy(begin, begin + size);
  bool opened = false;
  const auto error = test::error_of([&] {
    const nibble::gguf::file file(copy, "damaged");
    opened = true;
    test::walk(file);
  });
  return opened && !error;
}

blob small_file() {
  nibble::gguf::writer w;
  const std::string strings[] = {"<s>", "</s>", ""};
  const float scores[] = {0, -1, -2};
  w.set("general.architecture", "llama");
  w.set("flag", true);
  w.set("count", std::uint16_t{3});
  w.set_array("tokens", std::span<const std::string>(strings));
  w.set_array("scores", std::span<const float>(scores));
  const auto pair = std::make_shared<const nibble::gguf::array_view>(nibble::gguf::array_view{
      nibble::gguf::value_type::f32, 3, std::as_bytes(std::span(scores)), {}, {}});
  w.set(
      "nested",
      nibble::gguf::value{std::make_shared<const nibble::gguf::array_view>(nibble::gguf::array_view{
          nibble::gguf::value_type::array, 1, {}, {}, {nibble::gguf::value{pair}}})});
  const blob data(2 * 34);
  w.add_tensor("norm", nibble::format_id{0}, {{3, 1, 1, 1}}, std::as_bytes(std::span(scores)));
  w.add_tensor("matrix", nibble::format_id{8}, {{32, 2, 1, 1}}, data);
  return w.to_bytes();
}

// Bytes from the beginning to the end of the last tensor's data, and of the header alone.
std::pair<std::size_t, std::size_t> extents(const blob& content) {
  const nibble::gguf::file file(content, "whole");
  const auto& tensors = file.tensors();
  return {tensors.back().offset + tensors.back().bytes, tensors.front().offset};
}

void check_prefixes(const blob& content, std::size_t step) {
  const auto [end, header] = extents(content);
  for (std::size_t size = 0; size < header; size += step) {
    INFO("cut to " << size << " bytes");
    REQUIRE_FALSE(opens(content.data(), size));
  }
  for (const std::size_t size : {header, header + 1, end - 1}) {
    REQUIRE_FALSE(opens(content.data(), size));
  }
  CHECK(opens(content.data(), end));
}

}  // namespace

TEST_CASE("a file cut off anywhere is refused") {
  check_prefixes(small_file(), 1);
}

TEST_CASE("a real file cut off anywhere in its header is refused") {
  const auto path = test::data("models/stories260K-q4_0.gguf");
  if (!path) return;
  check_prefixes(test::load(*path), 1);
}

TEST_CASE("changed bytes never crash") {
  const blob original = small_file();
  std::mt19937 rng(1);
  int opened = 0;
  for (int round = 0; round < 6000; ++round) {
    blob changed = original;
    const std::size_t changes = 1 + rng() % 3;
    for (std::size_t i = 0; i < changes; ++i) {
      changed[rng() % changed.size()] = static_cast<std::byte>(rng());
    }
    opened += opens(changed.data(), changed.size());
  }
  // both happen, or the test looks at nothing
  CHECK(opened > 100);
  CHECK(opened < 5700);
}

TEST_CASE("numbers at the edge in every field never crash") {
  const blob original = small_file();
  const auto [end, header] = extents(original);
  for (const std::uint64_t number :
       {std::uint64_t{0}, std::uint64_t{1} << 31, std::uint64_t{1} << 32, std::uint64_t{1} << 60,
        std::uint64_t{1} << 61, std::uint64_t{1} << 63, (std::uint64_t{1} << 63) - 1,
        ~std::uint64_t{0}, ~std::uint64_t{0} - 31}) {
    for (std::size_t at = 0; at + 8 <= header; ++at) {
      blob changed = original;
      std::memcpy(changed.data() + at, &number, 8);
      opens(changed.data(), changed.size());
    }
  }
}

TEST_CASE("hostile metadata is refused before it costs memory") {
  const auto complaint = [](const blob& content) {
    const auto error = test::error_of([&] { nibble::gguf::file file(content, "memory"); });
    return error ? std::string(error->what()) : "";
  };
  blob content;
  test::put_header(content, 3, 0, 1);
  test::put_string(content, "k");
  test::put(content, std::uint32_t{test::id::array});

  SECTION("an array of 2^60 strings") {
    test::put(content, std::uint32_t{test::id::string});
    test::put(content, std::uint64_t{1} << 60);
    CHECK(test::says(complaint(content), "1152921504606846976 strings", "key 'k'"));
  }
  SECTION("an array whose bytes wrap around") {
    test::put(content, std::uint32_t{test::id::f64});
    test::put(content, (std::uint64_t{1} << 61) + 1);
    CHECK(test::says(complaint(content), "2305843009213693953 array elements"));
  }
  SECTION("nesting without end") {
    for (int i = 0; i < 100000; ++i) {
      test::put(content, std::uint32_t{test::id::array});
      test::put(content, std::uint64_t{1});
    }
    CHECK(test::says(complaint(content), "nested more than 4 deep"));
  }
  SECTION("very many nested arrays") {
    test::put(content, std::uint32_t{test::id::array});
    test::put(content, std::uint64_t{100000});
    for (int i = 0; i < 100000; ++i) {
      test::put(content, std::uint32_t{test::id::u8});
      test::put(content, std::uint64_t{0});
    }
    CHECK(test::says(complaint(content), "more than 65536 nested arrays"));
  }
  SECTION("a bool of 2") {
    test::put(content, std::uint32_t{test::id::boolean});
    test::put(content, std::uint64_t{2});
    test::put(content, std::uint8_t{1});
    test::put(content, std::uint8_t{2});
    CHECK(test::says(complaint(content), "a bool has the value 2", "at byte 50"));
  }
  SECTION("control characters in names stay out of messages") {
    blob strange;
    test::put_header(strange, 3, 0, 1);
    test::put_string(strange, "\x1b[31m\n");
    test::put(strange, std::uint32_t{99});
    CHECK(test::says(complaint(strange), "\\x1b[31m\\x0a", "value type 99"));
  }
}

TEST_CASE("the header's limit of 64 MiB") {
  blob content;
  test::put_header(content, 3, 0, 1);
  test::put_string(content, "k");
  test::put(content, std::uint32_t{test::id::string});
  test::put(content, std::uint64_t{80} << 20);
  content.resize(content.size() + (80u << 20));
  const auto error = test::error_of([&] { nibble::gguf::file file(content, "memory"); });
  REQUIRE(error);
  CHECK(test::says(error->what(), "key 'k'", "at most 67108864"));
}

TEST_CASE("what is no GGUF file at all") {
  const test::temporary_folder folder;
  const auto complaint = [](const std::filesystem::path& path) {
    const auto error = test::error_of([&] { nibble::gguf::file file(path); });
    return error ? std::string(error->what()) : "";
  };
  CHECK(test::says(complaint(folder / "absent"), "absent", "opened"));
  CHECK(test::says(complaint(folder.path()), "not a regular file"));
  const auto pipe = folder.path() / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);  // nobody writes to it
  CHECK(test::says(complaint(pipe), "not a regular file"));
  test::save({}, folder / "empty");
  CHECK(test::says(complaint(folder / "empty"), "the file has 0 left"));
  blob big_endian;
  test::put_raw(big_endian, "GGUF");
  test::put(big_endian, std::uint32_t{0x03000000});
  test::save(big_endian, folder / "big");
  CHECK(test::says(complaint(folder / "big"), "big-endian"));
}

TEST_CASE("advice to the system leaves the data as it is") {
  const test::temporary_folder folder;
  blob data(100000);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7);
  nibble::gguf::writer w;
  w.add_tensor("a", nibble::format_id{1}, {{3, 1, 1, 1}}, std::span(data).first(6));
  w.add_tensor("b", nibble::format_id{1}, {{50000, 1, 1, 1}}, data);
  nibble::gguf::file file(w.write(folder / "x.gguf")[0]);
  const nibble::gguf::file moved = std::move(file);
  for (const auto& tensor : moved.tensors()) {
    moved.prefetch(tensor);
    moved.release(tensor);
  }
  const auto& b = *moved.find_tensor("b");
  CHECK(std::equal(data.begin(), data.end(), b.view.data));
}
