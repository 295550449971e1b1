// Text to token ids and back, by the rules that a GGUF file states: SentencePiece-style merging by
// score, byte-level BPE, and WordPiece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/gguf/file.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

using token = std::int32_t;

// As GGUF numbers them in tokenizer.ggml.token_type.
enum class token_type : std::uint8_t {
  undefined = 0,
  normal = 1,
  unknown = 2,
  control = 3,       // markup such as <|im_end|>; never text
  user_defined = 4,  // text that is always one token
  unused = 5,
  byte = 6,  // <0x00> to <0xFF>
};

enum class tokenizer_kind : std::uint8_t { sentencepiece, byte_level_bpe, raw_bpe, wordpiece };

struct encode_options {
  bool add_special = true;     // begin (and end) tokens as the model asks for them
  bool parse_special = false;  // markup in the text becomes control tokens
};

struct decode_options {
  bool special = false;      // control and unknown tokens appear as their names
  bool keep_prefix = false;  // keeps the space that encoding put before the first word
};

// A stretch of a longer text, see the second form of encode.
struct text_part {
  std::string_view text;
  bool parse_special = false;
};

// True if the file holds a vocabulary that `tokenizer` might read (models for tests have none).
NIBBLE_API bool has_tokenizer(const gguf::file& file);

// Immutable: const use from many threads is safe, and copies share one vocabulary.
class NIBBLE_API tokenizer {
 public:
  // Copies what it needs; the file may be closed afterwards.
  // Throws error: unsupported (no vocabulary, or a kind or pre-tokenizer that is not known: the
  // sentence lists those that are), bad_file (names key, index and value) or out_of_memory.
  explicit tokenizer(const gguf::file& file);

  // Bytes that are not valid UTF-8 are kept where the vocabulary has tokens for them: they become
  // byte tokens, and decode gives them back (WordPiece drops them). Several BPE vocabularies lack
  // bytes that valid UTF-8 never has, 0xC0, 0xC1 and 0xF5 to 0xFF (DeepSeek's, Falcon's, MPT's,
  // StarCoder's), and some lack a few more. A byte without a token is the unknown token, in a
  // vocabulary that has none U+FFFD, and decode gives these instead. Control tokens come only from
  // parse_special and add_special, and from such a byte if the unknown token is one.
  // Time grows linearly with the text (times the logarithm of the longest word).
  // Throws invalid_argument for a text above longest_text, and for a byte that cannot be expressed;
  // out_of_memory; unsupported for a word of megabytes that the pattern's engine gives up on.
  std::vector<token> encode(std::string_view text, const encode_options& options = {}) const;
  // Offsets are 32 bits wide, and marking spaces makes a text up to three times as long.
  static constexpr std::size_t longest_text = (1u << 29) - 1;

  // For text that is still being read: the length of the longest beginning of `text` that is known
  // to keep its tokens whatever follows it; 0 if none is. What encode gives for this beginning is,
  // without the tokens that end a text, the beginning of what it gives for the whole.
  std::size_t settled_bytes(std::string_view text) const;

  // The parts joined, tokenised as one text; markup is looked for only in parts that allow it. So a
  // chat prompt keeps the borders of its template, and nobody can write markup into a message.
  std::vector<token> encode(std::span<const text_part> parts, bool add_special = true) const;

  // The bytes of one token, maybe a part of a UTF-8 sequence. Control and unknown tokens are empty
  // unless `special`. Throws invalid_argument if there is no such token.
  std::string piece(token id, bool special = false) const;
  // piece(id) without a copy; valid as long as this tokenizer or a copy of it.
  std::string_view bytes(token id) const;

  // The bytes of many. Throws invalid_argument if there is no such token, out_of_memory.
  std::string decode(std::span<const token> ids, const decode_options& options = {}) const;

  // The token of this name as the vocabulary spells it (byte-level vocabularies spell " a" as
  // "Ġa").
  std::optional<token> find(std::string_view name) const;
  std::string_view name(token id) const;
  token_type type(token id) const;

  tokenizer_kind kind() const noexcept;
  std::string_view pre_tokenizer() const noexcept;  // "" unless BPE
  std::int32_t size() const noexcept;

  std::optional<token> bos() const noexcept;
  std::optional<token> eos() const noexcept;
  std::optional<token> eot() const noexcept;
  std::optional<token> unknown() const noexcept;
  std::optional<token> separator() const noexcept;
  std::optional<token> padding() const noexcept;
  std::optional<token> mask() const noexcept;
  bool adds_bos() const noexcept;
  bool adds_eos() const noexcept;
  bool adds_space_prefix() const noexcept;

  // eos, eot, eom, and control tokens that are known by name to end a turn.
  bool is_end_of_generation(token id) const noexcept;

  // tokenizer.chat_template, or "".
  std::string_view chat_template() const noexcept;

 private:
  struct state;
  std::shared_ptr<const state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI
