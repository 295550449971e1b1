// Importance matrices: what is read from files of both kinds, and what damaged files are told.

#include <cmath>
#include <cstring>
#include <limits>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/imatrix.hpp>
#include "../gguf/raw_file.hpp"

#include "catch.hpp"
#include "errors.hpp"
#include "temporary_folder.hpp"

namespace {

using floats = std::vector<float>;

nibble::imatrix sample() {
  nibble::imatrix m;
  m.datasets = {"one.txt", "two.txt"};
  m.chunk_count = 7;
  m.chunk_size = 512;
  m.tensors["blk.0.attn_q.weight"] = {{4, 8, 0}, {4}};
  m.tensors["blk.0.ffn_up_exps.weight"] = {{1, 2, 3, 4, 5, 6}, {2, 0, 4}};
  return m;
}

void put_entry(test::blob& out, std::string_view name, std::int32_t calls, const floats& values) {
  test::put(out, static_cast<std::int32_t>(name.size()));
  test::put_raw(out, name);
  test::put(out, calls);
  test::put(out, static_cast<std::int32_t>(values.size()));
  for (const float x : values) test::put(out, x);
}

// As older programs wrote it; the last part came later.
test::blob dat_file(bool with_text) {
  test::blob out;
  test::put(out, std::int32_t{2});
  put_entry(out, "output.weight", 3, {3, 6, 9, 12});
  put_entry(out, "blk.0.ffn_down.weight", 0, {5, 5});
  if (with_text) {
    test::put(out, std::int32_t{11});
    test::put(out, std::int32_t{8});
    test::put_raw(out, "wiki.txt");
  }
  return out;
}

nibble::error refused(std::span<const std::byte> bytes) {
  return test::thrown([&] { nibble::read_imatrix(bytes, "made"); });
}

}  // namespace

TEST_CASE("imatrix: what is written is read again") {
  const test::temporary_folder folder;
  const nibble::imatrix m = sample();
  nibble::write_imatrix(m, folder / "m.gguf");
  for (const auto& found : {nibble::read_imatrix(folder / "m.gguf"),
                            nibble::read_imatrix(nibble::imatrix_bytes(m), "memory")}) {
    CHECK(found.datasets == m.datasets);
    CHECK(found.chunk_count == 7);
    CHECK(found.chunk_size == 512);
    REQUIRE(found.tensors.size() == 2);
    for (const auto& [name, entry] : m.tensors) {
      CHECK(found.tensors.at(name).in_sum2 == entry.in_sum2);
      CHECK(found.tensors.at(name).counts == entry.counts);
    }
  }
  // the layout that other programs expect
  const nibble::gguf::file file(folder / "m.gguf");
  CHECK(file.require<std::string_view>("general.type") == "imatrix");
  CHECK(file.get_array<std::string_view>("imatrix.datasets")->size() == 2);
  CHECK(file.find("imatrix.chunk_count")->type() == nibble::gguf::value_type::u32);
  CHECK(file.find("imatrix.chunk_size")->type() == nibble::gguf::value_type::u32);
  CHECK(file.tensors().size() == 4);
  const auto* sums = file.find_tensor("blk.0.ffn_up_exps.weight.in_sum2");
  REQUIRE(sums != nullptr);
  CHECK(sums->view.shape == nibble::shape{{2, 3, 1, 1}});
  const auto* counts = file.find_tensor("blk.0.ffn_up_exps.weight.counts");
  REQUIRE(counts != nullptr);
  CHECK(counts->view.shape == nibble::shape{{1, 3, 1, 1}});
  CHECK(counts->view.format == nibble::id_of<nibble::formats::f32>);
}

TEST_CASE("imatrix: weights are mean squares, by expert") {
  const nibble::imatrix m = sample();
  CHECK(m.tensors.at("blk.0.attn_q.weight").weights(0, 1) == floats{1, 2, 0});
  const auto& experts = m.tensors.at("blk.0.ffn_up_exps.weight");
  CHECK(experts.weights(0, 3) == floats{0.5f, 1});
  CHECK(experts.weights(1, 3) == floats{1, 1});  // saw no token
  CHECK(experts.weights(2, 3) == floats{1.25f, 1.5f});
  const nibble::importance shared{{2, 4, 6, 8}, {2}};
  CHECK(shared.weights(1, 2) == floats{3, 4});
  using nibble::errc;
  test::check_error(test::thrown([&] { experts.weights(3, 3); }), errc::invalid_argument,
                    {"matrix 3 of 3"});
  test::check_error(test::thrown([&] { experts.weights(0, 2); }), errc::invalid_argument,
                    {"6 sums", "3 counts"});
}

