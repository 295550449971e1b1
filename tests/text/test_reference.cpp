// Every vocabulary with its cases, as the reference implementation tokenised them.
#include <filesystem>
#include <fstream>
#include <nibble/text/tokenizer.hpp>
#include <sstream>

#include "catch.hpp"
#include "test_data.hpp"

namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// Cases stand between lines of __ggml_vocab_test__; the line end before that line is not theirs.
std::vector<std::string> cases_of(const std::string& text) {
  const std::string border = "\n__ggml_vocab_test__\n";
  std::vector<std::string> out;
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find(border, begin)) != text.npos;
       begin = end + border.size()) {
    out.push_back(text.substr(begin, end - begin));
  }
  return out;
}

std::vector<nibble::token> ids_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<nibble::token> ids;
  for (nibble::token id; in >> id;) ids.push_back(id);
  return ids;
}

}  // namespace

TEST_CASE("every vocabulary gives the reference's tokens, line by line") {
  const auto folder = test::data("vocab");
  if (!folder) return;
  std::size_t vocabularies = 0, lines = 0;
  for (const auto& entry : std::filesystem::directory_iterator(*folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const std::string name = entry.path().filename().string();
    const nibble::tokenizer tokenizer(nibble::gguf::file(entry.path()));
    const auto inputs = cases_of(read(entry.path().string() + ".inp"));
    std::istringstream expected(read(entry.path().string() + ".out"));
    ++vocabularies;
    std::size_t cases = 0;
    for (std::string line; std::getline(expected, line); ++cases, ++lines) {
      REQUIRE(cases < inputs.size());
      INFO(name << " case " << cases << ": '" << inputs[cases] << "'");
      const auto ids = tokenizer.encode(inputs[cases], {.add_special = false});
      CHECK(ids == ids_of(line));
      if (tokenizer.kind() != nibble::tokenizer_kind::wordpiece) {
        CHECK(tokenizer.decode(ids) == inputs[cases]);
      }
      // with its borders: the same tokens between those that the model asks for
      auto bordered = tokenizer.encode(inputs[cases]);
      if (tokenizer.adds_bos()) {
        REQUIRE(bordered.front() == tokenizer.bos());
        bordered.erase(bordered.begin());
      }
      bordered.resize(ids.size());
      CHECK(bordered == ids);
    }
    CHECK(cases == inputs.size());
  }
  CHECK(vocabularies == 12);
  CHECK(lines == 12 * 46);
}

TEST_CASE("prompts of the story models are the reference's tokens") {
  const auto path = test::data("models/stories260K-q8_0.gguf");
  if (!path) return;
  const nibble::tokenizer tokenizer{nibble::gguf::file{*path}};
  using ids = std::vector<nibble::token>;
  CHECK(tokenizer.encode("") == ids{1});
  CHECK(tokenizer.encode("Once upon a time") == ids{1, 403, 407, 261, 378});
  CHECK(tokenizer.encode("Tom and his cat") == ids{1, 274, 287, 269, 345, 280, 294});
  const ids continued = {403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421};
  CHECK(tokenizer.decode(continued, {.keep_prefix = true}) ==
        " Once upon a time, there was a little girl");
  CHECK(tokenizer.decode(continued) == "Once upon a time, there was a little girl");
}
