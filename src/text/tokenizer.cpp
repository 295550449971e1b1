#include <algorithm>
#include <base/memory_for.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/utf8.hpp>
#include <nibble/text/tokenizer.hpp>
#include <text/markup.hpp>
#include <text/text_model.hpp>
#include <text/vocabulary.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

std::unique_ptr<text::text_model> make_model(const gguf::file& file, const text::vocabulary& v) {
  switch (v.kind) {
    case tokenizer_kind::sentencepiece:
      return text::make_sentencepiece(v);
    case tokenizer_kind::wordpiece:
      return text::make_wordpiece(v);
    default:
      return text::make_bpe(file, v);
  }
}

bool is_ascii_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// Letters that the patterns of all pre-tokenizers have in words which spaces end. (Others are not
// in the lists of some: what these do not match goes on over spaces.)
bool is_word_letter(char32_t c) {
  constexpr std::pair<char32_t, char32_t> ranges[] = {
      {'A', 'Z'},       {'a', 'z'},        // Latin
      {0xc0, 0xd6},     {0xd8, 0xf6},      // without the signs of multiplication and division
      {0xf8, 0x1ba},    {0x38e, 0x3a1},    // Greek
      {0x3a3, 0x3f5},   {0x3f7, 0x481},    // and Cyrillic
      {0x48a, 0x52f},   {0x3041, 0x3096},  // Hiragana
      {0x30a1, 0x30fa}, {0x4e00, 0x9fa5},  // Katakana, Han
      {0xac00, 0xd7a3},                    // Hangul
  };
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const auto& range) { return c >= range.first && c <= range.second; });
}

bool ends_with_word_letter(std::string_view text) {
  // a lead byte is never part of another character, so this one is a character of the text
  for (std::size_t size = 1; size <= std::min<std::size_t>(3, text.size()); ++size) {
    const utf8_code_point last = decode_utf8(text, text.size() - size);
    if (last.state == utf8_state::valid && last.size == size) return is_word_letter(last.value);
  }
  return false;
}

// Where the last border between a letter and one of these spaces is; 0 if there is none.
std::size_t last_word_end(std::string_view text, std::string_view spaces) {
  std::size_t at = text.find_last_of(spaces);
  while (at != text.npos && at > 0 && !ends_with_word_letter(text.substr(0, at))) {
    at = text.find_last_of(spaces, at - 1);
  }
  return at == text.npos ? 0 : at;
}

}  // namespace

struct tokenizer::state {
  text::vocabulary vocabulary;
  text::markup_finder markup;
  std::unique_ptr<text::text_model> model;

  explicit state(const gguf::file& file)
      : vocabulary(text::read_vocabulary(file)),
        markup(vocabulary),
        model(make_model(file, vocabulary)) {}
  state(const state&) = delete;
  state& operator=(const state&) = delete;

  void check(token id) const {
    if (id >= 0 && id < vocabulary.size()) return;
    throw error(errc::invalid_argument,
                concat("There is no token ", id, "; the vocabulary has the ids 0 to ",
                       vocabulary.size() - 1, "."));
  }

  std::vector<token> encode(std::string_view text, std::span<const text_part> parts,
                            bool add_special) const;
  std::string decode(std::span<const token> ids, const decode_options& options) const;
};

bool has_tokenizer(const gguf::file& file) {
  const auto model = file.get<std::string_view>("tokenizer.ggml.model");
  return model && *model != "no_vocab" && *model != "none";
}

tokenizer::tokenizer(const gguf::file& file)
    : state_(
          with_memory_for("the vocabulary", [&] { return std::make_shared<const state>(file); })) {}

// `parts` are consecutive stretches of `text`.
std::vector<token> tokenizer::state::encode(std::string_view text, std::span<const text_part> parts,
                                            bool add_special) const {
  if (text.size() > longest_text) {
    throw error(errc::invalid_argument, concat("The text has ", text.size(), " bytes; at most ",
                                               longest_text, " can be tokenised at once."));
  }
  const text::vocabulary& v = vocabulary;
  std::vector<token> out;
  out.reserve(text.size() / 4 + 8);
  if (add_special && v.add_bos) out.push_back(*v.bos);

  text::encode_scratch work;
  std::size_t begin = 0;  // of the plain text before `at`
  bool at_border = true;
  const auto flush_until = [&](std::size_t end) {
    if (end == begin) return;
    model->encode(text.substr(begin, end - begin), at_border, work, out);
    at_border = false;
  };
  std::size_t at = 0, part_end = 0;
  for (const text_part& part : parts) {
    part_end += part.text.size();
    while (at < part_end) {
      const auto found = markup.longest_at(text.substr(at), part.parse_special ? part_end - at : 0);
      if (found.size == 0) {
        ++at;
        continue;
      }
      flush_until(at);
      out.push_back(found.id);
      at += found.size;
      if (v.markup_eats_space && v.types[found.id] == token_type::control) {
        while (at < text.size() && is_ascii_space(text[at])) ++at;
      }
      begin = at;
      at_border = true;
    }
  }
  flush_until(text.size());

  if (add_special && v.add_eos) out.push_back(*v.eos);
  if (add_special && v.kind == tokenizer_kind::wordpiece) out.push_back(*v.separator);
  return out;
}

