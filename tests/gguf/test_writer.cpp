#include <sys/resource.h>

#include <algorithm>
#include <catch.hpp>
#include <csignal>
#include <nibble/base/concat.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>

#include "gguf/encode.hpp"
#include "raw_file.hpp"
#include "temporary_folder.hpp"
#include "walk.hpp"

namespace {

using nibble::errc;
using nibble::format_id;
using nibble::gguf::value;
using nibble::gguf::writer;
using test::blob;

constexpr format_id f32{0};

struct random_tensor {
  std::string name;
  nibble::format_info format;
  nibble::shape shape;
  blob data;
};

std::vector<random_tensor> random_tensors(std::mt19937& rng, std::size_t count) {
  std::vector<random_tensor> out;
  for (std::size_t i = 0; i < count; ++i) {
    random_tensor t{.name = nibble::concat("t", i),
                    .format = nibble::format_infos[rng() % nibble::format_infos.size()],
                    .shape = {},
                    .data = {}};
    t.shape.extent[0] = (1 + rng() % 3) * t.format.block_size;
    for (std::size_t d = 1; d < 1 + rng() % 4; ++d) t.shape.extent[d] = rng() % 5;
    const auto size = nibble::row_bytes(t.format.id, t.shape.columns()) * t.shape.rows();
    for (std::uint64_t k = 0; k < size; ++k) t.data.push_back(static_cast<std::byte>(rng()));
    out.push_back(std::move(t));
  }
  return out;
}

// Half of them from memory, half as a stream in uneven pieces.
void add(writer& w, const std::vector<random_tensor>& tensors) {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const random_tensor& t = tensors[i];
    if (i % 2 == 0) {
      w.add_tensor(t.name, t.format.id, t.shape, t.data);
      continue;
    }
    w.add_tensor(t.name, t.format.id, t.shape, [&t](const nibble::gguf::byte_sink& sink) {
      const std::size_t first = t.data.size() / 3;
      sink(std::span(t.data).first(first));
      sink(std::span(t.data).subspan(first));
    });
  }
}

void check_tensors(const nibble::gguf::file& file, const std::vector<random_tensor>& expected) {
  REQUIRE(file.tensors().size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const nibble::gguf::tensor_info& found = file.tensors()[i];
    CHECK(found.name == expected[i].name);
    CHECK(found.view.format == expected[i].format.id);
    CHECK(found.view.shape == expected[i].shape);
    REQUIRE(found.bytes == expected[i].data.size());
    CHECK(std::equal(expected[i].data.begin(), expected[i].data.end(), found.view.data));
    CHECK(file.find_tensor(expected[i].name) == &found);
  }
}

void set_metadata(writer& w) {
  w.set("general.architecture", "llama");
  w.set("llama.block_count", std::uint32_t{2});
}

}  // namespace

TEST_CASE("the writer's bytes are those of the specification") {
  blob expected;
  test::put_header(expected, 3, 1, 3);
  test::put_string(expected, "general.name");
  test::put(expected, std::uint32_t{test::id::string});
  test::put_string(expected, "tiny");
  test::put_string(expected, "n");
  test::put(expected, std::uint32_t{test::id::array});
  test::put(expected, std::uint32_t{test::id::i16});
  test::put(expected, std::uint64_t{3});
  for (const int n : {1, -2, 3}) test::put(expected, static_cast<std::int16_t>(n));
  test::put_string(expected, "general.alignment");
  test::put(expected, std::uint32_t{test::id::u32});
  test::put(expected, std::uint32_t{64});
  test::put_string(expected, "weight");
  test::put(expected, std::uint32_t{2});
  test::put(expected, std::uint64_t{3});
  test::put(expected, std::uint64_t{2});
  test::put(expected, std::uint32_t{0});
  test::put(expected, std::uint64_t{0});
  test::pad(expected, 64);
  for (int i = 0; i < 6; ++i) test::put(expected, static_cast<float>(i));
  test::pad(expected, 64);

  const float data[] = {0, 1, 2, 3, 4, 5};
  const std::int16_t numbers[] = {1, -2, 3};
  writer w(64);
  w.set("general.name", "to be replaced");
  w.set_array("n", std::span<const std::int16_t>(numbers));
  w.set("general.name", "tiny");
  w.add_tensor("weight", f32, {{3, 2, 1, 1}}, std::as_bytes(std::span(data)));
  CHECK(w.to_bytes() == expected);
}

