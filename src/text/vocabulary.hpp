// The tokenizer.* keys of a GGUF file, checked.
#pragma once

#include <array>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <text/text_table.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

// U+2581, which stands for the space in SentencePiece and WordPiece vocabularies.
inline constexpr std::string_view space_mark = "\xe2\x96\x81";

// Markup longer than this is refused: each byte of a text may be compared with so many.
inline constexpr std::size_t longest_markup = 1024;

struct vocabulary {
  std::string file;  // for errors
  tokenizer_kind kind = tokenizer_kind::sentencepiece;
  std::string pre;  // of BPE only

  text_list names;   // as the file spells them
  text_list pieces;  // the bytes that they stand for
  text_table by_name;
  std::vector<token_type> types;
  std::vector<float> scores;             // SentencePiece only
  std::array<token, 256> byte_tokens{};  // text_table::absent where there is none
  std::vector<bool> ends_generation;

  std::optional<token> bos, eos, eot, eom, unknown, separator, padding, mask;
  bool add_bos = false, add_eos = false, add_separator = false;
  bool add_space_prefix = false;
  bool lower_case = true, strip_accents = true;  // WordPiece only
  bool markup_eats_space = false;                // white space after markup goes with it (Phi-3)
  std::string chat_template;

  std::int32_t size() const { return static_cast<std::int32_t>(types.size()); }

  // What may come out of plain text. SentencePiece defines it so: control, unknown and byte
  // pieces stand in a map of their own.
  bool is_ordinary(token id) const {
    const token_type t = types[id];
    return t != token_type::control && t != token_type::unknown && t != token_type::byte;
  }
  bool is_markup(token id) const {
    return types[id] == token_type::control || types[id] == token_type::unknown;
  }
  token token_of_name(std::string_view name) const { return by_name.find(names, name); }
};

vocabulary read_vocabulary(const gguf::file& file);

// GPT-2's alphabet: every byte as a printable character. Space is U+0120.
char32_t byte_character(std::uint8_t byte);
// The bytes that a name in that alphabet stands for; nothing if it has another character.
std::optional<std::string> bytes_of_characters(std::string_view name);

// The byte of "<0x41>"; nothing for any other form.
std::optional<std::uint8_t> parse_byte_name(std::string_view name);

}  // namespace nibble::inline NIBBLE_ABI::text
