// Text that models are measured with, cut into pieces that fit a context.
#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>

#include "common.hpp"

namespace common {

// Tokens that a model reads from the beginning of its context. Those from `first` on are predicted,
// each from all that stand before it.
struct text_chunk {
  std::vector<nibble::token> tokens;
  std::size_t first = 1;

  std::size_t predicted() const { return tokens.size() - first; }
};

// What a text gives.
struct text_chunks {
  std::vector<text_chunk> before;  // that were done before, see resume_after
  std::vector<text_chunk> chunks;  // none only if all that are wanted were done before
};

// The text, as options of a command line.
class text_options {
 public:
  // `by_default`: what is read where none of these is given, if there is something.
  void add_to(CLI::App& app, const std::string& by_default) {
    auto* const text =
        app.add_option("--text", text_path_,
                       "text file, - for the standard input" +
                           (by_default.empty() ? "" : " (default: " + by_default + ")"));
    auto* const tokens = app.add_option("--tokens", tokens_path_,
                                        "token ids between white space, instead of a text; they "
                                        "are taken as they are");
    text->check(not_empty)->excludes(tokens);
    tokens->check(not_empty);
    app.add_option("--documents", separator_,
                   "the text is documents with this between them, such as '<|endoftext|>'; each "
                   "is read by itself, whole")
        ->check(not_empty)
        ->excludes(tokens);
    app.add_flag("--parse-special", parse_special_,
                 "markup in the text such as <|im_end|> means the tokens of these names");
    add_number(app, "--chunk", chunk_, 2,
               "tokens that are read together (default: 512, or what the model was trained for if "
               "that is less); of documents, the most");
    add_number(app, "--skip", skipped_, 0, "leave out so many chunks (or documents) at first");
    add_number(app, "--chunks", most_, 1, "use no more chunks (or documents) than this");
  }
  // For programs that predict tokens. What they cannot have shows with the model, see plan_cut.
  void add_scoring(CLI::App& app) {
    auto* const documents = app.get_option("--documents");
    add_number(
        app, "--stride", stride_, 1,
        "tokens from the beginning of a chunk to that of the next (default, and most: the chunk)")
        ->excludes(documents);
    add_number(app, "--warm-up", warm_up_, 0,
               "tokens of a chunk that predict nothing (default: half the chunk; with --stride so "
               "many that each token is predicted once)")
        ->excludes(documents);
  }

  bool given() const { return !text_path_.empty() || !tokens_path_.empty(); }
  // Files that are read, which an output must not replace.
  std::vector<std::filesystem::path> inputs() const {
    std::vector<std::filesystem::path> paths;
    if (!tokens_path_.empty()) paths.emplace_back(tokens_path_);
    if (!text_path_.empty() && text_path_ != "-") paths.emplace_back(text_path_);
    return paths;
  }
  // Takes this text, documents with markup between <|endoftext|>, where none is given.
  void set_default(const std::string& path) {
    if (given()) return;
    text_path_ = path;
    parse_special_ = true;
    if (separator_.empty() && !chunk_ && !stride_ && !warm_up_) separator_ = "<|endoftext|>";
  }

  bool documents() const { return !separator_.empty(); }
  // "TEXT: 10 chunks of 512 tokens"
  std::string describe(const std::vector<text_chunk>& chunks) const {
    if (documents()) return nibble::concat(source(), ": ", counted(chunks.size(), "document"));
    return nibble::concat(source(), ": ", counted(chunks.size(), "chunk"), " of ",
                          counted(chunks[0].tokens.size(), "token"));
  }
  // The text and its documents, for what is made from them.
  std::string dataset(const nibble::hparams& hp) const {
    // ./text and text are one
    const std::string name = std::filesystem::path(source()).lexically_normal().string();
    if (!documents()) return name;
    return nibble::concat(name, ", documents between '", separator_, "' of at most ",
                          chunk_size(hp), " tokens");
  }
  // Tokens of a chunk; of documents, the most.
  std::int32_t chunk_size(const nibble::hparams& hp) const {
    return chunk_.value_or(documents() ? hp.n_ctx_train : std::min(512, hp.n_ctx_train));
  }
  std::string source() const {
    if (!tokens_path_.empty()) return tokens_path_;
    return text_path_ == "-" ? standard_input : text_path_;
  }

