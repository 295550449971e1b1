// Small vocabularies made by the tests.
#pragma once

#include <array>
#include <cstdio>
#include <nibble/base/utf8.hpp>
#include <string>
#include <vector>

#include "vocabulary_file.hpp"

namespace test {

inline constexpr std::int32_t normal = 1, unknown = 2, control = 3, user_defined = 4, byte = 6;

// In the SentencePiece vocabularies here, bytes follow <unk>, <s>, </s>.
inline nibble::token byte_id(unsigned char value) {
  return 3 + value;
}

struct piece {
  std::string name;
  float score = 0;
  std::int32_t type = normal;
};

inline vocabulary_file sentencepiece(const std::vector<piece>& more) {
  std::vector<piece> pieces = {{"<unk>", 0, unknown}, {"<s>", 0, control}, {"</s>", 0, control}};
  for (int i = 0; i < 256; ++i) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", i);
    pieces.push_back({name, 0, byte});
  }
  pieces.insert(pieces.end(), more.begin(), more.end());
  std::vector<std::string> names;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  for (const piece& p : pieces) {
    names.push_back(p.name);
    scores.push_back(p.score);
    types.push_back(p.type);
  }
  vocabulary_file file;
  file.text("tokenizer.ggml.model", "llama")
      .array("tokenizer.ggml.tokens", names)
      .array("tokenizer.ggml.scores", scores)
      .array("tokenizer.ggml.token_type", types)
      .number("tokenizer.ggml.bos_token_id", 1)
      .number("tokenizer.ggml.eos_token_id", 2);
  return file;
}

inline vocabulary_file sentencepiece_of_bytes() {
  return sentencepiece({});
}

// a, b, ab, ▁ab (best), runs of a, and markup.
inline vocabulary_file small_sentencepiece() {
  return sentencepiece({{"a", -9},
                        {"b", -9},
                        {"\xe2\x96\x81", -9},
                        {"ab", -2},
                        {"\xe2\x96\x81"
                         "ab",
                         -1},
                        {"aa", -3},
                        {"aaaa", -4},
                        {"<|end|>", 0, control},
                        {"<tag>", 0, user_defined},
                        {"<tag>+", 0, user_defined}});
}

// The name of bytes in GPT-2's alphabet, written down from its definition: the printable bytes of
// Latin-1 stand for themselves, the others are numbered from U+0100 in their order.
inline std::string byte_level_name(const std::string& bytes) {
  static const auto alphabet = [] {
    std::array<char32_t, 256> out{};
    char32_t next = 256;
    for (int i = 0; i < 256; ++i) {
      const bool printable = (i > 32 && i < 127) || (i > 160 && i != 173);
      out[i] = printable ? static_cast<char32_t>(i) : next++;
    }
    return out;
  }();
  std::string out;
  for (const char c : bytes) nibble::append_utf8(out, alphabet[static_cast<unsigned char>(c)]);
  return out;
}

// All bytes (ids 0 to 255), then `names`, then <|end|> (control) and <tag> (user-defined).
inline vocabulary_file byte_level(const std::vector<std::string>& names,
                                  const std::vector<std::string>& merges,
                                  const std::string& pre = "gpt-2") {
  std::vector<std::string> all;
  for (int i = 0; i < 256; ++i)
    all.push_back(byte_level_name(std::string(1, static_cast<char>(i))));
  all.insert(all.end(), names.begin(), names.end());
  std::vector<std::int32_t> types(all.size(), normal);
  all.insert(all.end(), {"<|end|>", "<tag>"});
  types.insert(types.end(), {control, user_defined});
  vocabulary_file file;
  file.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", pre)
      .array("tokenizer.ggml.tokens", all)
      .array("tokenizer.ggml.token_type", types)
      .array("tokenizer.ggml.merges", merges)
      .number("tokenizer.ggml.bos_token_id", static_cast<std::int32_t>(all.size()) - 2)
      .number("tokenizer.ggml.eos_token_id", static_cast<std::int32_t>(all.size()) - 2);
  return file;
}

inline vocabulary_file wordpiece() {
  vocabulary_file file;
  file.text("tokenizer.ggml.model", "bert")
      .array("tokenizer.ggml.tokens",
             std::vector<std::string>{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
                                      "\xe2\x96\x81"
                                      "a",
                                      "a", "aa", "\xe2\x96\x81!",
                                      "\xe2\x96\x81"
                                      "cafe",
                                      "s"})
      .array("tokenizer.ggml.token_type",
             std::vector<std::int32_t>{control, control, control, control, control, normal, normal,
                                       normal, normal, normal, normal});
  return file;
}

}  // namespace test
