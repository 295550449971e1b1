// nibble-perplexity: how well a model predicts a text, and how far it is from another model or from
// itself with other settings.

#include <cmath>
#include <functional>
#include <iomanip>
#include <nibble/base/bytes.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "perplexity_statistics.hpp"
#include "progress.hpp"
#include "text_chunks.hpp"

namespace {

using common::text_chunk;
using nibble::concat;

constexpr double shares[] = {0.5, 0.9, 0.95, 0.99, 0.999, 1};
constexpr const char* share_names[] = {"median", "90 %", "95 %", "99 %", "99.9 %", "maximum"};

struct program_options {
  common::load_options load, against;
  bool compares = false;
  std::int32_t batch = 0;
  common::text_options text;
  std::string json_path;
};

// What lies beside the programs, in the build tree as in an installation.
std::string shared_file(const char* name) {
  std::error_code unknown;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", unknown);
  if (unknown) return "";
  const auto path = (self.parent_path() / NIBBLE_DATA_FOLDER / name).lexically_normal();
  return std::filesystem::exists(path, unknown) ? path.string() : "";
}

void choose_text(program_options& options) {
  if (options.text.given()) return;
  const std::string path = shared_file("heldout.txt");
  if (path.empty()) {
    throw nibble::error(nibble::errc::io,
                        "the held-out text that comes with nibble is not installed beside this "
                        "program; give a text with --text, or token ids with --tokens.");
  }
  options.text.set_default(path);
}

// Settings that were not given for the reference are the model's.
void complete_reference(program_options& options, const CLI::App& app) {
  common::load_options& to = options.against;
  const common::load_options& from = options.load;
  for (const char* option : {"--against", "--against-activations", "--kl-against",
                             "--against-kv-rotation", "--against-isa"}) {
    options.compares = options.compares || app.count(option) > 0;
  }
  if (app.count("--against") == 0) to.path = from.path;
  to.model.cpu.threads = from.model.cpu.threads;
  if (app.count("--against-activations") == 0) {
    to.model.cpu.activations = from.model.cpu.activations;
  }
  if (app.count("--against-isa") == 0) to.model.cpu.isa = from.model.cpu.isa;
  if (app.count("--kl-against") == 0) {
    to.model.plan.key = from.model.plan.key;
    to.model.plan.value = from.model.plan.value;
    if (app.count("--against-kv-rotation") == 0) {
      to.model.plan.rotate_key = from.model.plan.rotate_key;
      to.model.plan.rotate_value = from.model.plan.rotate_value;
    }
  }
}

// Both must mean the same by every token.
void check_vocabularies(const nibble::gguf::file& a, const nibble::gguf::file& b) {
  const auto refuse = [&](const std::string& difference) {
    throw nibble::error(nibble::errc::invalid_argument,
                        concat("'", b.name(), "' cannot be compared with '", a.name(),
                               "': ", difference, "; models of one vocabulary were expected."));
  };
  const std::int32_t n_a = nibble::read_hparams(a).n_vocab, n_b = nibble::read_hparams(b).n_vocab;
  if (n_a != n_b) refuse(concat("it has ", n_b, " tokens, the other ", n_a));
  if (!nibble::has_tokenizer(a) || !nibble::has_tokenizer(b)) return;
  const nibble::tokenizer ta(a), tb(b);
  if (ta.size() != tb.size())
    refuse(concat("it has ", tb.size(), " tokens, the other ", ta.size()));
  for (nibble::token id = 0; id < ta.size(); ++id) {
    if (ta.name(id) == tb.name(id)) continue;
    refuse(concat("its token ", id, " is '", nibble::gguf::printable(tb.name(id)),
                  "', the other's '", nibble::gguf::printable(ta.name(id)), "'"));
  }
}

// A model and what it reads the text with.
class side {
 public:
  side(const nibble::gguf::file& file, const nibble::model_options& options)
      : model_(file, options), session_(model_) {}

  const nibble::model& model() const { return model_; }
  nibble::session& session() { return session_; }

  std::string settings(const common::load_options& load) const {
    const nibble::placement& plan = model_.plan();
    const auto rotated = [](bool yes) { return yes ? " rotated" : ""; };
    return concat(load.path, " (", common::name_of(load.model.cpu.activations),
                  " activations, keys ", common::name_of(plan.kv.key), rotated(plan.kv.rotate_key),
                  ", values ", common::name_of(plan.kv.value), rotated(plan.kv.rotate_value), ", ",
                  common::device_names(plan), ", ", nibble::to_text(common::total_bytes(plan)),
                  ")");
  }

