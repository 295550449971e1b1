// Files with one thing wrong, and good ones. The cases have the names of llama.cpp's
// tests/test-gguf.cpp (MIT) and its verdicts, so that the coverage of the two can be compared. They
// differ in two points: tensor cases carry their data (this reader always checks that data is
// there), and the bytes of bools are 0 or 1 (the specification calls others invalid).
#include <algorithm>
#include <catch.hpp>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/file.hpp>

#include "gguf/encode.hpp"
#include "raw_file.hpp"
#include "temporary_folder.hpp"
#include "walk.hpp"

namespace {

using nibble::errc;
using test::blob;
namespace id = test::id;

enum class section { header, metadata, tensors, data };  // the last that the file has

struct handcrafted {
  const char* name;
  section last;
  const char* complaint;  // part of the error's sentence; null: the file is good
  errc code = errc::bad_file;
};

constexpr handcrafted cases[] = {
    {"HEADER_BAD_MAGIC", section::header, "does not begin with GGUF"},
    {"HEADER_BAD_VERSION_0", section::header, "version 0"},
    {"HEADER_BAD_VERSION_1", section::header, "version 1", errc::unsupported},
    {"HEADER_BAD_VERSION_FUTURE", section::header, "version 4", errc::unsupported},
    {"HEADER_BAD_N_KV", section::header, "18446744073709551615 keys"},
    {"HEADER_BAD_N_TENSORS", section::header, "18446744073709551615 tensors"},
    {"HEADER_EMPTY", section::header, nullptr},
    {"KV_BAD_KEY_SIZE", section::metadata, "a key has 18446744073709551615 bytes"},
    {"KV_EMPTY_KEY", section::metadata, "key number 0 is empty"},
    {"KV_BAD_TYPE", section::metadata, "value type 13"},
    {"KV_DUPLICATE_KEY", section::metadata, "occurs twice"},
    {"KV_BAD_ALIGN", section::metadata, "alignment is 13"},
    {"KV_WRONG_TYPE_ALIGN", section::metadata, "must be u32"},
    {"KV_SUCCESS", section::metadata, nullptr},
    {"TENSORS_BAD_NAME_SIZE", section::tensors, "at most 64"},
    {"TENSORS_BAD_N_DIMS", section::tensors, "5 dimensions"},
    {"TENSORS_BAD_SHAPE", section::tensors, "negative: -1"},
    {"TENSORS_ZERO_DIM", section::tensors, nullptr},
    {"TENSORS_NE_TOO_BIG", section::tensors, "number of its elements"},
    {"TENSORS_NBYTES_TOO_BIG", section::tensors, "more than 2^64 bytes"},
    {"TENSORS_BAD_TYPE", section::tensors, "no weight format", errc::unsupported},
    {"TENSORS_BAD_OFFSET", section::tensors, "begin at 18446744073709551615"},
    {"TENSORS_DUPLICATE_NAME", section::tensors, "the name occurs twice"},
    {"TENSORS_BAD_ALIGN", section::tensors, "alignment is 13"},
    {"TENSORS_INCONSISTENT_ALIGN", section::tensors, "at alignment 32"},
    {"TENSORS_SUCCESS", section::tensors, nullptr},
    {"TENSORS_CUSTOM_ALIGN", section::tensors, nullptr},
    {"DATA_NOT_ENOUGH_DATA", section::data, "cut off"},
    {"DATA_BAD_ALIGN", section::data, "alignment is 13"},
    {"DATA_INCONSISTENT_ALIGN", section::data, "at alignment 32"},
    {"DATA_MEM_SIZE_OVERFLOW", section::data, "cut off"},
    {"DATA_SUCCESS", section::data, nullptr},
    {"DATA_CUSTOM_ALIGN", section::data, nullptr},
};

struct tensor_config {
  nibble::format_info format;
  std::vector<std::uint64_t> extents;
  std::uint64_t offset = 0;  // from the beginning of the data
  std::uint64_t size = 0;

  std::uint64_t elements() const {
    std::uint64_t n = 1;
    for (const std::uint64_t e : extents) n *= e;
    return n;
  }
};

// A file and what a reader should find in it.
struct sample {
  blob content;
  std::vector<std::pair<std::string, blob>> metadata;  // key; type and value
  std::vector<tensor_config> tensors;
  std::uint32_t alignment = 32;
  std::size_t data = 0;  // where it begins
};

class maker {
 public:
  maker(const handcrafted& c, unsigned seed) : case_(c), name_(c.name), rng_(seed) {}

  sample make() {
    const bool has_metadata = case_.last >= section::metadata;
    if (has_metadata) make_metadata();
    if (case_.last >= section::tensors) make_tensors();
    header();
    if (has_metadata) metadata();
    if (case_.last >= section::tensors) {
      directory();
      data();
    }
    return std::move(out_);
  }

