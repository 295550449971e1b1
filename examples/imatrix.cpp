// nibble-imatrix: how strongly text excites each input of each matrix, for encoders that weight
// their errors with it.

#include <cmath>
#include <iomanip>
#include <nibble/base/fingerprint.hpp>
#include <nibble/base/utf8.hpp>
#include <nibble/quantise/imatrix.hpp>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <sstream>
#include <unordered_map>

#include "perplexity_statistics.hpp"
#include "progress.hpp"
#include "text_chunks.hpp"

namespace {

using common::text_chunk;
using nibble::concat;

// Sums of squares of the inputs of every matrix.
class collector final : public nibble::matmul_observer {
 public:
  void observe(const nibble::weight& matrix, std::int64_t which,
               std::span<const float> x) noexcept override {
    if (failure_) return;
    try {
      entry& e = find(matrix);
      double* const to = e.squares.data() + static_cast<std::size_t>(which) * x.size();
      for (std::size_t i = 0; i < x.size(); ++i) to[i] += static_cast<double>(x[i]) * x[i];
      ++e.counts[static_cast<std::size_t>(which)];
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  // Throws what went wrong while observing.
  void check() const {
    if (failure_) std::rethrow_exception(failure_);
  }

  // Adds what was seen to what is in `to`.
  void add_to(nibble::imatrix& to) const {
    for (const auto& [matrix, e] : entries_) {
      nibble::importance& sum = to.tensors[matrix->name];
      if (sum.in_sum2.empty()) sum.in_sum2.resize(e.squares.size());
      if (sum.in_sum2.size() != e.squares.size()) {
        throw nibble::error(nibble::errc::invalid_argument,
                            concat("the earlier importance is of ", sum.in_sum2.size(),
                                   " inputs, but the model's matrix has ", e.squares.size(),
                                   "; a file made with the same model was expected."),
                            {.tensor = matrix->name});
      }
      // one number may stand for all experts
      if (sum.counts.size() != e.counts.size()) {
        sum.counts.resize(e.counts.size(), sum.counts.empty() ? 0.0f : sum.counts[0]);
      }
      for (std::size_t i = 0; i < e.squares.size(); ++i) {
        sum.in_sum2[i] = static_cast<float>(sum.in_sum2[i] + e.squares[i]);
      }
      for (std::size_t i = 0; i < e.counts.size(); ++i) {
        sum.counts[i] += static_cast<float>(e.counts[i]);
      }
    }
  }

 private:
  struct entry {
    std::vector<double> squares;        // [matrices, columns]
    std::vector<std::uint64_t> counts;  // [matrices]
  };

  entry& find(const nibble::weight& matrix) {
    const auto found = entries_.find(&matrix);
    if (found != entries_.end()) return found->second;
    const std::uint64_t matrices = matrix.shape.extent[2];
    return entries_
        .emplace(&matrix, entry{std::vector<double>(matrices * matrix.shape.columns()),
                                std::vector<std::uint64_t>(matrices)})
        .first->second;
  }

  std::unordered_map<const nibble::weight*, entry> entries_;
  std::exception_ptr failure_;
};

struct program_options {
  common::load_options load;
  common::text_options text;
  std::string out_path, from_path, json_path;
  bool resume = false;
  std::int32_t batch = 0, save_every = 0;

  // As an importance matrix states it: documents are of any size.
  std::uint32_t chunk_size(const nibble::hparams& hp) const {
    return text.documents() ? 0 : static_cast<std::uint32_t>(text.chunk_size(hp));
  }
};

// What a tensor's importance looks like.
struct summary {
  std::string name;
  std::size_t columns = 0, matrices = 0, unseen = 0;  // unseen: matrices without a token
  double tokens = 0;                                  // over all matrices
  double mean_square = 0;
  double top_share = 0;  // of the sum of the mean squares, in the strongest 1 % of the columns
};

summary summarise(const std::string& name, const nibble::importance& of) {
  summary s{.name = name, .matrices = of.counts.size()};
  s.columns = of.in_sum2.size() / s.matrices;
  std::vector<double> squares(s.columns);  // over all matrices
  for (std::size_t i = 0; i < of.in_sum2.size(); ++i) squares[i % s.columns] += of.in_sum2[i];
  for (const float n : of.counts) {
    s.tokens += n;
    s.unseen += n == 0 ? 1 : 0;
  }
  const double sum = std::accumulate(squares.begin(), squares.end(), 0.0);
  std::sort(squares.begin(), squares.end(), std::greater<>());
  const std::size_t top = std::max<std::size_t>(1, s.columns / 100);
  const double strongest =
      std::accumulate(squares.begin(), squares.begin() + static_cast<std::ptrdiff_t>(top), 0.0);
  s.top_share = sum > 0 ? strongest / sum : 0;
  s.mean_square = s.tokens > 0 ? sum / s.tokens / static_cast<double>(s.columns) : 0;
  return s;
}

// Layers in the order of their numbers, not of the letters.
std::vector<summary> summarise(const nibble::imatrix& all) {
  std::vector<summary> found;
  for (const auto& [name, importance] : all.tensors) found.push_back(summarise(name, importance));
  const auto layer = [](const summary& s) {
    return s.name.starts_with("blk.") ? std::atoi(s.name.c_str() + 4) : -1;
  };
  std::stable_sort(found.begin(), found.end(),
                   [&](const summary& a, const summary& b) { return layer(a) < layer(b); });
  return found;
}

std::string number(double x, int digits) {
  std::ostringstream out;
  out << std::setprecision(digits) << x;
  return out.str();
}

void print(const std::vector<summary>& found) {
  std::size_t width = 6;
  for (const summary& s : found) width = std::max(width, s.name.size());
  const auto name = [&](const std::string& text) -> std::ostream& {
    return std::cout << std::left << std::setw(static_cast<int>(width)) << text << std::right;
  };
  name("tensor") << std::setw(9) << "columns" << std::setw(10) << "matrices" << std::setw(10)
                 << "unseen" << std::setw(12) << "tokens" << std::setw(14) << "mean square"
                 << std::setw(12) << "top 1 %" << '\n';
  for (const summary& s : found) {
    name(nibble::gguf::printable(s.name))
        << std::setw(9) << s.columns << std::setw(10) << s.matrices << std::setw(10) << s.unseen
        << std::setw(12) << number(s.tokens, 12) << std::setw(14) << number(s.mean_square, 4)
        << std::setw(10) << number(100 * s.top_share, 3) << " %\n";
  }
  std::cout
      << "\nunseen: experts that no token reached, whose inputs count alike; top 1 %: share of "
         "the sum of squares in the strongest 1 % of the columns\n";
}

nlohmann::ordered_json to_json(const std::vector<summary>& found, const nibble::imatrix& all) {
  nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
  for (const summary& s : found) {
    tensors.push_back({{"name", s.name},
                       {"columns", s.columns},
                       {"matrices", s.matrices},
                       {"unseen", s.unseen},
                       {"tokens", s.tokens},
                       {"mean_square", s.mean_square},
                       {"top_share", s.top_share}});
  }
  return {{"datasets", all.datasets},
          {"chunks", all.chunk_count},
          {"chunk_size", all.chunk_size},
          {"tensors", tensors}};
}

[[noreturn]] void refuse_to_resume(const program_options& options, const std::string& difference) {
  throw nibble::error(nibble::errc::invalid_argument,
                      concat(difference, ", so it cannot be resumed; use --from to add to it."),
                      {.file = options.out_path});
}

// That text and chunks are those that the earlier file states.
void check_same_text(const program_options& options, const nibble::imatrix& earlier,
                     const nibble::hparams& hp) {
  const std::string dataset = nibble::as_utf8(options.text.dataset(hp));
  if (earlier.datasets != std::vector{dataset}) {
    const bool one = earlier.datasets.size() == 1;
    refuse_to_resume(
        options, concat("was made from ",
                        one ? concat("'", nibble::gguf::printable(earlier.datasets[0], 256), "'")
                            : concat(earlier.datasets.size(), " texts"),
                        " and not from '", nibble::gguf::printable(dataset, 256), "'"));
  }
  if (const std::uint32_t size = options.chunk_size(hp); earlier.chunk_size != size) {
    refuse_to_resume(options, earlier.chunk_size == 0
                                  ? "does not tell how many tokens its chunks have"
                                  : concat("was made in chunks of ", earlier.chunk_size,
                                           " tokens and not of ", size, " (--chunk)"));
  }
}

// The importance so far: from an earlier file, or nothing. It must be of this model; work is
// resumed only where all that the file tells of its making is the same.
nibble::imatrix begin(program_options& options, const nibble::gguf::file& file) {
  const bool resumes = options.resume && std::filesystem::exists(options.out_path);
  if (options.from_path.empty() && !resumes) return {};
  const std::string& path = resumes ? options.out_path : options.from_path;
  nibble::imatrix earlier = nibble::read_imatrix(path);
  if (resumes) check_same_text(options, earlier, nibble::read_hparams(file));
  nibble::check_importance(file, earlier, path);
  if (earlier.model.empty()) {
    std::cerr << path << " does not state its model, which is taken to be this one\n";
  }
  if (resumes) options.text.resume_after(earlier.chunk_count);
  return earlier;
}

// Adds what a chunk's tokens are.
void add(nibble::fingerprint& to, const text_chunk& chunk) {
  to.add(chunk.tokens.size());
  to.add(std::as_bytes(std::span(chunk.tokens)));
}

// Adds what the text shows, and writes it.
class collection {
 public:
  collection(const program_options& options, const nibble::gguf::file& file,
             nibble::imatrix earlier, common::graceful_stop& stop)
      : options_(options), file_(file), stop_(stop), all_(std::move(earlier)) {
    inputs_ = options.text.inputs();
    for (const auto& path : file.paths()) inputs_.push_back(path);
    const nibble::hparams hp = nibble::read_hparams(file);
    n_vocab_ = static_cast<std::size_t>(hp.n_vocab);
    auto& known = all_.datasets;
    const std::string dataset = nibble::as_utf8(options.text.dataset(hp));
    if (std::find(known.begin(), known.end(), dataset) == known.end()) known.push_back(dataset);
    all_.chunk_size = options.chunk_size(hp);
    all_.model = nibble::model_fingerprint(file);
    if (options.resume) saved_ = all_.chunk_count;
  }

  const nibble::imatrix& run() {
    // opened first: a name that cannot be written should not cost the results
    out_.emplace(options_.out_path, inputs_);
    const auto [before, chunks] = options_.text.read(file_, kept());
    check_before(before);
    wanted_ = chunks.size();
    if (chunks.empty()) {
      std::cerr << options_.out_path << " holds all " << all_.chunk_count
                << " chunks already; it stays as it is\n";
      return all_;
    }
    collector seen;
    nibble::model_options how = options_.load.model;
    how.cpu.observer = &seen;
    how.progress = [&](double) { check(); };
    common::fit(how.plan, chunks, options_.batch, static_cast<std::int32_t>(n_vocab_));
    const nibble::model model(file_, how);
    nibble::session session(model);
    std::cerr << options_.text.describe(chunks) << '\n';
    common::progress_line line;
    const auto every = static_cast<std::size_t>(options_.save_every);
    while (read_ < wanted_) {
      read(session, chunks[read_]);
      seen.check();
      add(tokens_, chunks[read_]);
      ++read_;
      show(line);
      const bool last = read_ == wanted_;
      if (last || (every > 0 && read_ % every == 0)) save(seen, last);
    }
    return all_;
  }

  const perplexity::prediction& prediction() const { return prediction_; }

 private:
  // That the chunks which were done are still the beginning of the text.
  void check_before(const std::vector<text_chunk>& before) {
    if (!options_.resume) {
      // tokens that are not known stay unknown
      states_tokens_ = all_.chunk_count == 0 || !all_.chunks.empty();
      tokens_ = nibble::fingerprint(all_.chunks);
      return;
    }
    for (const text_chunk& chunk : before) add(tokens_, chunk);
    if (before.empty() || all_.chunks == tokens_.text()) return;
    if (all_.chunks.empty()) {
      std::cerr << options_.out_path
                << " does not state its tokens, which are taken to be those of "
                << "this text with this --skip and --parse-special\n";
      return;
    }
    refuse_to_resume(options_, concat("was made from other tokens than the first ",
                                      common::counted(before.size(), "chunk"),
                                      " here: text, --skip or --parse-special have changed"));
  }

  // What an interrupt leaves.
  std::string kept() const {
    const std::string out = concat("'", options_.out_path, "' ");
    return saved_ > 0 ? concat(out, "holds ", saved_, ", after which --resume goes on.")
           : std::filesystem::exists(options_.out_path)
               ? concat(out, "stays as it was before.")
               : "nothing was written; --save-every would have kept what was done.";
  }

  // Ends the work after a signal: what was saved before stays, sums of half a chunk are of no use.
  void check() {
    stop_.check([&] {
      return concat("interrupted after ", read_, " of ", common::counted(wanted_, "chunk"), "; ",
                    kept());
    });
  }

  void show(common::progress_line& line) const {
    const std::string left =
        line.remaining(static_cast<double>(read_) / static_cast<double>(wanted_));
    line.show([&] {
      return concat(read_, " of ", wanted_, ": perplexity ", number(prediction_.perplexity(), 5),
                    left.empty() ? "" : ", ", left, left.empty() ? "" : " left");
    });
  }

  // Every token's logits are computed, so that the output matrix sees every token; they tell in
  // passing whether the model and the text go together.
  void read(nibble::session& session, const text_chunk& chunk) {
    session.truncate(0);
    check();
    session.append(chunk.tokens, [&](std::size_t first, std::span<const float> logits) {
      check();
      // the last token predicts nothing that is known
      const std::size_t last = chunk.tokens.size() - 1;
      for (std::size_t at = 0; at < logits.size() && first < last; at += n_vocab_, ++first) {
        const auto of_token = logits.subspan(at, n_vocab_);
        prediction_.add(perplexity::nats_of(of_token, chunk.tokens[first + 1]), 0);
      }
    });
  }

  // Sums are added once, in double precision, to what was there before.
  void save(const collector& seen, bool last) {
    nibble::imatrix now = all_;
    seen.add_to(now);
    now.chunk_count += static_cast<std::uint32_t>(read_);
    now.chunks = states_tokens_ ? tokens_.text() : "";
    const std::vector<std::byte> bytes = nibble::imatrix_bytes(now);
    out_->stream().write(reinterpret_cast<const char*>(bytes.data()),
                         static_cast<std::streamsize>(bytes.size()));
    out_->finish();
    out_.reset();
    saved_ = now.chunk_count;
    if (last) {
      all_ = std::move(now);
    } else {
      out_.emplace(options_.out_path, inputs_);
    }
  }

  const program_options& options_;
  const nibble::gguf::file& file_;
  common::graceful_stop& stop_;
  nibble::imatrix all_;  // what was there before; at the end all
  std::vector<std::filesystem::path> inputs_;
  std::optional<common::output> out_;
  std::size_t n_vocab_ = 0;
  std::size_t read_ = 0, wanted_ = 0;  // chunks
  std::uint32_t saved_ = 0;            // chunks that the output holds
  nibble::fingerprint tokens_;         // of all chunks that are summed up
  bool states_tokens_ = true;
  perplexity::prediction prediction_;
};

void add_options(CLI::App& app, program_options& options) {
  options.load.add_file(app);
  app.add_option("-o,--out", options.out_path, "GGUF file to write")
      ->required()
      ->check(common::is_separate_output);
  options.text.add_to(app, "");
  auto* const from = app.add_option("--from", options.from_path,
                                    "add to this importance (GGUF or .dat), of the same model")
                         ->check(common::not_empty);
  app.add_flag(
         "--resume", options.resume,
         "go on after the chunks that the output holds already, which count in --chunks; begin "
         "if it is not there. Model, text, --chunk, --skip and --parse-special must be those that "
         "it was made with; compared are the model, the text's name, --chunk, and the tokens of "
         "the chunks that are done")
      ->excludes(from);
  app.add_option("--save-every", options.save_every,
                 "write the output after so many chunks, too (0: at the end only)")
      ->check(CLI::Range(0, 1 << 28));
  options.load.add_arithmetic(app);
  common::add_batch(app, options.batch);
  common::add_json(app, options.json_path, "also write a summary to this file as JSON");
}

void check_options(const program_options& options) {
  if (options.text.given()) return;
  throw common::usage_error(
      "no text is given; --text FILE or --tokens FILE was expected, with text like that which the "
      "model will be used for.");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Writes how strongly a text excites each input of each of a model's matrices: sums of "
      "squares by column, and by expert. nibble-quantize --imatrix weights its errors with them. "
      "An "
      "interrupt leaves what the output held before, or what --save-every had written."};
  program_options options;
  add_options(app, options);
  if (const auto status = common::parse(app, argc, argv)) return *status;

  return common::run([&] {
    common::graceful_stop stop;
    check_options(options);
    const nibble::gguf::file file(options.load.path);
    std::optional<common::output> json;
    if (!options.json_path.empty()) {
      auto taken = options.text.inputs();
      for (const auto& path : file.paths()) taken.push_back(path);
      taken.insert(taken.end(), {options.from_path, options.out_path});
      json.emplace(options.json_path, taken);
    }
    collection work(options, file, begin(options, file), stop);
    const nibble::imatrix& all = work.run();
    const std::vector<summary> found = summarise(all);
    print(found);
    if (work.prediction().tokens() > 0) {
      std::cout << "perplexity of this text: " << number(work.prediction().perplexity(), 5) << '\n';
    }
    if (!json) return;
    const auto error_handler = nlohmann::ordered_json::error_handler_t::replace;
    json->stream() << to_json(found, all).dump(1, ' ', false, error_handler) << '\n';
    json->finish();
  });
}
