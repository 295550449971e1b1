// Files that are read while a model runs: any bytes of them, and never others than those that were
// there when the file was opened.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nibble/gguf/writer.hpp>
#include <random>
#include <vector>

#include "catch.hpp"
#include "device/stream_file.hpp"
#include "errors.hpp"
#include "temporary_folder.hpp"

namespace {

using nibble::stream_file;

std::vector<char> some_bytes(std::size_t count) {
  std::vector<char> bytes(count);
  std::minstd_rand random(3);
  for (char& b : bytes) b = static_cast<char>(random() >> 8);
  return bytes;
}

void write(const std::filesystem::path& path, const std::vector<char>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

nibble::gguf::opened_part part_of(const std::filesystem::path& path) {
  const auto since = std::filesystem::last_write_time(path);
  const auto on_clock = std::chrono::file_clock::to_sys(since);
  return {
      path, std::filesystem::file_size(path),
      std::chrono::duration_cast<std::chrono::nanoseconds>(on_clock.time_since_epoch()).count()};
}

// Aligned, as direct reads want it.
class staging {
 public:
  explicit staging(std::size_t bytes)
      : bytes_(bytes), data_(static_cast<std::byte*>(std::aligned_alloc(4096, bytes))) {}
  ~staging() { std::free(data_); }
  staging(const staging&) = delete;
  staging& operator=(const staging&) = delete;
  std::span<std::byte> span() const { return {data_, bytes_}; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

void check_reads(const std::filesystem::path& path) {
  INFO(path);
  for (const std::size_t size : {1, 4095, 4096, 4097, 100'000, 200'704}) {
    const auto bytes = some_bytes(size);
    write(path, bytes);
    const stream_file file(part_of(path));
    const staging space(65536 + 8192);
    const auto same = [&](std::size_t at, std::size_t n) {
      return std::memcmp(file.read(at, n, space.span(), ""), bytes.data() + at, n) == 0;
    };
    CHECK(same(0, std::min<std::size_t>(size, 65536)));
    CHECK(same(size - 1, 1));
    std::minstd_rand random(static_cast<unsigned>(size));
    bool right = true;
    for (int i = 0; i < 200; ++i) {
      const std::size_t at = random() % size;
      const std::size_t n = 1 + random() % std::min<std::size_t>(size - at, 65536);
      right = right && same(at, n);
    }
    CHECK(right);
    test::check_error(
        test::thrown([&] { file.read(size, 1, space.span(), "blk.0.ffn_up.weight"); }),
        nibble::errc::invalid_argument, {"1 bytes", path.string(), "ffn_up"});
  }
}

}  // namespace

TEST_CASE("any bytes of a file are read, with the system's cache and without") {
  const test::temporary_folder folder;
  check_reads(folder / "weights");
  // a file system in memory, which has no direct reads (before Linux 6.6)
  if (!std::filesystem::is_directory("/dev/shm")) return;
  const std::string name = "/dev/shm/nibble-test-" + std::to_string(std::random_device{}());
  check_reads(name);
  std::filesystem::remove(name);
}

TEST_CASE("a file that has changed is not read") {
  const test::temporary_folder folder;
  const auto path = folder / "weights";
  const auto bytes = some_bytes(20'000);
  write(path, bytes);
  const auto part = part_of(path);
  const auto since = std::filesystem::last_write_time(path);
  const stream_file file(part);
  const staging space(32768);
  const auto failure = [&] {
    return test::thrown([&] { file.read(9000, 5000, space.span(), "a matrix"); });
  };
  std::filesystem::resize_file(path, 10'000);
  CHECK(failure().offset() == 9000u);
  CHECK(failure().file() == path.string());
  CHECK(failure().tensor() == "a matrix");
  test::check_error(failure(), nibble::errc::io,
                    {path.string(), "had 20000 bytes", "has 10000", "a matrix"});
  test::check_error(test::thrown([&] { stream_file{part}; }), nibble::errc::io, {"10000"});

  write(path, bytes);
  std::filesystem::last_write_time(path, since + std::chrono::seconds(1));
  test::check_error(failure(), nibble::errc::io, {"was written to"});
  std::filesystem::last_write_time(path, since);
  CHECK(std::memcmp(file.read(9000, 5000, space.span(), ""), bytes.data() + 9000, 5000) == 0);

  // whose name another file has now is still there
  std::filesystem::rename(path, folder / "old");
  write(path, some_bytes(5));
  CHECK(std::memcmp(file.read(0, 5000, space.span(), ""), bytes.data(), 5000) == 0);
  std::filesystem::remove(path);
  test::check_error(test::thrown([&] { stream_file{part}; }), nibble::errc::io,
                    {path.string(), "cannot be opened"});
}

TEST_CASE("a file knows its parts as they were opened") {
  const test::temporary_folder folder;
  nibble::gguf::writer writer;
  writer.set("general.architecture", "none");
  writer.write(folder / "a.gguf");
  const nibble::gguf::file file(folder / "a.gguf");
  const auto part = file.opened(0), expected = part_of(folder / "a.gguf");
  CHECK(part.path == expected.path);
  CHECK(part.bytes == expected.bytes);
  CHECK(part.modified == expected.modified);
  test::check_error(test::thrown([&] { (void)file.opened(1); }), nibble::errc::invalid_argument,
                    {"part 1", "there are 1"});
  const auto bytes = writer.to_bytes();
  const nibble::gguf::file in_memory(bytes, "b.gguf");
  test::check_error(test::thrown([&] { (void)in_memory.opened(0); }),
                    nibble::errc::invalid_argument, {"b.gguf", "in memory"});
}