std::vector<token> tokenizer::encode(std::string_view text, const encode_options& options) const {
  const text_part part{text, options.parse_special};
  return with_memory_for("the tokens of a text", [&] {
    return state_->encode(text, {&part, 1}, options.add_special);
  });
}

std::vector<token> tokenizer::encode(std::span<const text_part> parts, bool add_special) const {
  return with_memory_for("the tokens of a text", [&] {
    std::string text;
    for (const text_part& part : parts) text += part.text;
    return state_->encode(text, parts, add_special);
  });
}

// No word goes on from a letter over a space or a line's end: every pre-tokenizer ends one there,
// and the other models do where their vocabulary allows it. But markup might.
std::size_t tokenizer::settled_bytes(std::string_view text) const {
  const text::vocabulary& v = state_->vocabulary;
  std::string spaces;
  for (const char c : {' ', '\n'}) {
    if (state_->model->ends_words_at(c)) spaces += c;
  }
  for (token id = 0; id < v.size(); ++id) {
    const bool whole = v.is_markup(id) || v.types[id] == token_type::user_defined;
    if (whole && last_word_end(v.names[id], spaces) > 0) return 0;
  }
  return last_word_end(text, spaces);
}

std::string tokenizer::piece(token id, bool special) const {
  state_->check(id);
  if (!special && state_->vocabulary.is_markup(id)) return {};
  return with_memory_for("the text of a token",
                         [&] { return std::string(state_->vocabulary.pieces[id]); });
}

std::string_view tokenizer::bytes(token id) const {
  state_->check(id);
  if (state_->vocabulary.is_markup(id)) return {};
  return state_->vocabulary.pieces[id];
}

std::string tokenizer::state::decode(std::span<const token> ids,
                                     const decode_options& options) const {
  const text::vocabulary& v = vocabulary;
  // the space that encoding added, or that WordPiece has before every word
  bool drop_space =
      !options.keep_prefix && (v.add_space_prefix || v.kind == tokenizer_kind::wordpiece);
  std::string out;
  for (const token id : ids) {
    check(id);
    if (!options.special && v.is_markup(id)) continue;
    std::string_view piece = v.pieces[id];
    const bool from_text = v.types[id] == token_type::normal;
    if (drop_space && from_text && piece.starts_with(' ')) piece.remove_prefix(1);
    if (!v.is_markup(id)) drop_space = false;
    out += piece;
  }
  return out;
}

std::string tokenizer::decode(std::span<const token> ids, const decode_options& options) const {
  return with_memory_for("the text of tokens", [&] { return state_->decode(ids, options); });
}

std::optional<token> tokenizer::find(std::string_view name) const {
  const token id = state_->vocabulary.token_of_name(name);
  if (id == text::text_table::absent) return {};
  return id;
}

std::string_view tokenizer::name(token id) const {
  state_->check(id);
  return state_->vocabulary.names[id];
}

token_type tokenizer::type(token id) const {
  state_->check(id);
  return state_->vocabulary.types[id];
}

tokenizer_kind tokenizer::kind() const noexcept {
  return state_->vocabulary.kind;
}
std::string_view tokenizer::pre_tokenizer() const noexcept {
  return state_->vocabulary.pre;
}
std::int32_t tokenizer::size() const noexcept {
  return state_->vocabulary.size();
}
std::optional<token> tokenizer::bos() const noexcept {
  return state_->vocabulary.bos;
}
std::optional<token> tokenizer::eos() const noexcept {
  return state_->vocabulary.eos;
}
std::optional<token> tokenizer::eot() const noexcept {
  return state_->vocabulary.eot;
}
std::optional<token> tokenizer::unknown() const noexcept {
  return state_->vocabulary.unknown;
}
std::optional<token> tokenizer::separator() const noexcept {
  return state_->vocabulary.separator;
}
std::optional<token> tokenizer::padding() const noexcept {
  return state_->vocabulary.padding;
}
std::optional<token> tokenizer::mask() const noexcept {
  return state_->vocabulary.mask;
}
bool tokenizer::adds_bos() const noexcept {
  return state_->vocabulary.add_bos;
}
bool tokenizer::adds_eos() const noexcept {
  return state_->vocabulary.add_eos;
}
bool tokenizer::adds_space_prefix() const noexcept {
  return state_->vocabulary.add_space_prefix;
}

bool tokenizer::is_end_of_generation(token id) const noexcept {
  return id >= 0 && id < size() && state_->vocabulary.ends_generation[id];
}

std::string_view tokenizer::chat_template() const noexcept {
  return state_->vocabulary.chat_template;
}

}  // namespace nibble::inline NIBBLE_ABI