TEST_CASE("imatrix: .dat files") {
  for (const bool with_text : {false, true}) {
    const auto m = nibble::read_imatrix(dat_file(with_text), "made");
    REQUIRE(m.tensors.size() == 2);
    CHECK(m.tensors.at("output.weight").weights(0, 1) == floats{1, 2, 3, 4});
    CHECK(m.tensors.at("output.weight").weights(1, 2) == floats{3, 4});
    CHECK(m.tensors.at("blk.0.ffn_down.weight").weights(0, 1) == floats{1, 1});
    CHECK(m.chunk_count == (with_text ? 11u : 0u));
    CHECK(m.datasets ==
          (with_text ? std::vector<std::string>{"wiki.txt"} : std::vector<std::string>{}));
  }
  const test::temporary_folder folder;
  test::save(dat_file(true), (folder / "m.dat").string());
  CHECK(nibble::read_imatrix(folder / "m.dat").tensors.size() == 2);
}

TEST_CASE("imatrix: a .dat file that ends anywhere, or says anything, is read or refused") {
  const test::blob whole = dat_file(true);
  const std::size_t without_text = dat_file(false).size();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    INFO(n << " bytes");
    const auto part = std::span(whole).first(n);
    if (n == without_text) {
      CHECK(nibble::read_imatrix(part, "made").tensors.size() == 2);
    } else {
      CHECK(refused(part).code() == nibble::errc::bad_file);
    }
  }
  std::mt19937 rng(1);
  for (int i = 0; i < 20000; ++i) {
    test::blob damaged = whole;
    for (int n = 1 + static_cast<int>(rng() % 3); n > 0; --n) {
      damaged[rng() % damaged.size()] = static_cast<std::byte>(rng() % 5 ? rng() : 255);
    }
    try {
      const auto m = nibble::read_imatrix(damaged, "made");
      for (const auto& [name, entry] : m.tensors) {
        for (const float x : entry.in_sum2) CHECK((std::isfinite(x) && x >= 0));
      }
    } catch (const nibble::error& e) {
      CHECK(e.file() == "made");
    }
  }
}

TEST_CASE("imatrix: damage is named, and nothing is allocated for it") {
  constexpr auto bad = nibble::errc::bad_file;
  const auto with = [](std::int32_t entries, const auto& fill) {
    test::blob out;
    test::put(out, entries);
    fill(out);
    return out;
  };
  const auto nothing = [](test::blob&) {};
  constexpr std::int32_t many = std::numeric_limits<std::int32_t>::max();
  test::check_error(refused({}), bad, {"made", "no importance matrix"});
  test::check_error(refused(with(0, nothing)), bad, {"number of tensors is 0", "at byte 0"});
  test::check_error(refused(with(-1, nothing)), bad, {"number of tensors is -1"});
  test::check_error(refused(with(many, nothing)), bad, {"announces 2147483647 tensors"});
  test::check_error(refused(with(1,
                                 [](test::blob& b) {
                                   test::put(b, many);
                                   test::put_raw(b, "a name that is short");
                                 })),
                    bad, {"name of a tensor takes 2147483647 bytes", "has 20 left"});
  test::check_error(refused(with(1,
                                 [](test::blob& b) {
                                   test::put(b, std::int32_t{1});
                                   test::put_raw(b, "t");
                                   test::put(b, std::int32_t{1});
                                   test::put(b, many);
                                   test::put(b, 1.0f);
                                 })),
                    bad, {"tensor 't'", "takes 8589934588 bytes", "has 4 left"});
  const auto entry = [&](const floats& values) {
    return with(1, [&](test::blob& b) { put_entry(b, "t", 1, values); });
  };
  test::check_error(refused(entry({})), bad, {"'t'", "number of values is 0"});
  test::check_error(refused(entry({1, -1})), bad, {"'t'", "negative or not finite"});
  test::check_error(refused(entry({std::numeric_limits<float>::quiet_NaN()})), bad, {"'t'"});
  test::check_error(refused(entry({std::numeric_limits<float>::infinity()})), bad, {"'t'"});
  test::check_error(refused(with(2,
                                 [](test::blob& b) {
                                   put_entry(b, "t", 1, {1});
                                   put_entry(b, "t", 1, {1});
                                 })),
                    bad, {"'t'", "earlier entry"});
  test::blob more = dat_file(true);
  more.push_back(std::byte{0});
  test::check_error(refused(more), bad, {"1 bytes follow"});
  const test::temporary_folder folder;
  test::check_error(test::thrown([&] { nibble::read_imatrix(folder / "none"); }), nibble::errc::io,
                    {"none", "cannot be opened"});
}

