// WordPiece with BERT's normalisation. Devlin et al., 2019, arXiv:1810.04805; a word is cut into
// the longest pieces from the left. GGUF writes the first piece of a word with U+2581 before it,
// and the pieces after it without "##".
#include <utf8proc.h>

#include <algorithm>
#include <nibble/base/utf8.hpp>
#include <text/text_model.hpp>

namespace nibble::inline NIBBLE_ABI::text {
namespace {

// BERT's own limit; longer words are the unknown token.
constexpr std::size_t longest_word_characters = 100;

bool is_chinese(char32_t c) {
  constexpr char32_t ranges[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                    {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b820, 0x2ceaf},
                                    {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const auto& r) { return c >= r[0] && c <= r[1]; });
}

enum class character { space, dropped, alone, letter };

character classify(char32_t c) {
  if (c == ' ' || c == '\t' || c == '\n' || c == '\r') return character::space;
  if (c == 0 || c == 0xfffd) return character::dropped;
  if (is_chinese(c)) return character::alone;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  switch (category) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return character::space;
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return character::dropped;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return character::alone;
    default:
      // BERT counts the symbols of ASCII, such as $ and +, as punctuation
      return c < 0x80 && category >= UTF8PROC_CATEGORY_SM ? character::alone : character::letter;
  }
}

class wordpiece final : public text_model {
 public:
  explicit wordpiece(const vocabulary& v) : v_(v), pieces_(ordinary_names(v)) {
    for (token id = 0; id < v.size(); ++id) longest_ = std::max(longest_, v.names[id].size());
  }

  void encode(std::string_view text, bool, encode_scratch& work,
              std::vector<token>& out) const override {
    std::string& word = work.normalised;
    std::size_t characters = 0;
    word.clear();
    const auto finish = [&] {
      if (characters > longest_word_characters) {
        out.push_back(*v_.unknown);
      } else if (characters > 0) {
        work.words.append(word, out, [&] { encode_word(word, out); });
      }
      word.clear();
      characters = 0;
    };
    const auto add = [&](char32_t c) {
      const character kind = classify(c);
      if (kind == character::dropped) return;
      if (kind != character::letter) finish();
      if (kind == character::space) return;
      // what is too long anyway need not be kept
      if (++characters <= longest_word_characters) append_utf8(word, c);
      if (kind == character::alone) finish();
    };
    for (std::size_t i = 0; i < text.size();) {
      const utf8_code_point c = decode_utf8(text, i);
      i += c.size;
      if (c.state == utf8_state::valid) normalise(c.value, add);
    }
    finish();
  }

  bool ends_words_at(char) const override { return true; }

 private:
  template <typename Add>
  void normalise(char32_t c, const Add& add) const {
    if (c < 0x80) return add(v_.lower_case && c >= 'A' && c <= 'Z' ? c + 32 : c);
    utf8proc_int32_t parts[32] = {static_cast<utf8proc_int32_t>(c)};
    utf8proc_ssize_t count = 1;
    if (v_.strip_accents) {
      int last_class = 0;
      count = utf8proc_decompose_char(parts[0], parts, 32, UTF8PROC_DECOMPOSE, &last_class);
    }
    for (utf8proc_ssize_t i = 0; i < std::min<utf8proc_ssize_t>(count, 32); ++i) {
      if (v_.strip_accents && utf8proc_category(parts[i]) == UTF8PROC_CATEGORY_MN) continue;
      add(static_cast<char32_t>(v_.lower_case ? utf8proc_tolower(parts[i]) : parts[i]));
    }
  }

  void encode_word(std::string_view word, std::vector<token>& out) const {
    const std::size_t before = out.size();
    std::string marked(space_mark);
    marked += word;
    for (std::size_t at = 0; at < marked.size();) {
      std::size_t size = std::min(longest_, marked.size() - at);
      token id = text_table::absent;
      for (; size > 0; --size) {
        id = pieces_.find(v_.names, std::string_view(marked).substr(at, size));
        if (id != text_table::absent) break;
      }
      if (id == text_table::absent) {
        out.resize(before);
        out.push_back(*v_.unknown);
        return;
      }
      out.push_back(id);
      at += size;
    }
  }

  const vocabulary& v_;
  text_table pieces_;
  std::size_t longest_ = 0;
};

}  // namespace

std::unique_ptr<text_model> make_wordpiece(const vocabulary& v) {
  return std::make_unique<wordpiece>(v);
}

}  // namespace nibble::inline NIBBLE_ABI::text
