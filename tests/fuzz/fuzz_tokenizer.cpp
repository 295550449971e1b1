// Text, and a vocabulary that is as odd as the bytes say: an error, or tokens that decode again.
#include <cstdlib>
#include <nibble/text/chat_template.hpp>
#include <nibble/text/text_stream.hpp>
#include <string>
#include <text/made_vocabularies.hpp>
#include <vector>

namespace {

void check(bool truth) {
  if (!truth) std::abort();
}

// Hands out the input piece by piece; zeros when it is spent.
class source {
 public:
  source(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  std::uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  std::string text(std::size_t most) {
    std::string out;
    for (std::size_t n = byte() % (most + 1); n > 0 && left_ > 0; --n) {
      out += static_cast<char>(byte());
    }
    return out;
  }
  std::string rest() {
    std::string out(reinterpret_cast<const char*>(data_), left_);
    left_ = 0;
    return out;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

test::vocabulary_file make(source& in) {
  constexpr const char* models[] = {"llama", "gpt2", "gemma4", "bert"};
  constexpr const char* pres[] = {"gpt-2",  "llama-bpe", "deepseek-llm", "falcon",
                                  "gpt-4o", "kimi-k2",   "deepseek-v3",  "qwen35"};
  const bool honest = in.byte() % 4 != 0;
  test::vocabulary_file file;
  file.text("tokenizer.ggml.model", models[in.byte() % 4]);
  file.text("tokenizer.ggml.pre", pres[in.byte() % 8]);
  std::vector<std::string> names = {"<unk>", "<s>", "</s>", "[CLS]", "[SEP]", "[UNK]"};
  std::vector<std::int32_t> types = {2, 3, 3, 3, 3, 2};
  std::vector<std::string> merges;
  for (std::size_t n = in.byte(); n > 0; --n) {
    const std::string a = in.text(4), b = in.text(4);
    const bool encoded = in.byte() % 2 == 0;
    const std::string left = encoded ? test::byte_level_name(a) : a;
    const std::string right = encoded ? test::byte_level_name(b) : b;
    names.insert(names.end(), {left, right, left + right});
    merges.push_back(left + " " + right);
    for (int i = 0; i < 3; ++i) types.push_back(honest ? 1 : in.byte() % 8);
  }
  std::vector<float> scores(names.size());
  for (float& s : scores) s = static_cast<float>(in.byte());
  if (!honest && in.byte() % 4 == 0) scores.resize(in.byte());
  file.array("tokenizer.ggml.tokens", names)
      .array("tokenizer.ggml.token_type", types)
      .array("tokenizer.ggml.scores", scores)
      .array("tokenizer.ggml.merges", merges);
  file.number("tokenizer.ggml.bos_token_id", honest ? 1 : in.byte() - 2);
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  source in(data, size);
  try {
    const auto made = make(in);
    const nibble::tokenizer tokenizer = made.tokenizer();
    const std::string text = in.rest();
    for (const bool parse : {false, true}) {
      const auto ids = tokenizer.encode(text, {.parse_special = parse});
      check(ids.size() <= 3 * (text.size() + 1) + 3);
      nibble::text_stream stream(tokenizer);
      std::string streamed;
      for (const auto id : ids) streamed += stream.push(id);
      streamed += stream.flush();
      check(tokenizer.decode(ids, {.special = true}).size() >= tokenizer.decode(ids).size());
      for (std::size_t i = 0; i < streamed.size();) {
        const auto c = nibble::decode_utf8(streamed, i);
        check(c.state == nibble::utf8_state::valid);
        i += c.size;
      }
    }
    const nibble::chat_template chat(text);
    chat.render(std::vector<nibble::chat_message>{{"user", text}});
  } catch (const nibble::error&) {
  }
  return 0;
}