TEST_CASE("random files survive writing and reading") {
  const test::temporary_folder folder;
  for (unsigned seed = 0; seed < 20; ++seed) {
    INFO("seed " << seed);
    std::mt19937 rng(seed);
    // the values come from bytes that another test checks the reader with
    blob source;
    const std::size_t keys = rng() % 40;
    test::put_header(source, 2, 0, keys);
    for (std::size_t i = 0; i < keys; ++i) {
      test::put_string(source, nibble::concat("key.", i));
      const auto type = static_cast<std::uint32_t>(rng() % test::id::end);
      test::put(source, type);
      test::put_random_value(source, rng, type, 3);
    }
    const nibble::gguf::file original(source, "source");
    const auto tensors = random_tensors(rng, rng() % 30);

    writer w(1u << (rng() % 12));
    w.copy_metadata(original);
    add(w, tensors);
    const auto path = folder / "random.gguf";
    REQUIRE(w.write(path) == std::vector{path});
    CHECK(test::load(path) == w.to_bytes());

    const nibble::gguf::file copy(path);
    check_tensors(copy, tensors);
    for (const auto& [key, v] : original.metadata()) {
      blob before, after;
      nibble::gguf::append(before, v);
      REQUIRE(copy.find(key) != nullptr);
      nibble::gguf::append(after, *copy.find(key));
      CHECK(before == after);
    }
    for (const nibble::gguf::tensor_info& t : copy.tensors()) {
      CHECK(t.offset % copy.alignment() == 0);
    }
  }
}

TEST_CASE("split files: parts keep the limit and open together") {
  const test::temporary_folder folder;
  std::mt19937 rng(7);
  const auto tensors = random_tensors(rng, 60);
  writer w(64);
  set_metadata(w);
  add(w, tensors);
  std::uint64_t largest = 0;
  for (const random_tensor& t : tensors) largest = std::max<std::uint64_t>(largest, t.data.size());
  const std::uint64_t limit = largest + 4096;

  const auto paths = w.write(folder / "model.gguf", {.max_part_bytes = limit});
  REQUIRE(paths.size() > 3);
  std::uint64_t total = 0;
  for (const auto& path : paths) {
    CHECK(std::filesystem::file_size(path) <= limit);
    total += std::filesystem::file_size(path);
  }
  // any part opens all
  for (const auto& path : {paths.front(), paths[2], paths.back()}) {
    const nibble::gguf::file file(path);
    CHECK(file.part_count() == paths.size());
    CHECK(file.size_bytes() == total);
    CHECK(file.name() == path.string());
    CHECK(file.require<std::string_view>("general.architecture") == "llama");
    CHECK(file.tensors().back().part == paths.size() - 1);
    check_tensors(file, tensors);
    test::walk(file);
  }
  // what is read can be written as one file again
  const nibble::gguf::file file(paths[0]);
  writer joined(64);
  joined.copy_metadata(file);
  for (const auto& t : file.tensors()) {
    joined.add_tensor(t.name, t.view.format, t.view.shape, std::span(t.view.data, t.bytes));
  }
  CHECK(joined.to_bytes() == w.to_bytes());
}

