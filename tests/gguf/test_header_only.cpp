// Files without tensor data: they open when that is asked for, and only then.
#include <catch.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>

#include "raw_file.hpp"
#include "temporary_folder.hpp"
#include "walk.hpp"

namespace {

using nibble::errc;
using test::blob;

constexpr nibble::gguf::open_options header_only{.header_only = true};

// 5 floats (20 bytes, 32 with padding), then two rows of q8_0 (68 bytes).
constexpr std::uint64_t data_bytes = 32 + 68;

nibble::gguf::writer two_tensors() {
  nibble::gguf::writer w;
  w.set("general.architecture", "llama");
  w.add_tensor("norm", nibble::format_id{0}, {{5, 1, 1, 1}},
               [](const auto& sink) { sink(blob(20, std::byte{1})); });
  w.add_tensor("matrix", nibble::format_id{8}, {{32, 2, 1, 1}},
               [](const auto& sink) { sink(blob(68, std::byte{2})); });
  return w;
}

std::string complaint(const blob& content, const nibble::gguf::open_options& options = {}) {
  const auto error = test::error_of([&] { nibble::gguf::file(content, "memory", options); });
  return error ? error->what() : "";
}

}  // namespace

TEST_CASE("the writer leaves data out, and such a file opens on purpose only") {
  const test::temporary_folder folder;
  nibble::gguf::writer w = two_tensors();
  w.add_tensor("never", nibble::format_id{0}, {{1, 1, 1, 1}},
               [](const auto&) { throw std::logic_error("a source was called"); });
  const auto path = w.write(folder / "h.gguf", {.header_only = true}).at(0);
  const auto refused = test::error_of([&] { nibble::gguf::file file(path); });
  REQUIRE(refused);
  CHECK(refused->code() == errc::bad_file);
  CHECK(test::says(refused->what(), "the header only"));

  const nibble::gguf::file file(path, header_only);
  CHECK_FALSE(file.has_data());
  // padded to 32 before the last tensor, which is four bytes
  CHECK(file.absent_bytes() == 32 + 96 + 4);
  REQUIRE(file.tensors().size() == 3);
  const auto& matrix = *file.find_tensor("matrix");
  CHECK(matrix.view.shape == nibble::shape{{32, 2, 1, 1}});
  CHECK(matrix.bytes == 68);
  CHECK(matrix.view.data == nullptr);
  CHECK(matrix.offset == std::filesystem::file_size(path) + 32);
  file.prefetch(matrix);  // nothing to do, and nothing behind the mapping is touched
  file.release(matrix);
  const auto error = test::error_of([&] { file.data(matrix); });
  REQUIRE(error);
  CHECK(error->code() == errc::invalid_argument);
  CHECK(error->tensor() == "matrix");
  CHECK(test::says(error->what(), "opened for its header only"));
}

TEST_CASE("a whole file opens for its header as well, but part of the data is damage") {
  const blob whole = two_tensors().to_bytes();
  const nibble::gguf::file with_data(whole, "memory");
  CHECK(with_data.has_data());
  CHECK(with_data.absent_bytes() == 0);
  const auto& norm = with_data.tensors()[0];
  CHECK(with_data.data(norm).size() == 20);
  CHECK(with_data.data(norm).data() == norm.view.data);
  const std::size_t header = norm.offset, end = header + data_bytes;

  const nibble::gguf::file without(whole, "memory", header_only);
  CHECK_FALSE(without.has_data());
  CHECK(without.absent_bytes() == 0);
  CHECK(without.tensors()[1].view.data == nullptr);

  for (std::size_t size = header + 1; size < end; ++size) {
    INFO("cut to " << size << " bytes");
    const blob cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    REQUIRE(test::says(complaint(cut, header_only), "cut off or damaged"));
    REQUIRE(complaint(cut) == complaint(cut, header_only));
  }
  for (std::size_t size = 0; size < header - 32; ++size) {
    const blob cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    REQUIRE(complaint(cut, header_only) != "");
  }
  const blob bare(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(header));
  CHECK(nibble::gguf::file(bare, "memory", header_only).absent_bytes() == data_bytes);
}

TEST_CASE("headers of split files") {
  const test::temporary_folder folder;
  const auto parts =
      two_tensors().write(folder / "s.gguf", {.max_part_bytes = 1, .header_only = true});
  REQUIRE(parts.size() == 2);
  const nibble::gguf::file file(parts[1], header_only);
  CHECK(file.tensors().size() == 2);
  CHECK(file.absent_bytes() == 20 + 68);
  CHECK(test::error_of([&] { nibble::gguf::file whole(parts[1]); }));
}

// No bytes of a file bound these sizes, so the sums themselves must not wrap.
TEST_CASE("sizes of absent data do not overflow") {
  const auto file_of = [](std::uint64_t first_extent, std::uint64_t second_offset) {
    blob content;
    test::put_header(content, 3, 2, 0);
    for (const std::uint64_t offset : {std::uint64_t{0}, second_offset}) {
      test::put_string(content, offset == 0 ? "a" : "b");
      test::put(content, std::uint32_t{1});
      test::put(content, first_extent);
      test::put(content, std::uint32_t{0});  // f32
      test::put(content, offset);
    }
    test::pad(content, 32);
    return content;
  };
  CHECK(complaint(file_of(8, 32), header_only) == "");
  CHECK(test::says(complaint(file_of(8, 64), header_only), "tensor 'b'", "end at 32"));
  const std::uint64_t most = (std::uint64_t{1} << 62) - 8;  // floats: 2^64 - 32 bytes
  CHECK(test::says(complaint(file_of(most, 1), header_only), "cut off or damaged"));
  const std::uint64_t half = std::uint64_t{1} << 61;  // floats: 2^63 bytes
  CHECK(test::says(complaint(file_of(half, half * 4), header_only), "tensor 'b'"));
  CHECK(test::says(complaint(file_of(std::uint64_t{1} << 62, 1), header_only), "2^64 bytes"));
}

TEST_CASE("changed bytes of a header never crash") {
  blob original = two_tensors().to_bytes();
  original.resize(nibble::gguf::file(original, "whole").tensors()[0].offset);
  std::mt19937 rng(2);
  int opened = 0;
  for (int round = 0; round < 6000; ++round) {
    blob changed = original;
    for (std::size_t i = 0; i < 1 + rng() % 3; ++i) {
      changed[rng() % changed.size()] = static_cast<std::byte>(rng());
    }
    const auto error = test::error_of([&] {
      const nibble::gguf::file file(changed, "damaged", header_only);
      ++opened;
      for (const auto& tensor : file.tensors()) {
        test::touch(tensor.name);
        file.prefetch(tensor);
        file.release(tensor);
        REQUIRE(tensor.view.data == nullptr);
      }
    });
    if (error) CHECK(error->file() == "damaged");
  }
  CHECK(opened > 100);
  CHECK(opened < 5700);
}
