// The three ways from text without markup to tokens.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <string>
#include <string_view>
#include <text/merge.hpp>
#include <text/pre_tokenizer.hpp>
#include <text/vocabulary.hpp>
#include <text/word_cache.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

// Memory that one call of encode reuses from word to word.
struct encode_scratch {
  std::vector<symbol> symbols;
  std::vector<merge_candidate<std::uint32_t>> by_rank;
  std::vector<merge_candidate<float>> by_score;
  std::vector<std::uint32_t> ends, marks;
  std::string normalised;
  pre_tokenizer::scratch patterns;
  word_cache words;
};

class text_model {
 public:
  virtual ~text_model() = default;
  // Appends the tokens of `text`, which is shorter than 2 GiB. `at_border`: nothing or markup
  // stands before it.
  virtual void encode(std::string_view text, bool at_border, encode_scratch& work,
                      std::vector<token>& out) const = 0;
  // Whether a word ends where this, a space or \n, follows a letter, whatever stands after that.
  virtual bool ends_words_at(char space) const = 0;
};

// `v` must outlive the model. bpe also reads the merges from the file.
std::unique_ptr<text_model> make_bpe(const gguf::file& file, const vocabulary& v);
std::unique_ptr<text_model> make_sentencepiece(const vocabulary& v);
std::unique_ptr<text_model> make_wordpiece(const vocabulary& v);

// Appends the token of one byte, else the unknown token, else the tokens of U+FFFD, else throws
// error(invalid_argument).
void append_byte(const vocabulary& v, std::uint8_t byte, std::vector<token>& out);

// Appends the tokens of the symbols that merging left; characters that are none become bytes.
void append_symbols(const vocabulary& v, std::string_view word, const std::vector<symbol>& symbols,
                    std::vector<token>& out);

// One symbol per character; a byte that is not part of valid UTF-8 is a symbol of its own.
void character_symbols(const vocabulary& v, const text_table& ordinary, std::string_view word,
                       std::vector<symbol>& symbols);

// Text with U+2581 for every space, after one more if `prefix`.
void mark_spaces(std::string_view text, bool prefix, std::string& out);

// Where no token has U+2581 after another character, merges cannot cross the border before a run of
// them, and text can be cut there into words.
bool space_marks_begin_words(const vocabulary& v);
void cut_at_space_marks(std::string_view text, std::vector<std::uint32_t>& ends);

// The table of what may come out of plain text, by name.
text_table ordinary_names(const vocabulary& v);

}  // namespace nibble::inline NIBBLE_ABI::text