TEST_CASE("split files: damage is named") {
  const test::temporary_folder folder;
  std::mt19937 rng(8);
  const auto tensors = random_tensors(rng, 12);
  writer w;
  set_metadata(w);
  add(w, tensors);
  const auto paths = w.write(folder / "m.gguf", {.max_part_bytes = 1});
  REQUIRE(paths.size() == tensors.size());
  const auto complaint = [](const std::filesystem::path& path) {
    const auto error = test::error_of([&] { nibble::gguf::file file(path); });
    return error ? std::string(error->what()) : "";
  };

  SECTION("a part is missing") {
    std::filesystem::remove(paths[3]);
    CHECK(test::says(complaint(paths[0]), "-00004-of-00012.gguf", "opened"));
  }
  SECTION("two parts are exchanged") {
    std::filesystem::rename(paths[1], folder / "x");
    std::filesystem::rename(paths[2], paths[1]);
    std::filesystem::rename(folder / "x", paths[2]);
    CHECK(test::says(complaint(paths[0]), "its keys say part 3 of 12"));
  }
  SECTION("the name does not fit the keys") {
    std::filesystem::rename(paths[0], folder / "renamed.gguf");
    CHECK(test::says(complaint(folder / "renamed.gguf"), "must end in -00001-of-00012.gguf"));
  }
  SECTION("a part is of another model") {
    writer other;
    set_metadata(other);
    other.add_tensor("t3", tensors[3].format.id, tensors[3].shape, tensors[3].data);
    other.write(paths[4]);
    CHECK(test::says(complaint(paths[0]), "its keys say part 1 of 1"));
  }
  SECTION("tensors twice") {
    const auto twice = folder / "again.gguf";
    writer a, b;
    set_metadata(a);
    // the second part of `b` has the name of the first of `a`
    a.add_tensor("x", f32, {{1, 1, 1, 1}}, std::as_bytes(std::span("abc")));
    a.add_tensor("y", f32, {{1, 1, 1, 1}}, std::as_bytes(std::span("abc")));
    b.add_tensor("z", f32, {{1, 1, 1, 1}}, std::as_bytes(std::span("abc")));
    b.add_tensor("x", f32, {{1, 1, 1, 1}}, std::as_bytes(std::span("abc")));
    const auto pair = a.write(twice, {.max_part_bytes = 1});
    const auto from_b = b.write(folder / "b.gguf", {.max_part_bytes = 1});
    std::filesystem::rename(from_b[1], pair[1]);
    CHECK(test::says(complaint(pair[0]), "tensor 'x'", "earlier part"));
  }
  SECTION("in memory") {
    const blob part = test::load(paths[0]);
    const auto error = test::error_of([&] { nibble::gguf::file file(part, "memory"); });
    REQUIRE(error);
    CHECK(error->code() == errc::unsupported);
    CHECK(test::says(error->what(), "part 1 of 12"));
  }
}

TEST_CASE("the number of tensors of all parts is checked") {
  const test::temporary_folder folder;
  for (const std::int32_t said : {0, 1, 2}) {
    for (std::uint16_t n = 0; n < 2; ++n) {
      blob content;
      test::put_header(content, 3, 0, 3);
      test::put_string(content, "split.no");
      test::put(content, std::uint32_t{test::id::u16});
      test::put(content, n);
      test::put_string(content, "split.count");
      test::put(content, std::uint32_t{test::id::u16});
      test::put(content, std::uint16_t{2});
      test::put_string(content, "split.tensors.count");
      test::put(content, std::uint32_t{test::id::i32});
      test::put(content, said);
      test::save(content, folder / (n ? "s-00002-of-00002.gguf" : "s-00001-of-00002.gguf"));
    }
    const auto error =
        test::error_of([&] { nibble::gguf::file file(folder / "s-00002-of-00002.gguf"); });
    CHECK(error.has_value() == (said != 0));
    if (error) CHECK(test::says(error->what(), "split.tensors.count is"));
  }
}

