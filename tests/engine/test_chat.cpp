// Conversations with the model that comes with the project. The expected answers are those of
// tools/train/check_gguf.py --samples, an independent forward pass in float32.

#include "engine_test.hpp"

namespace {

class conversation {
 public:
  std::string ask(const char* question) {
    const nibble::chat_message message[] = {{"user", question}};
    const auto& tokenizer = model_.tokenizer();
    auto tokens = layout_.encode(tokenizer, message);
    // only the first turn begins a text
    if (!session_.tokens().empty() && tokens.front() == tokenizer.bos()) {
      tokens.erase(tokens.begin());
    }
    auto text = session_.generate(tokens, {.max_tokens = 100});
    std::string answer = text.text();
    CHECK(text.finished() == nibble::finish_reason::end_of_text);
    return answer;
  }
  std::size_t size() const { return session_.tokens().size(); }

 private:
  nibble::model model_{nibble::gguf::file(test::tales),
                       test::exact_options(nibble::activation_type::float32, 2)};
  nibble::chat_template layout_{model_.tokenizer().chat_template()};
  nibble::session session_{model_, {.temperature = 0}};
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
    std::size_t size = 0;
    for (const auto& [question, answer] : exchanges) {
      CHECK(chat.ask(question) == answer);
      CHECK(chat.size() > size);
      size = chat.size();
    }
  }
}
