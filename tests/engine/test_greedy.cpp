// The text that a model writes when it always takes the most probable token, against an
// independently written float32 implementation.

#include <array>

#include "engine_test.hpp"

namespace {

struct expectation {
  std::string prompt, text;
  std::vector<nibble::token> prompt_ids, greedy_ids;
};

std::vector<expectation> read_expectations(const std::filesystem::path& path) {
  std::vector<expectation> all;
  for (const auto& entry : test::read_json(path)) {
    all.push_back(
        {entry.at("prompt"), entry.at("text"), entry.at("prompt_ids"), entry.at("greedy_ids")});
  }
  return all;
}

// By append and sample, the way of those who want each token.
void check_token_by_token(const nibble::model& model, const expectation& e) {
  nibble::session session(model, {.temperature = 0});
  std::vector<nibble::token> found;
  session.append(e.prompt_ids);
  while (found.size() < e.greedy_ids.size()) {
    found.push_back(session.sample());
    session.append({&found.back(), 1});
  }
  CHECK(found == e.greedy_ids);
  CHECK(session.tokens().size() == e.prompt_ids.size() + found.size());
}

// By generate, which turns text into tokens and back.
void check_text(const nibble::model& model, const expectation& e) {
  nibble::session session(model, {.temperature = 0});
  auto text =
      session.generate(e.prompt, {.max_tokens = static_cast<std::int32_t>(e.greedy_ids.size())});
  CHECK(text.text() == e.text);
  CHECK(text.finished() == nibble::finish_reason::max_tokens);
}

}  // namespace

TEST_CASE("greedy text is the reference's") {
  for (const std::string name : std::array{"stories260K-f32", "stories260K-x256-f32"}) {
    const auto golden = test::data("golden/" + name + ".json");
    const auto path = test::data("models/" + name + ".gguf");
    if (!golden || !path) return;
    const nibble::model model(nibble::gguf::file(*path),
                              test::exact_options(nibble::activation_type::float32, 2));
    const auto expectations = read_expectations(*golden);
    CHECK(expectations.size() >= 3);
    for (const expectation& e : expectations) {
      INFO(name << ", prompt '" << e.prompt << "'");
      CHECK(model.tokenizer().encode(e.prompt) == e.prompt_ids);
      check_token_by_token(model, e);
      check_text(model, e);
    }
  }
}