  // Reads no more than is needed. Throws nibble::error: files, tokens that the vocabulary lacks,
  // too short a text; and usage_error. A signal ends the program with "interrupted" and `kept`,
  // what that leaves.
  text_chunks read(const nibble::gguf::file& file, const std::string& kept) const {
    const immediate_stop stop("interrupted while '" + source() + "' was read; " + kept);
    const nibble::hparams hp = nibble::read_hparams(file);
    const cutting how = plan_cut(chunk_size(hp));
    std::vector<text_chunk> chunks;
    if (!tokens_path_.empty()) {
      chunks = cut(read_ids(hp.n_vocab, how.enough_tokens(chunks_to_read())), how, false);
      return share_out(std::move(chunks));
    }
    if (!nibble::has_tokenizer(file)) {
      fail(nibble::errc::unsupported,
           nibble::concat("'", file.name(),
                          "' has no vocabulary, so text cannot be turned into "
                          "tokens; give token ids with --tokens instead."));
    }
    const nibble::tokenizer tokenizer(file);
    if (documents()) {
      chunks = cut_documents(tokenizer, how.size);
    } else {
      chunks = cut(read_encoded(tokenizer, how.enough_tokens(chunks_to_read())), how,
                   tokenizer.adds_bos());
    }
    return share_out(std::move(chunks));
  }

  // So many chunks, after those that are skipped, were done before; they count in --chunks.
  void resume_after(std::uint32_t chunks) { done_ = chunks; }

 private:
  static CLI::Option* add_number(CLI::App& app, const char* name, std::optional<std::int32_t>& to,
                                 int least, const char* help) {
    return app.add_option(name, to, help)->check(CLI::Range(least, most_context));
  }

  // How chunks are cut: their tokens, those between two beginnings, the first that is predicted.
  struct cutting {
    std::size_t size, stride, first;

    // Tokens in which so many chunks are; "no end" for 0, all that there are.
    std::size_t enough_tokens(std::size_t chunks) const {
      return chunks == 0 ? static_cast<std::size_t>(-1) : (chunks - 1) * stride + size;
    }
  };

  cutting plan_cut(std::int32_t size) const {
    const std::int32_t stride = stride_.value_or(size);
    if (stride > size) {
      throw usage_error(nibble::concat("--stride ", stride, " leaves out tokens between chunks of ",
                                       size, "; at most ", size, " is possible."));
    }
    // a chunk predicts size - 1 - warm_up tokens; half of two tokens would leave none
    const std::int32_t half = size == 2 ? 0 : size / 2;
    const std::int32_t usual = stride < size ? size - 1 - stride : half;
    const std::int32_t warm_up = warm_up_.value_or(usual);
    if (warm_up > size - 2) {
      throw usage_error(nibble::concat("--warm-up ", warm_up,
                                       " leaves nothing to predict in chunks of ", size,
                                       " tokens; at most ", size - 2, " is possible."));
    }
    return {static_cast<std::size_t>(size), static_cast<std::size_t>(stride),
            static_cast<std::size_t>(warm_up) + 1};
  }

  std::size_t skipped() const { return static_cast<std::size_t>(skipped_.value_or(0)); }
  // Of those that are not skipped: what --chunks says, but all that were done before; 0: no end.
  std::size_t chunks_to_use() const {
    return most_ ? std::max(static_cast<std::size_t>(*most_), done_) : 0;
  }
  std::size_t chunks_to_read() const { return most_ ? skipped() + chunks_to_use() : 0; }

  text_chunks share_out(std::vector<text_chunk> chunks) const {
    if (skipped() >= chunks.size() || skipped() + done_ > chunks.size()) {
      fail(nibble::errc::invalid_argument,
           nibble::concat("holds ", counted(chunks.size(), documents() ? "document" : "chunk"),
                          "; nothing is left after ", skipped() + done_, "."));
    }
    if (most_) chunks.resize(std::min(chunks.size(), chunks_to_read()));
    const auto first =
        std::make_move_iterator(chunks.begin() + static_cast<std::ptrdiff_t>(skipped()));
    const auto next = first + static_cast<std::ptrdiff_t>(done_);
    return {{first, next}, {next, std::make_move_iterator(chunks.end())}};
  }

  [[noreturn]] void fail(nibble::errc code, const std::string& sentence) const {
    throw nibble::error(code, sentence, {.file = source()});
  }

  std::vector<nibble::token> read_ids(std::int32_t n_vocab, std::size_t enough) const {
    text_input in(tokens_path_);
    auto tokens = read_tokens(in, enough);
    for (const nibble::token id : tokens) {
      if (id < 0 || id >= n_vocab) {
        fail(nibble::errc::invalid_argument,
             nibble::concat("token ", id, " is not in the vocabulary of ",
                            counted(n_vocab, "token"), "."));
      }
    }
    return tokens;
  }

  // The tokens of the text, or at least `enough` of them: from a beginning whose tokens are the
  // text's, which grows until it has them.
  std::vector<nibble::token> read_encoded(const nibble::tokenizer& tokenizer,
                                          std::size_t enough) const {
    text_input in(text_path_, source());
    std::string text;
    constexpr std::size_t longest = nibble::tokenizer::longest_text;
    for (std::size_t bytes = enough < longest / 4 ? 4 * enough + 4096 : longest + 1;; bytes *= 2) {
      bool more = true;
      while (more && text.size() < bytes) more = in.read(text);
      if (!more) return encode(tokenizer, text);
      auto tokens =
          encode(tokenizer, std::string_view(text).substr(0, tokenizer.settled_bytes(text)));
      // the last one may end a text
      if (tokens.size() <= enough) continue;
      tokens.resize(enough);
      return tokens;
    }
  }

