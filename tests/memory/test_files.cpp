// Files, vocabularies and plans without memory.
#include <nibble/quantise/file.hpp>
#include <nibble/text/chat_template.hpp>
#include <nibble/text/text_stream.hpp>

#include "../text/made_vocabularies.hpp"
#include "small_models.hpp"

TEST_CASE("no memory: a file is opened") {
  const test::stored_model stored("llama");
  CHECK(test::every_failure([&](test::turn& now) {
          std::optional<nibble::gguf::file> file;
          if (now.in([&] { file.emplace(stored.path); })) CHECK(file->tensors().size() > 10);
        }) > 20);
}

TEST_CASE("no memory: a file in parts is opened") {
  const test::stored_model stored("qwen3moe");
  const nibble::gguf::file whole(stored.path);
  nibble::gguf::writer writer;
  writer.copy_metadata(whole);
  for (const auto& t : whole.tensors()) {
    writer.add_tensor(t.name, t.view.format, t.view.shape, whole.data(t));
  }
  const auto parts =
      writer.write(stored.folder / "a.gguf", {.max_part_bytes = whole.size_bytes() / 3});
  REQUIRE(parts.size() > 2);
  CHECK(test::every_failure([&](test::turn& now) {
          std::optional<nibble::gguf::file> file;
          if (now.in([&] { file.emplace(parts[1]); })) CHECK(file->part_count() == parts.size());
        }) > 20);
}

TEST_CASE("no memory: text becomes tokens, and tokens text") {
  const test::vocabulary_file made[] = {test::byte_level({"ab"}, {"a b"}),
                                        test::small_sentencepiece(), test::wordpiece()};
  const std::string input = "ab <tag> a\xff" + std::string(300, 'a') + " a aa a aa a aa a aa";
  for (const auto& vocabulary : made) {
    const auto bytes = vocabulary.bytes();
    const nibble::gguf::file file(bytes, "made.gguf");
    const auto expected = nibble::tokenizer(file).encode(input);
    CHECK(test::every_failure([&](test::turn& now) {
            std::optional<nibble::tokenizer> made_one;
            now.in([&] {
              made_one.emplace(file);
              nibble::text_stream stream(*made_one);
              for (const nibble::token t : made_one->encode(input)) stream.push(t);
              stream.flush();
            });
            if (made_one) CHECK(made_one->encode(input) == expected);
          }) > 20);
  }
}

TEST_CASE("no memory: a model is planned for what there is") {
  const test::stored_model stored(test::one_layer("llama"));
  const nibble::gguf::file file(stored.path);
  auto options = test::small_options();
  options.device = "auto";
  options.plan.on_shortage = nibble::shortage::degrade;
  nibble::gpu::emulated_module module(
      std::vector{nibble::gpu::emulated_options{.memory = 1 << 20}});
  const auto found = test::hardware_with(&module);
  CHECK(test::every_failure(
            [&](test::turn& now) { now.in([&] { nibble::plan(file, found, options); }); }) > 100);
}

TEST_CASE("no memory: the machine is looked at") {
  CHECK(test::every_failure([&](test::turn& now) { now.in([] { nibble::devices::probe(); }); }) >
        20);
}

TEST_CASE("no memory: a file is quantised") {
  test::tiny_model made("llama");
  made.set("embedding_length", 64).set("feed_forward_length", 96);
  const test::stored_model stored(made);
  const test::temporary_folder folder;
  nibble::quantise_options options;
  options.mix.type = "q4_k_m";
  options.threads = 2;
  CHECK(test::every_failure([&](test::turn& now) {
          const bool done =
              now.in([&] { nibble::quantise_file(stored.path, folder / "a.gguf", options); });
          const auto names = test::names_in(folder);
          CHECK(names == (done ? std::set<std::string>{"a.gguf"} : std::set<std::string>{}));
          std::filesystem::remove(folder / "a.gguf");
        }) > 100);
}