 private:
  bool is(std::string_view flaw) const {
    return name_.substr(name_.find('_') + 1) == flaw;  // the same flaw in any section
  }

  void make_metadata() {
    for (int i = 0; i < 100; ++i) {
      const auto type = static_cast<std::uint32_t>(rng_() % id::end);
      blob value;
      test::put(value,
                is("BAD_TYPE") && case_.last == section::metadata ? std::uint32_t{id::end} : type);
      test::put_random_value(value, rng_, type, 3);
      const int n = is("DUPLICATE_KEY") ? i / 2 : i;
      std::string key = is("EMPTY_KEY") ? "" : nibble::concat("my_key_", n);
      out_.metadata.emplace_back(std::move(key), std::move(value));
    }
    if (is("BAD_ALIGN") || is("WRONG_TYPE_ALIGN") || is("CUSTOM_ALIGN")) {
      out_.alignment = is("CUSTOM_ALIGN") ? 1 : 13;
      blob value;
      test::put(value, is("WRONG_TYPE_ALIGN") ? std::uint32_t{id::i32} : std::uint32_t{id::u32});
      test::put(value, is("WRONG_TYPE_ALIGN") ? 32u : out_.alignment);
      out_.metadata.emplace_back("general.alignment", std::move(value));
    }
  }

  void make_tensors() {
    for (int i = 0; i < 60; ++i) {
      tensor_config t{nibble::format_infos[rng_() % nibble::format_infos.size()], {}};
      t.extents.push_back((1 + rng_() % 10) * t.format.block_size);
      const std::size_t dimensions = 1 + rng_() % 4;
      while (t.extents.size() < dimensions) t.extents.push_back(1 + rng_() % 10);
      flaw_in_shape(t);
      // what the file would take; flawed shapes take nothing, their files end before the data
      const bool absurd = is("BAD_SHAPE") || is("NE_TOO_BIG") || is("NBYTES_TOO_BIG");
      t.size = absurd ? 0 : t.elements() / t.format.block_size * t.format.block_bytes;
      out_.tensors.push_back(t);
    }
    if (is("MEM_SIZE_OVERFLOW")) {
      out_.tensors.resize(2);
      for (tensor_config& t : out_.tensors) {
        t = {*nibble::find_format_info(nibble::format_id{0}), {0x1ffffffffffffff0}};
        t.size = 0x7fffffffffffffc0;
      }
    }
  }

  void flaw_in_shape(tensor_config& t) const {
    if (is("BAD_SHAPE")) {
      for (std::uint64_t& e : t.extents) e = ~std::uint64_t{0};
    } else if (is("ZERO_DIM")) {
      t.extents = {t.extents[0], 0};
    } else if (is("NE_TOO_BIG")) {
      t.extents.assign(2, 4ull * 0x7fffffff);
    } else if (is("NBYTES_TOO_BIG")) {
      // the elements can be counted, their bytes in f32 cannot
      t.format = *nibble::find_format_info(nibble::format_id{0});
      t.extents.assign(2, static_cast<std::uint64_t>(1.01 * std::pow(2.0, 31)));
    }
  }

  void header() {
    std::uint32_t version = 3;
    if (is("BAD_VERSION_0")) version = 0;
    if (is("BAD_VERSION_1")) version = 1;
    if (is("BAD_VERSION_FUTURE")) version = 4;
    const std::uint64_t all = ~std::uint64_t{0};
    test::put_header(out_.content, version, is("BAD_N_TENSORS") ? all : out_.tensors.size(),
                     is("BAD_N_KV") ? all : out_.metadata.size());
    if (is("BAD_MAGIC")) std::reverse(out_.content.begin(), out_.content.begin() + 4);
  }

  void metadata() {
    for (const auto& [key, value] : out_.metadata) {
      test::put(out_.content, is("BAD_KEY_SIZE") ? ~std::uint64_t{0} : key.size());
      test::put_raw(out_.content, key);
      out_.content.insert(out_.content.end(), value.begin(), value.end());
    }
  }

  std::string tensor_name(std::size_t i) const {
    if (is("DUPLICATE_NAME")) return "my_tensor";
    std::string name = nibble::concat("my_tensor_", i);
    if (is("BAD_NAME_SIZE")) name += std::string(70, 'x');
    return name;
  }

