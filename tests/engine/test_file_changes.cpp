// Files that are cut off, replaced, deleted or written to between opening and the end of loading:
// an error of the library that names them, or the model that was opened, and no signal.
#include <fstream>
#include <nibble/nibble.hpp>
#include <nibble/quantise/file.hpp>
#include <thread>

#include "../model/tiny_model.hpp"
#include "catch.hpp"
#include "errors.hpp"
#include "places.hpp"
#include "run_model.hpp"
#include "temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
using nibble::errc;

void write(const fs::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}

const std::vector<nibble::token> tokens = {3, 1, 4, 1, 5, 9, 2, 6};

struct stored_file {
  test::temporary_folder folder;
  fs::path path = folder / "a.gguf";
  std::vector<std::byte> bytes = test::tiny_model("llama")
                                     .set("block_count", 6)
                                     .set_vocabulary()
                                     .make_tensors({.matrices = {nibble::format_id{8}, test::f32}})
                                     .bytes();
  nibble::model_options options = test::exact_options(nibble::activation_type::int8, 1);

  stored_file() {
    write(path, bytes);
    options.plan.all_logits = true;
  }
  nibble::model load(const nibble::gguf::file& file,
                     const std::function<void(double)>& progress = {}) const {
    auto with = options;
    with.progress = progress;
    return nibble::model(file, nibble::make_cpu_backend(with.cpu), with);
  }
  std::vector<float> expected() const {
    const nibble::gguf::file whole(bytes, "whole");
    return test::all_logits(load(whole), tokens);
  }
};

}  // namespace

TEST_CASE("a file that is cut off or written to before it is loaded, or meanwhile") {
  const stored_file made;
  const auto expected = made.expected();
  const auto since = fs::last_write_time(made.path);
  struct change {
    const char* name;
    std::function<void()> make;
    std::string_view words;
  };
  const change changes[] = {
      {"half", [&] { fs::resize_file(made.path, made.bytes.size() / 2); }, "bytes when it was"},
      {"nothing left", [&] { fs::resize_file(made.path, 0); }, "has 0 now"},
      {"longer", [&] { fs::resize_file(made.path, made.bytes.size() + 1); }, "bytes when it was"},
      {"written to",
       [&] {
         write(made.path, made.bytes);
         fs::last_write_time(made.path, since + std::chrono::seconds(5));
       },
       "was written to"},
  };
  for (const change& c : changes) {
    for (const bool before : {true, false}) {
      INFO(c.name << (before ? ", before" : ", when the loading begins"));
      write(made.path, made.bytes);
      fs::last_write_time(made.path, since);
      const nibble::gguf::file file(made.path);
      if (before) c.make();
      const auto progress = [&](double share) {
        if (share == 0 && !before) c.make();
      };
      const auto e = test::thrown([&] { made.load(file, progress); });
      test::check_error(e, errc::io, {made.path.string(), c.words});
      CHECK(!e.tensor().empty());
      CHECK(e.offset().has_value());
      // what was read when the file was opened is still there
      CHECK(file.get<std::string_view>("general.architecture") == "llama");
      CHECK(nibble::tokenizer(file).size() == 48);
    }
  }
}

TEST_CASE("a file that is deleted or replaced is loaded as it was opened") {
  const stored_file made;
  const auto expected = made.expected();
  for (const bool replaced : {false, true}) {
    write(made.path, made.bytes);
    const nibble::gguf::file file(made.path);
    fs::remove(made.path);
    if (replaced) write(made.path, std::vector<std::byte>(1000));
    CHECK(test::all_logits(made.load(file), tokens) == expected);
  }
}

TEST_CASE("a file may be cut off at any moment while it is opened and loaded") {
  const stored_file made;
  const auto since = fs::last_write_time(made.path);
  std::jthread vandal([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      fs::resize_file(made.path, made.bytes.size() / 3);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      write(made.path, made.bytes);
      fs::last_write_time(made.path, since);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  int loaded = 0, failed = 0;
  for (int i = 0; i < 150; ++i) {
    try {
      const nibble::gguf::file file(made.path);
      const auto model = made.load(file);
      ++loaded;
    } catch (const nibble::error& e) {
      ++failed;
      // opened while it was short, it is a file that is cut off
      CHECK((e.code() == errc::io || e.code() == errc::bad_file));
      CHECK(e.file() == made.path.string());
    }
  }
  CHECK(loaded + failed == 150);
}

TEST_CASE("a file that is cut off while it is quantised") {
  const stored_file made;
  const nibble::gguf::file file(made.path);
  nibble::quantise_options options;
  options.mix.type = "q4_0";
  options.threads = 2;
  const auto e = test::thrown([&] {
    nibble::quantise_file(file, made.folder / "out.gguf", options, [&](const auto& p) {
      if (p.done > p.total / 2) fs::resize_file(made.path, made.bytes.size() / 2);
    });
  });
  test::check_error(e, errc::io, {made.path.string(), "bytes when it was opened"});
  CHECK(test::names_in(made.folder) == std::set<std::string>{"a.gguf"});
}

TEST_CASE("bytes of a tensor are read") {
  const stored_file made;
  const nibble::gguf::file file(made.path), lent(made.bytes, "lent");
  std::vector<std::byte> buffer;
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    const auto& t = file.tensors()[i];
    const auto all = file.read(t, 0, t.bytes, buffer);
    CHECK(std::ranges::equal(all, lent.data(lent.tensors()[i])));
    CHECK(lent.read(lent.tensors()[i], 4, 8, buffer).data() ==
          lent.data(lent.tensors()[i]).data() + 4);
    for (const std::uint64_t offset : {t.bytes, ~std::uint64_t{0}}) {
      test::check_error(test::thrown([&] { file.read(t, offset, 1, buffer); }),
                        errc::invalid_argument, {"are not to be had", t.name});
    }
  }
  const nibble::gguf::file header(made.path, {.header_only = true});
  test::check_error(test::thrown([&] { header.read(header.tensors()[0], 0, 1, buffer); }),
                    errc::invalid_argument, {"are not to be had"});
}