 private:
  nibble::model model_;
  nibble::session session_;
};

struct results {
  perplexity::prediction model, reference;
  perplexity::comparison comparison;
};

// Reads chunks and adds up what is found.
class measurement {
 public:
  // check(): called now and then; may throw to end the work.
  measurement(side& model, side* reference, std::function<void()> check)
      : model_(model), reference_(reference), check_(std::move(check)) {
    if (!model.model().has_tokenizer()) return;
    const nibble::tokenizer& tokenizer = model.model().tokenizer();
    for (nibble::token id = 0; id < tokenizer.size(); ++id) {
      bytes_.push_back(tokenizer.piece(id, true).size());
    }
  }

  void add(const text_chunk& chunk) {
    const std::span tokens(chunk.tokens);
    begin(model_, tokens.first(chunk.first - 1));
    if (reference_) begin(*reference_, tokens.first(chunk.first - 1));
    // the last token is predicted, and predicts nothing
    const std::size_t end = tokens.size() - 1;
    const auto batch = static_cast<std::size_t>(model_.model().plan().limits.max_tokens);
    for (std::size_t at = chunk.first - 1; at < end; at += batch) {
      const std::size_t count = std::min(batch, end - at);
      check_();
      add(tokens.subspan(at, count), tokens.subspan(at + 1, count));
    }
  }

  const results& found() const { return found_; }

 private:
  void begin(side& s, std::span<const nibble::token> warm_up) const {
    s.session().truncate(0);
    const auto batch = static_cast<std::size_t>(s.model().plan().limits.max_tokens);
    for (; !warm_up.empty(); warm_up = warm_up.subspan(std::min(batch, warm_up.size()))) {
      check_();
      s.session().append(warm_up.first(std::min(batch, warm_up.size())));
    }
  }

  // targets[i] follows tokens[i]
  void add(std::span<const nibble::token> tokens, std::span<const nibble::token> targets) {
    model_.session().append(tokens, [&](std::size_t, std::span<const float> logits) {
      if (!reference_) return add_rows(logits, targets);
      // while these logits are there, so that nothing is copied
      reference_->session().append(tokens, [&](std::size_t, std::span<const float> other) {
        add_rows(logits, other, targets);
      });
    });
  }

  void add_rows(std::span<const float> logits, std::span<const nibble::token> targets) {
    const std::size_t n = logits.size() / targets.size();
    for (std::size_t i = 0; i < targets.size(); ++i) {
      found_.model.add(perplexity::nats_of(logits.subspan(i * n, n), targets[i]),
                       bytes_of(targets[i]));
    }
  }

  void add_rows(std::span<const float> logits, std::span<const float> reference,
                std::span<const nibble::token> targets) {
    const std::size_t n = logits.size() / targets.size();
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const auto at =
          perplexity::compare(logits.subspan(i * n, n), reference.subspan(i * n, n), targets[i]);
      found_.model.add(at.nats, bytes_of(targets[i]));
      found_.reference.add(at.reference_nats, bytes_of(targets[i]));
      found_.comparison.add(at);
    }
  }

  std::size_t bytes_of(nibble::token id) const {
    const auto i = static_cast<std::size_t>(id);
    return i < bytes_.size() ? bytes_[i] : 0;
  }

  side& model_;
  side* reference_;
  std::function<void()> check_;
  std::vector<std::size_t> bytes_;  // by token; empty without a vocabulary
  results found_;
};

std::string number(double x, int digits = 4) {
  if (std::isnan(x)) return "-";
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << x;
  return out.str();
}
std::string with_error(double x, double error, int digits = 4) {
  return number(x, digits) + " ± " + number(error, digits);
}
std::string percent(double share, double error) {
  return with_error(100 * share, 100 * error, 2) + " %";
}
// Divergences may be large or tiny: digits that count, whatever comes before them.
std::string divergence(double nats) {
  if (std::isnan(nats)) return "-";
  std::ostringstream out;
  out << std::setprecision(3) << nats;
  return out.str();
}

// A line of the table: a name, then a column for each side. Widths count characters.
void print_row(const std::string& name, const std::vector<std::string>& columns) {
  const auto padded = [](const std::string& text, std::size_t width) {
    const auto characters = static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & '\xc0') != '\x80'; }));
    return text + std::string(std::max(width, characters + 2) - characters, ' ');
  };
  std::string line = padded(name, 20);
  for (const std::string& column : columns) line += padded(column, 26);
  line.erase(line.find_last_not_of(' ') + 1);
  std::cout << line << '\n';
}