  void directory() {
    const std::uint64_t alignment = is("INCONSISTENT_ALIGN") ? 1 : out_.alignment;
    std::uint64_t offset = 0;
    for (std::size_t i = 0; i < out_.tensors.size(); ++i) {
      tensor_config& t = out_.tensors[i];
      test::put_string(out_.content, tensor_name(i));
      test::put(out_.content, is("BAD_N_DIMS") ? 5u : static_cast<std::uint32_t>(t.extents.size()));
      for (const std::uint64_t e : t.extents) test::put(out_.content, e);
      test::put(out_.content, is("BAD_TYPE") ? 255u : static_cast<std::uint32_t>(t.format.id));
      t.offset = offset;
      test::put(out_.content, is("BAD_OFFSET") ? ~std::uint64_t{0} : offset);
      offset = (offset + t.size + alignment - 1) / alignment * alignment;
    }
    data_size_ = offset;
  }

  void data() {
    test::pad(out_.content, out_.alignment);
    out_.data = out_.content.size();
    std::uint64_t size = is("MEM_SIZE_OVERFLOW") ? 32 : data_size_;
    // padding after the last tensor may be missing, its last byte may not
    if (is("NOT_ENOUGH_DATA")) size = out_.tensors.back().offset + out_.tensors.back().size - 1;
    for (std::uint64_t i = 0; i < size; ++i) out_.content.push_back(static_cast<std::byte>(i));
  }

  const handcrafted& case_;
  std::string_view name_;
  std::mt19937 rng_;
  sample out_;
  std::uint64_t data_size_ = 0;
};

void check_content(const nibble::gguf::file& file, const sample& expected) {
  CHECK(file.version() == 3);
  CHECK(file.alignment() == expected.alignment);
  CHECK(file.size_bytes() == expected.content.size());
  REQUIRE(file.metadata().size() == expected.metadata.size());
  for (std::size_t i = 0; i < expected.metadata.size(); ++i) {
    const auto& [key, value] = file.metadata()[i];
    CHECK(key == expected.metadata[i].first);
    CHECK(file.find(key) == &value);
    blob encoded;
    nibble::gguf::append(encoded, value);
    CHECK(encoded == expected.metadata[i].second);
  }
  REQUIRE(file.tensors().size() == expected.tensors.size());
  for (std::size_t i = 0; i < expected.tensors.size(); ++i) {
    const nibble::gguf::tensor_info& found = file.tensors()[i];
    const tensor_config& t = expected.tensors[i];
    CHECK(file.find_tensor(nibble::concat("my_tensor_", i)) == &found);
    CHECK(found.view.format == t.format.id);
    CHECK(found.view.shape.elements() == t.elements());
    for (std::size_t d = 0; d < 4; ++d) {
      CHECK(found.view.shape.extent[d] == (d < t.extents.size() ? t.extents[d] : 1));
    }
    CHECK(found.offset == expected.data + t.offset);
    REQUIRE(found.bytes == t.size);
    CHECK(std::equal(found.view.data, found.view.data + found.bytes,
                     expected.content.begin() + static_cast<std::ptrdiff_t>(found.offset)));
  }
  test::walk(file);
}

// `open` makes a file from the sample's bytes, one way or the other.
template <typename Open>
void check_verdict(const handcrafted& c, const sample& s, const std::string& name, Open&& open) {
  if (c.complaint == nullptr) {
    check_content(open(), s);
    return;
  }
  const auto error = test::error_of(open);
  REQUIRE(error.has_value());
  INFO(error->what());
  CHECK(error->code() == c.code);
  CHECK(error->file() == name);
  CHECK(error->offset().has_value());
  CHECK(std::string_view(error->what()).find(c.complaint) != std::string_view::npos);
}

}  // namespace

TEST_CASE("handcrafted files are judged as llama.cpp judges them") {
  REQUIRE(std::size(cases) == 33);
  REQUIRE(std::count_if(std::begin(cases), std::end(cases),
                        [](const auto& c) { return c.complaint == nullptr; }) == 7);
  const test::temporary_folder folder;
  for (const handcrafted& c : cases) {
    for (unsigned seed = 0; seed < 6; ++seed) {
      INFO(c.name << ", seed " << seed);
      const sample s = maker(c, seed).make();
      check_verdict(c, s, "memory", [&] { return nibble::gguf::file(s.content, "memory"); });
      const auto path = folder / c.name;
      test::save(s.content, path);
      check_verdict(c, s, path.string(), [&] { return nibble::gguf::file(path); });
    }
  }
}

TEST_CASE("the tensor cases name the tensor") {
  for (const handcrafted& c : cases) {
    if (c.complaint == nullptr || c.last < section::tensors) continue;
    const std::string_view name = c.name;
    if (name.ends_with("BAD_ALIGN") || name.ends_with("BAD_NAME_SIZE")) continue;  // no tensor yet
    INFO(name);
    const sample s = maker(c, 1).make();
    const auto error = test::error_of([&] { nibble::gguf::file(s.content, "memory"); });
    REQUIRE(error.has_value());
    CHECK(error->tensor().starts_with("my_tensor"));
  }
}
