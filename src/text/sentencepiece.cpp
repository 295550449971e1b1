// SentencePiece's BPE, as llama-2, Gemma and Phi-3 use it: the pair whose union is the best-scored
// piece merges first. Kudo and Richardson, "SentencePiece", 2018, arXiv:1808.06226.
#include <optional>
#include <text/text_model.hpp>

namespace nibble::inline NIBBLE_ABI::text {
namespace {

class sentencepiece final : public text_model {
 public:
  explicit sentencepiece(const vocabulary& v)
      : v_(v), pieces_(ordinary_names(v)), cuts_(space_marks_begin_words(v)) {
    for (token id = 0; id < v.size(); ++id) {
      const std::string_view name = v.names[id];
      longest_ = std::max(longest_, name.size());
      // a line's end after something else
      const std::size_t at = name.find_first_not_of('\n');
      if (at != name.npos && name.find('\n', at) != name.npos) cuts_at_lines_ = false;
    }
  }

  void encode(std::string_view text, bool at_border, encode_scratch& work,
              std::vector<token>& out) const override {
    if (text.empty()) return;
    mark_spaces(text, at_border && v_.add_space_prefix, work.normalised);
    const std::string_view marked = work.normalised;
    if (cuts_) {
      cut_at_space_marks(marked, work.ends);
    } else {
      work.ends.assign(1, static_cast<std::uint32_t>(marked.size()));
    }
    std::size_t begin = 0;
    for (const std::uint32_t end : work.ends) {
      const std::string_view word = marked.substr(begin, end - begin);
      work.words.append(word, out, [&] { encode_word(word, work, out); });
      begin = end;
    }
  }

  bool ends_words_at(char space) const override { return space == ' ' ? cuts_ : cuts_at_lines_; }

 private:
  void encode_word(std::string_view word, encode_scratch& work, std::vector<token>& out) const {
    character_symbols(v_, pieces_, word, work.symbols);
    merge_symbols(work.symbols, work.by_score, [&](const symbol& left, const symbol& right) {
      std::optional<merge_rule<float>> rule;
      const std::size_t size = left.size + right.size;
      if (size > longest_) return rule;
      const token merged = pieces_.find(v_.names, word.substr(left.offset, size));
      if (merged != text_table::absent) rule = {-v_.scores[merged], merged};
      return rule;
    });
    append_symbols(v_, word, work.symbols, out);
  }

  const vocabulary& v_;
  text_table pieces_;
  bool cuts_, cuts_at_lines_ = true;
  std::size_t longest_ = 0;
};

}  // namespace

std::unique_ptr<text_model> make_sentencepiece(const vocabulary& v) {
  return std::make_unique<sentencepiece>(v);
}

}  // namespace nibble::inline NIBBLE_ABI::text
