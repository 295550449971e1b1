// Byte-pair encoding by ranked merges, on bytes (GPT-2 and most models since) or on characters
// (Gemma 4). Sennrich et al., 2016, arXiv:1508.07909; Radford et al., "Language Models are
// Unsupervised Multitask Learners", 2019, section 2.2.
#include <algorithm>
#include <bit>
#include <gguf/cursor.hpp>
#include <limits>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/utf8.hpp>
#include <text/text_model.hpp>

namespace nibble::inline NIBBLE_ABI::text {
namespace {

constexpr std::string_view merges_key = "tokenizer.ggml.merges";

// (left id, right id) -> rank and merged id; open addressing, at most half full.
class merge_table {
 public:
  struct entry : merge_rule<std::uint32_t> {
    token left, right;
  };

  explicit merge_table(std::size_t count)
      : entries_(std::bit_ceil(count * 2 + 2), entry{{0, 0}, text_table::absent, 0}) {}

  // Keeps the first, that is, best rank of a pair.
  void insert(token left, token right, std::uint32_t rank, token merged) {
    entry& e = entries_[probe(left, right)];
    if (e.left == text_table::absent) e = {{rank, merged}, left, right};
  }

  const entry* find(token left, token right) const {
    const entry& e = entries_[probe(left, right)];
    return e.left == text_table::absent ? nullptr : &e;
  }

 private:
  std::size_t probe(token left, token right) const {
    const std::uint64_t key =
        static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
    const std::uint64_t hash = key * 0x9e3779b97f4a7c15u;
    const std::size_t mask = entries_.size() - 1;
    std::size_t i = (hash ^ hash >> 32) & mask;
    while (entries_[i].left != text_table::absent &&
           (entries_[i].left != left || entries_[i].right != right)) {
      i = (i + 1) & mask;
    }
    return i;
  }

  std::vector<entry> entries_;
};

merge_table read_merges(const gguf::file& file, const vocabulary& v) {
  const auto merges = file.get_array<std::string_view>(merges_key);
  if (!merges) {
    throw error(errc::bad_file, concat(merges_key, " is missing; BPE cannot do without."),
                {.file = v.file});
  }
  const auto refuse = [&](std::size_t i, const std::string& reason) {
    throw error(errc::bad_file,
                concat(merges_key, "[", i, "] is '", gguf::printable((*merges)[i]), "': ", reason),
                {.file = v.file});
  };
  merge_table table(merges->size());
  std::string both;
  for (std::size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    // a space that is part of a name is written otherwise, save as its first character
    const std::size_t space = merge.find(' ', 1);
    if (space == merge.npos) refuse(i, "a merge is two tokens with a space between.");
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    both.assign(left).append(right);
    token ids[3];
    const std::string_view names[] = {left, right, both};
    for (int k = 0; k < 3; ++k) {
      ids[k] = v.token_of_name(names[k]);
      if (ids[k] == text_table::absent) {
        refuse(i, concat("'", gguf::printable(names[k]), "' is not in the vocabulary."));
      }
    }
    // text never becomes markup by merging
    const bool ordinary = v.is_ordinary(ids[0]) && v.is_ordinary(ids[1]) && v.is_ordinary(ids[2]);
    if (ordinary) table.insert(ids[0], ids[1], static_cast<std::uint32_t>(i), ids[2]);
  }
  return table;
}

class bpe final : public text_model {
 public:
  bpe(const gguf::file& file, const vocabulary& v, const pre_tokenizer_rules& rules)
      : v_(v), merges_(read_merges(file, v)), words_(rules), whole_words_(rules.ignore_merges) {
    if (!rules.byte_level) {
      names_ = ordinary_names(v);
      cuts_ = space_marks_begin_words(v);
    }
    if (!whole_words_) return;
    pieces_ = text_table(static_cast<std::size_t>(v.size()));
    for (token id = 0; id < v.size(); ++id) {
      if (v.is_ordinary(id) && !v.pieces[id].empty()) pieces_.insert(v.pieces, id);
    }
  }

  void encode(std::string_view text, bool, encode_scratch& work,
              std::vector<token>& out) const override {
    if (v_.kind == tokenizer_kind::raw_bpe) {
      mark_spaces(text, v_.add_space_prefix, work.normalised);
      text = work.normalised;
    }
    // patterns need valid UTF-8: what is not stands between them, each byte for itself
    for (std::size_t begin = 0; begin < text.size();) {
      std::size_t end = begin;
      utf8_code_point c{0, 1, utf8_state::valid};
      while (end < text.size()) {
        c = decode_utf8(text, end);
        if (c.state != utf8_state::valid) break;
        end += c.size;
      }
      encode_valid(text.substr(begin, end - begin), work, out);
      if (end == text.size()) return;
      for (std::size_t i = 0; i < c.size; ++i, ++end) {
        append_byte(v_, static_cast<std::uint8_t>(text[end]), out);
      }
      begin = end;
    }
  }

  // so do the patterns of all pre-tokenizers, which tests try
  bool ends_words_at(char space) const override {
    return space == '\n' || v_.kind != tokenizer_kind::raw_bpe || cuts_;
  }

 private:
  void encode_valid(std::string_view text, encode_scratch& work, std::vector<token>& out) const {
    words_.split(text, work.ends, work.patterns);
    std::size_t begin = 0;
    for (const std::uint32_t end : work.ends) {
      const std::string_view word = text.substr(begin, end - begin);
      if (cuts_) {
        encode_marked(word, work, out);
      } else {
        work.words.append(word, out, [&] { encode_word(word, work, out); });
      }
      begin = end;
    }
  }

  // Cuts a line into words where that changes nothing, so that the cache can help.
  void encode_marked(std::string_view line, encode_scratch& work, std::vector<token>& out) const {
    cut_at_space_marks(line, work.marks);
    std::size_t begin = 0;
    for (const std::uint32_t end : work.marks) {
      const std::string_view word = line.substr(begin, end - begin);
      work.words.append(word, out, [&] { encode_word(word, work, out); });
      begin = end;
    }
  }

  void encode_word(std::string_view word, encode_scratch& work, std::vector<token>& out) const {
    const bool raw = v_.kind == tokenizer_kind::raw_bpe;
    token whole = text_table::absent;
    if (whole_words_) whole = pieces_.find(v_.pieces, word);
    // runs of line ends are tokens that no merges lead to (Gemma 4)
    if (raw && word.find_first_not_of('\n') == word.npos) whole = names_.find(v_.names, word);
    if (whole != text_table::absent) return out.push_back(whole);
    if (raw) {
      character_symbols(v_, names_, word, work.symbols);
    } else {
      work.symbols.clear();
      for (std::size_t i = 0; i < word.size(); ++i) {
        append_symbol(work.symbols, i, 1, v_.byte_tokens[static_cast<std::uint8_t>(word[i])]);
      }
    }
    merge_symbols(work.symbols, work.by_rank, [&](const symbol& left, const symbol& right) {
      return merges_.find(left.id, right.id);
    });
    append_symbols(v_, word, work.symbols, out);
  }

  const vocabulary& v_;
  merge_table merges_;
  pre_tokenizer words_;
  bool whole_words_;
  bool cuts_ = false;
  text_table names_;   // raw only
  text_table pieces_;  // whole words only
};

}  // namespace

std::unique_ptr<text_model> make_bpe(const gguf::file& file, const vocabulary& v) {
  return std::make_unique<bpe>(file, v, find_pre_tokenizer(v.pre));
}

}  // namespace nibble::inline NIBBLE_ABI::text
