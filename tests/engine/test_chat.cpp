// Conversations with the model that comes with the project. The expected answers are those of
// tools/train/check_gguf.py --samples, an independent forward pass in float32.

#include "engine_test.hpp"

namespace {

class conversation {
 public:
  std::string ask(const char* question) {
    messages_.push_back({"user", question});
    auto text = session_.reply(messages_, {.max_tokens = 100});
    messages_.push_back({"assistant", text.text()});
    CHECK(text.finished() == nibble::finish_reason::end_of_text);
    return messages_.back().content;
  }
  const nibble::session& session() const { return session_; }

 private:
  nibble::model model_{nibble::gguf::file(test::tales),
                       test::exact_options(nibble::activation_type::float32, 2)};
  nibble::session session_{model_, {.temperature = 0}};
  std::vector<nibble::chat_message> messages_;
};

}  // namespace

using exchange = std::pair<const char*, const char*>;  // question, answer

TEST_CASE("a chat goes on turn by turn") {
  const std::vector<std::vector<exchange>> conversations = {
      {{"My name is Sam.", "Nice to meet you, Sam!"},
       {"What is a key for?", "You use it to open a door."},
       {"What is my name?", "You are Sam."}},
      {{"What colour is the sky?", "The sky is blue."},
       {"What is the opposite of big?", "Small."},
       {"What day comes after Friday?", "Saturday comes after Friday."},
       {"What does a cow say?", "A cow moos: moo, moo!"},
       {"What do rabbits eat?", "Rabbits like carrots."}},
      {{"What is 3 plus 4?", "3 plus 4 is 7."},
       {"How much is twelve minus five?", "Twelve minus five is five."},
       {"Count to ten.", "One, two, three, four, five, six, seven, eight, nine, ten."},
       {"I have two apples and get five more. How many do I have?", "You have seven apples."}}};
  for (const auto& exchanges : conversations) {
    conversation chat;
    for (const auto& [question, answer] : exchanges) CHECK(chat.ask(question) == answer);
    // each turn was computed once: the prompts' and the answers' tokens are those that are held
    const auto& work = chat.session().timings();
    CHECK(work.prompt_tokens + work.generated_tokens ==
          static_cast<std::int64_t>(chat.session().tokens().size()));
  }
}
