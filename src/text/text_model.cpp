#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/utf8.hpp>
#include <text/text_model.hpp>

namespace nibble::inline NIBBLE_ABI::text {

void append_byte(const vocabulary& v, std::uint8_t byte, std::vector<token>& out) {
  const token known = v.byte_tokens[byte];
  if (known != text_table::absent) return out.push_back(known);
  if (v.unknown) return out.push_back(*v.unknown);
  // vocabularies without the bytes that valid UTF-8 never has: falcon, command-r
  const token replacement[] = {v.byte_tokens[0xef], v.byte_tokens[0xbf], v.byte_tokens[0xbd]};
  for (const token id : replacement) {
    if (id == text_table::absent) {
      throw error(
          errc::invalid_argument,
          concat("The text has the byte ", static_cast<int>(byte),
                 ", for which the vocabulary has no token, nor has it one for the unknown."),
          {.file = v.file});
    }
  }
  out.insert(out.end(), std::begin(replacement), std::end(replacement));
}

void append_symbols(const vocabulary& v, std::string_view word, const std::vector<symbol>& symbols,
                    std::vector<token>& out) {
  for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    const symbol& s = symbols[i];
    if (s.id != text_table::absent) {
      out.push_back(s.id);
      continue;
    }
    for (const char c : word.substr(s.offset, s.size)) {
      append_byte(v, static_cast<std::uint8_t>(c), out);
    }
  }
}

void character_symbols(const vocabulary& v, const text_table& ordinary, std::string_view word,
                       std::vector<symbol>& symbols) {
  symbols.clear();
  for (std::size_t i = 0; i < word.size();) {
    const utf8_code_point c = decode_utf8(word, i);
    const bool valid = c.state == utf8_state::valid;
    const std::size_t size = valid ? c.size : 1;
    append_symbol(symbols, i, size,
                  valid ? ordinary.find(v.names, word.substr(i, size)) : text_table::absent);
    i += size;
  }
}

void mark_spaces(std::string_view text, bool prefix, std::string& out) {
  out.clear();
  out.reserve(text.size() + text.size() / 2);
  if (prefix) out += space_mark;
  for (const char c : text) {
    if (c == ' ') {
      out += space_mark;
    } else {
      out += c;
    }
  }
}

bool space_marks_begin_words(const vocabulary& v) {
  for (token id = 0; id < v.size(); ++id) {
    if (!v.is_ordinary(id)) continue;
    std::string_view name = v.names[id];
    while (name.starts_with(space_mark)) name.remove_prefix(space_mark.size());
    if (name.find(space_mark) != name.npos) return false;
  }
  return true;
}

void cut_at_space_marks(std::string_view text, std::vector<std::uint32_t>& ends) {
  ends.clear();
  std::size_t run_end = 0;  // where the last run of marks ended
  for (std::size_t at = text.find(space_mark); at != text.npos;
       at = text.find(space_mark, run_end)) {
    if (at != run_end) ends.push_back(static_cast<std::uint32_t>(at));
    run_end = at + space_mark.size();
  }
  if (!text.empty()) ends.push_back(static_cast<std::uint32_t>(text.size()));
}

text_table ordinary_names(const vocabulary& v) {
  text_table table(static_cast<std::size_t>(v.size()));
  for (token id = 0; id < v.size(); ++id) {
    if (v.is_ordinary(id) && !v.names[id].empty()) table.insert(v.names, id);
  }
  return table;
}

}  // namespace nibble::inline NIBBLE_ABI::text