void print_comparison(const results& r) {
  const perplexity::comparison& c = r.comparison;
  std::cout << "\nDistance of the model from the reference\n";
  print_row("KL divergence", {concat(divergence(c.divergence().mean()), " ± ",
                                     divergence(c.divergence().standard_error()), " nats")});
  const auto quantiles = c.divergence_quantiles(shares);
  for (std::size_t i = 0; i < quantiles.size(); ++i) {
    print_row(concat("  ", share_names[i]), {divergence(quantiles[i])});
  }
  print_row("same top token", {percent(c.same_top().mean(), c.same_top().standard_error())});
  print_row("probability of the token that follows", {});
  print_row("  mean difference", {percent(c.difference().mean(), c.difference().standard_error())});
  print_row("  rms difference", {number(100 * c.difference_rms(), 2) + " %"});
  print_row("perplexity ratio", {with_error(c.ratio(), c.ratio_error(), 5)});
}

void print(const results& r, bool compares) {
  std::vector<const perplexity::prediction*> sides{&r.model};
  if (compares) sides.push_back(&r.reference);
  const auto row = [&](const char* name, const auto& text) {
    std::vector<std::string> columns;
    for (const auto* s : sides) columns.push_back(text(*s));
    print_row(name, columns);
  };
  std::cout << '\n';
  if (compares) print_row("", {"model", "reference"});
  row("nats a token", [](const auto& s) { return with_error(s.nats(), s.nats_error()); });
  row("perplexity", [](const auto& s) { return with_error(s.perplexity(), s.perplexity_error()); });
  row("bits a byte", [](const auto& s) { return number(s.bits_per_byte()); });
  if (compares) print_comparison(r);
}

using json = nlohmann::ordered_json;

json to_json(const common::load_options& load, const side& s, const perplexity::prediction& found) {
  const nibble::placement& plan = s.model().plan();
  return {{"path", load.path},
          {"activations", common::name_of(load.model.cpu.activations)},
          {"key", common::name_of(plan.kv.key)},
          {"value", common::name_of(plan.kv.value)},
          {"key_rotated", plan.kv.rotate_key},
          {"value_rotated", plan.kv.rotate_value},
          {"kv_bytes_per_token", plan.kv.bytes_per_token()},
          {"device", common::device_names(plan)},
          {"weight_bytes", s.model().loading().weight_bytes},
          {"total_bytes", common::total_bytes(plan)},
          {"nats", found.nats()},
          {"nats_error", found.nats_error()},
          {"perplexity", found.perplexity()},
          {"perplexity_error", found.perplexity_error()},
          {"bits_per_byte", found.bits_per_byte()}};
}

json to_json(const perplexity::comparison& c) {
  const auto q = c.divergence_quantiles(shares);
  return {{"kl_mean", c.divergence().mean()},
          {"kl_error", c.divergence().standard_error()},
          {"kl_median", q[0]},
          {"kl_90", q[1]},
          {"kl_95", q[2]},
          {"kl_99", q[3]},
          {"kl_99_9", q[4]},
          {"kl_max", q[5]},
          {"same_top", c.same_top().mean()},
          {"same_top_error", c.same_top().standard_error()},
          {"probability_difference", c.difference().mean()},
          {"probability_difference_error", c.difference().standard_error()},
          {"probability_difference_rms", c.difference_rms()},
          {"perplexity_ratio", c.ratio()},
          {"perplexity_ratio_error", c.ratio_error()}};
}

std::string running(const results& r, std::size_t done, std::size_t all, bool compares) {
  return concat(
      done, " of ", all, ": perplexity ", number(r.model.perplexity()),
      compares ? concat(", KL divergence ", divergence(r.comparison.divergence().mean())) : "");
}

json to_json(const program_options& options, std::size_t chunks, const side& model,
             const side* reference, const results& r) {
  json all{{"text", options.text.source()},
           {"chunks", chunks},
           {"tokens", r.model.tokens()},
           {"model", to_json(options.load, model, r.model)}};
  if (reference != nullptr) {
    all["reference"] = to_json(options.against, *reference, r.reference);
    all["comparison"] = to_json(r.comparison);
  }
  return all;
}

// Both models, if there are two, on a text; ends after a signal.
class measured_text {
 public:
  measured_text(program_options& options, const nibble::gguf::file& file,
                const nibble::gguf::file* other, common::graceful_stop& stop)
      : options_(options),
        stop_(stop),
        chunks_(options.text.read(file, "no results were written.").chunks) {
    for (common::load_options* load : {&options.load, &options.against}) {
      common::fit(load->model.plan, chunks_, options.batch, nibble::read_hparams(file).n_vocab);
      load->model.progress = [this](double) { check(); };
    }
    model_.emplace(file, options.load.model);
    if (other != nullptr) reference_.emplace(*other, options.against.model);
  }
  measured_text(const measured_text&) = delete;  // the models' loading refers to it
  measured_text& operator=(const measured_text&) = delete;

