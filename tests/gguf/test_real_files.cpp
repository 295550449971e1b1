#include <catch.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/file.hpp>

#include "raw_file.hpp"
#include "test_data.hpp"
#include "walk.hpp"

TEST_CASE("every real file opens, by path and from memory") {
  for (const char* folder : {"models", "vocab", "golden/archs"}) {
    const auto path = test::data(folder);
    if (!path) continue;
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(*path)) {
      if (entry.path().extension() != ".gguf") continue;
      INFO(entry.path());
      const nibble::gguf::file file(entry.path());
      const test::blob content = test::load(entry.path());
      const nibble::gguf::file memory(content, "memory");
      CHECK(file.find("general.architecture") != nullptr);
      CHECK(file.size_bytes() == content.size());
      CHECK(test::walk(file) == test::walk(memory));
      ++count;
    }
    CHECK(count > 0);
  }
}

TEST_CASE("a real model's directory") {
  const auto path = test::data("models/stories260K-q4_0.gguf");
  if (!path) return;
  const nibble::gguf::file file(*path);
  CHECK(file.require<std::string_view>("general.architecture") == "llama");
  CHECK(file.require<std::uint32_t>("llama.block_count") == 5);
  CHECK(file.require<std::int64_t>("llama.embedding_length") == 64);
  CHECK(file.get_array<std::string_view>("tokenizer.ggml.tokens")->size() == 512);
  CHECK(file.tensors().size() == 47);
  const nibble::gguf::tensor_info* down = file.find_tensor("blk.0.ffn_down.weight");
  REQUIRE(down != nullptr);
  CHECK(down->view.shape == nibble::shape{{172, 64, 1, 1}});
  CHECK(nibble::format_name(down->view.format) == "f16");
  CHECK(down->bytes == 172 * 64 * 2);
}