  // With the token that begins a text where the model wants one, without one that ends it.
  std::vector<nibble::token> encode(const nibble::tokenizer& tokenizer,
                                    std::string_view text) const {
    auto tokens = tokenizer.encode(text, {.add_special = true, .parse_special = parse_special_});
    if (tokenizer.adds_eos() && !tokens.empty() && tokens.back() == tokenizer.eos()) {
      tokens.pop_back();
    }
    return tokens;
  }

  std::vector<text_chunk> cut(const std::vector<nibble::token>& tokens, const cutting& how,
                              bool bos) const {
    if (tokens.size() < how.size) {
      fail(nibble::errc::invalid_argument,
           nibble::concat("holds ", counted(tokens.size(), "token"), ", less than a chunk of ",
                          how.size, "; give a longer text, or a smaller --chunk."));
    }
    std::vector<text_chunk> chunks;
    for (std::size_t at = 0; at + how.size <= tokens.size(); at += how.stride) {
      const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(at);
      chunks.push_back({{begin, begin + static_cast<std::ptrdiff_t>(how.size)}, how.first});
      // every chunk begins like a text, in place of the token that stands there
      if (bos) chunks.back().tokens[0] = tokens[0];
    }
    return chunks;
  }

  std::vector<text_chunk> cut_documents(const nibble::tokenizer& tokenizer,
                                        std::size_t size) const {
    text_input in(text_path_, source());
    std::vector<text_chunk> chunks;
    std::string text;
    std::size_t searched = 0, held = 0;
    const std::size_t enough = chunks_to_read();
    bool found = false;
    for (bool more = true; more && (enough == 0 || chunks.size() < enough);) {
      more = in.read(text);
      std::size_t at = 0;
      for (std::size_t end = 0; at <= text.size() && (enough == 0 || chunks.size() < enough);) {
        end = text.find(separator_, std::max(at, searched));
        if (end == text.npos && more) break;
        found = found || end != text.npos;
        end = std::min(end, text.size());
        add_document(std::string_view(text).substr(at, end - at), tokenizer, size, chunks);
        held += end - at;
        at = end + separator_.size();
      }
      in.check_held(held);
      text.erase(0, at);
      // what stands at the end may be the beginning of a separator
      searched = text.size() - std::min(text.size(), separator_.size() - 1);
    }
    if (chunks.empty()) {
      fail(nibble::errc::invalid_argument,
           "holds no document of two tokens or more; give a longer text.");
    }
    if (!found) {
      std::cerr << "'" << nibble::gguf::printable(separator_) << "' does not occur in '" << source()
                << "', so all of it is one document.\n";
    }
    return chunks;
  }

  // A document that is longer than the context goes on in a new chunk, begun like a text.
  void add_document(std::string_view document, const nibble::tokenizer& tokenizer, std::size_t size,
                    std::vector<text_chunk>& chunks) const {
    // the ends of lines before a separator belong to the file
    while (document.ends_with('\n')) document.remove_suffix(1);
    if (document.empty()) return;
    auto rest = encode(tokenizer, document);
    const bool bos = tokenizer.adds_bos();
    while (rest.size() >= 2) {
      const auto n = static_cast<std::ptrdiff_t>(std::min(rest.size(), size));
      chunks.push_back({{rest.begin(), rest.begin() + n}, 1});
      // the last token read, or that which begins a text, stands before what is left
      rest.erase(rest.begin() + (bos ? 1 : 0), rest.begin() + (bos ? n : n - 1));
    }
  }

  std::string text_path_, tokens_path_, separator_;
  bool parse_special_ = false;
  std::optional<std::int32_t> chunk_, stride_, warm_up_, skipped_, most_;
  std::size_t done_ = 0;
};

// So that the whole of each chunk fits, and the logits of a batch (0: as many tokens as keep them
// below 64 MiB, at most 512), which every token gets.
inline void fit(nibble::plan_options& plan, const std::vector<text_chunk>& chunks,
                std::int32_t batch, std::int32_t n_vocab) {
  plan.all_logits = true;
  plan.batch = batch > 0 ? batch : std::clamp((64 << 20) / 4 / n_vocab, 16, 512);
  for (const text_chunk& c : chunks) {
    plan.context = std::max(plan.context, static_cast<std::int32_t>(c.tokens.size()));
  }
}

inline void add_batch(CLI::App& app, std::int32_t& batch) {
  app.add_option("-b,--batch", batch,
                 "tokens that are computed together (0: up to 512, so that their logits take at "
                 "most 64 MiB, twice for each model)")
      ->check(CLI::Range(0, most_batch));
}

}  // namespace common