  void print_sides() const {
    std::cout << "model      " << model_->settings(options_.load) << '\n';
    if (reference_) {
      std::cout << "reference  " << reference_->settings(options_.against) << '\n';
    }
    std::size_t predicted = 0;
    for (const text_chunk& c : chunks_) predicted += c.predicted();
    std::cout << "text       " << options_.text.describe(chunks_) << ", "
              << common::counted(predicted, "token") << " predicted" << std::endl;
    const nibble::model& model = model_->model();
    if (model.plan().context > model.hparams().n_ctx_train) {
      std::cerr << model.plan().reasons.front() << '\n';
    }
  }

  results read() {
    measurement work(*model_, reference_ ? &*reference_ : nullptr, [this] { check(); });
    common::progress_line line;
    for (; done_ < chunks_.size(); ++done_) {
      work.add(chunks_[done_]);
      const std::string left =
          line.remaining(static_cast<double>(done_ + 1) / static_cast<double>(chunks_.size()));
      line.show([&] {
        return running(work.found(), done_ + 1, chunks_.size(), options_.compares) +
               (left.empty() ? "" : ", " + left + " left");
      });
    }
    return work.found();
  }

  json to_json(const results& r) const {
    return ::to_json(options_, chunks_.size(), *model_, reference_ ? &*reference_ : nullptr, r);
  }

 private:
  void check() {
    stop_.check([&] {
      return concat(
          "interrupted after ", done_, " of ",
          common::counted(chunks_.size(), options_.text.documents() ? "document" : "chunk"),
          "; no results were written.");
    });
  }

  const program_options& options_;
  common::graceful_stop& stop_;
  std::vector<text_chunk> chunks_;
  std::optional<side> model_, reference_;
  std::size_t done_ = 0;
};

void measure(program_options& options, const nibble::gguf::file& file,
             const std::optional<nibble::gguf::file>& other, std::optional<common::output>& out,
             common::graceful_stop& stop) {
  if (other) check_vocabularies(file, *other);
  measured_text text(options, file, other ? &*other : nullptr, stop);
  text.print_sides();
  const results r = text.read();
  print(r, options.compares);
  if (out)
    out->stream() << text.to_json(r).dump(1, ' ', false, json::error_handler_t::replace) << '\n';
}

void add_options(CLI::App& app, program_options& options) {
  options.load.add_file(app);
  options.text.add_to(app, "the held-out text of the model that comes with nibble");
  options.text.add_scoring(app);
  options.load.add_arithmetic(app);
  app.add_option("--against", options.against.path,
                 "a reference to compare with, such as the file that this one was made from; both "
                 "are in memory at once")
      ->check(common::not_empty);
  options.against.add_arithmetic(app, "against-");
  common::add_batch(app, options.batch);
  common::add_json(app, options.json_path, "also write the results to this file as JSON");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Measures how well a model predicts a text: perplexity, with its standard error. With "
      "--against or settings --against-..., also how far it is from that reference: divergence of "
      "Kullback and Leibler, and how often both find the same token most probable."};
  app.footer(
      "A text is cut into chunks that do not overlap, each read from an empty context and begun "
      "with the token that begins a text, if the model wants one. The first half of a chunk "
      "predicts nothing; from there on each token predicts the next. A rest that is no whole chunk "
      "is left out. This is what llama.cpp's llama-perplexity computes. In documents each token is "
      "predicted. The standard errors take tokens for independent.");
  program_options options;
  add_options(app, options);
  if (const auto status = common::parse(app, argc, argv)) return *status;

  return common::run([&] {
    common::graceful_stop stop;
    choose_text(options);
    complete_reference(options, app);
    const nibble::gguf::file file(options.load.path);
    std::optional<nibble::gguf::file> other;
    if (options.compares) other.emplace(options.against.path);
    // opened first: a name that cannot be written should not cost the results
    std::optional<common::output> out;
    if (!options.json_path.empty()) {
      auto inputs = options.text.inputs();
      for (const auto& path : file.paths()) inputs.push_back(path);
      if (other) {
        for (const auto& path : other->paths()) inputs.push_back(path);
      }
      out.emplace(options.json_path, inputs);
    }
    measure(options, file, other, out, stop);
    if (out) out->finish();
  });
}