TEST_CASE("the writer refuses what no reader would take") {
  const auto refusal = [](auto&& f) {
    const auto error = test::error_of(f);
    return error ? error->code() : errc::io;
  };
  constexpr auto invalid = errc::invalid_argument;
  writer w;
  const blob four(4);
  CHECK(refusal([] { writer(24); }) == invalid);
  CHECK(refusal([] { writer(1u << 21); }) == invalid);
  CHECK(refusal([&] { w.set("", 1); }) == invalid);
  CHECK(refusal([&] { w.set(std::string(65536, 'k'), 1); }) == invalid);
  CHECK(refusal([&] { w.set("general.alignment", 32u); }) == invalid);
  CHECK(refusal([&] { w.set("split.count", 3); }) == invalid);
  CHECK(refusal([&] { w.add_tensor("", f32, {}, four); }) == invalid);
  CHECK(refusal([&] { w.add_tensor(std::string(65, 'n'), f32, {}, four); }) == invalid);
  CHECK(refusal([&] { w.add_tensor("x", f32, {{2, 1, 1, 1}}, four); }) == invalid);
  CHECK(refusal([&] { w.add_tensor("x", f32, {{1ull << 62, 4, 1, 1}}, four); }) == invalid);
  CHECK(refusal([&] { w.add_tensor("x", format_id{8}, {{4, 1, 1, 1}}, four); }) == invalid);
  CHECK(refusal([&] {
          w.add_tensor("x", format_id{77}, {{256, 1, 1, 1}}, four);
        }) == errc::unsupported);
  const auto lying = std::make_shared<const nibble::gguf::array_view>(
      nibble::gguf::array_view{nibble::gguf::value_type::u32, 2, four, {}, {}});
  CHECK(refusal([&] { w.set("x", value{lying}); }) == invalid);
  value nested{std::make_shared<const nibble::gguf::array_view>()};
  for (int depth = 0; depth < 4; ++depth) {
    nested = value{std::make_shared<const nibble::gguf::array_view>(
        nibble::gguf::array_view{nibble::gguf::value_type::array, 1, {}, {}, {nested}})};
  }
  CHECK(refusal([&] { w.set("x", nested); }) == invalid);

  // nothing of all this has left a trace; the name is free
  w.add_tensor("x", f32, {}, four);
  CHECK(refusal([&] { w.add_tensor("x", f32, {}, four); }) == invalid);
  CHECK(nibble::gguf::file(w.to_bytes(), "m").tensors().size() == 1);
  CHECK(nibble::gguf::file(w.to_bytes(), "m").metadata().empty());
}

TEST_CASE("a source must give as many bytes as its tensor has") {
  const test::temporary_folder folder;
  for (const std::size_t size : {3u, 5u}) {
    writer w;
    w.add_tensor("x", f32, {}, [&](const nibble::gguf::byte_sink& sink) { sink(blob(size)); });
    const auto error = test::error_of([&] { w.write(folder / "x.gguf"); });
    REQUIRE(error);
    CHECK(error->code() == errc::invalid_argument);
    CHECK(test::says(error->what(), "tensor 'x'"));
    CHECK(std::filesystem::is_empty(folder.path()));
  }
}

TEST_CASE("a failing disk leaves the old file and nothing else") {
  const test::temporary_folder folder;
  const auto path = folder / "x.gguf";
  writer old;
  set_metadata(old);
  old.write(path);
  const blob before = test::load(path);

  const blob data(1 << 20);
  writer w;
  w.add_tensor("large", f32, {{1 << 18, 1, 1, 1}}, data);
  // a limit on the size of files stands for a full disk
  rlimit normal{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &normal) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, normal.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const auto error = test::error_of([&] { w.write(path); });
  const auto in_parts = test::error_of([&] { w.write(path, {.max_part_bytes = 4096}); });
  ::setrlimit(RLIMIT_FSIZE, &normal);
  std::signal(SIGXFSZ, handler);

  REQUIRE(error);
  CHECK(error->code() == errc::io);
  CHECK(test::says(error->what(), "x.gguf", "written"));
  CHECK(in_parts.has_value());
  CHECK(test::load(path) == before);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);

  const auto nowhere = test::error_of([&] { w.write(folder / "absent/x.gguf"); });
  REQUIRE(nowhere);
  CHECK(nowhere->code() == errc::io);
}

TEST_CASE("tensors of types that cannot be computed with are kept as they are") {
  for (const nibble::format_info& info : nibble::foreign_format_infos) {
    INFO(info.name);
    const nibble::shape shape{{2 * info.block_size, 3, 1, 1}};
    std::vector<std::byte> data(6 * info.block_bytes);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7);
    nibble::gguf::writer writer;
    writer.add_tensor("a", info.id, shape, std::span(data));
    const auto bytes = writer.to_bytes();
    const nibble::gguf::file file(bytes, "memory");
    const auto& found = file.tensors()[0];
    CHECK(found.view.format == info.id);
    CHECK(found.view.shape == shape);
    REQUIRE(found.bytes == data.size());
    CHECK(std::equal(data.begin(), data.end(), found.view.data));
  }
}