TEST_CASE("imatrix: GGUF files that are none, or contradict themselves") {
  using nibble::errc;
  const floats four(4, 1.0f), bad_number{1, 1, 1, -2};
  const auto f32 = nibble::id_of<nibble::formats::f32>;
  const auto bytes_of = [](const floats& x) { return std::as_bytes(std::span(x)); };
  const auto made = [&](const auto& fill) {
    nibble::gguf::writer w;
    fill(w);
    return refused(w.to_bytes());
  };
  test::check_error(made([](auto& w) { w.set("general.type", "model"); }), errc::bad_file,
                    {"general.type is 'model'", "'imatrix' was expected"});
  test::check_error(made([](auto& w) { w.set("general.type", "imatrix"); }), errc::bad_file,
                    {"no tensor's name ends in .in_sum2"});
  test::check_error(made([&](auto& w) {
                      w.add_tensor("a.in_sum2", f32, {{4, 1, 1, 1}}, bytes_of(four));
                    }),
                    errc::bad_file, {"'a.in_sum2'", "no a.counts"});
  test::check_error(made([&](auto& w) {
                      w.add_tensor("a.in_sum2", f32, {{2, 2, 1, 1}}, bytes_of(four));
                      w.add_tensor("a.counts", f32, {{1, 4, 1, 1}}, bytes_of(four));
                    }),
                    errc::bad_file, {"[2, 2]", "4 matrices"});
  test::check_error(made([&](auto& w) {
                      w.add_tensor("a.in_sum2", f32, {{2, 2, 1, 1}}, bytes_of(four));
                      w.add_tensor("a.counts", nibble::id_of<nibble::formats::f16>, {{1, 2, 1, 1}},
                                   bytes_of(four).first(4));
                    }),
                    errc::bad_file, {"'a.counts'", "f16", "f32 was expected"});
  test::check_error(made([&](auto& w) {
                      w.add_tensor("a.in_sum2", f32, {{4, 1, 1, 1}}, bytes_of(bad_number));
                      w.add_tensor("a.counts", f32, {{1, 1, 1, 1}}, bytes_of(four).first(4));
                    }),
                    errc::bad_file, {"'a.in_sum2'", "negative"});
  test::check_error(made([&](auto& w) {
                      w.add_tensor("a.in_sum2", f32, {{0, 1, 1, 1}}, bytes_of(four).first(0));
                      w.add_tensor("a.counts", f32, {{1, 1, 1, 1}}, bytes_of(four).first(4));
                    }),
                    errc::bad_file, {"'a.in_sum2'", "no sums"});
}

TEST_CASE("imatrix: nothing is written that could not be read") {
  const auto refuses = [](nibble::importance entry, const std::string& name) {
    nibble::imatrix m;
    m.tensors[name] = std::move(entry);
    return test::thrown([&] { nibble::imatrix_bytes(m); });
  };
  constexpr auto wrong = nibble::errc::invalid_argument;
  test::check_error(refuses({{1, -1}, {1}}, "t"), wrong, {"'t'", "negative"});
  test::check_error(refuses({{1, 2, 3}, {1, 1}}, "t"), wrong, {"3 sums", "2 counts"});
  test::check_error(refuses({{}, {1}}, "t"), wrong, {"no sums"});
  test::check_error(refuses({{1}, {1}}, std::string(57, 'x')), wrong, {"1 to 64 bytes"});
}
