// nibble-batch: continues many texts at once, in common batches.

#include <chrono>
#include <cstdio>
#include <deque>
#include <iomanip>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common.hpp"
#include "progress.hpp"
#include "sampling_options.hpp"

namespace {

struct options {
  common::load_options load;
  nibble::sampling_options sampling;
  nibble::generate_options generate;
  std::string prompts = "-";
  bool json = false;
};

void add_options(CLI::App& app, options& o) {
  o.load.add_to(app);
  app.add_option("prompts", o.prompts, "text file with a prompt on each line; - for standard input")
      ->capture_default_str()
      ->check(common::not_empty);
  o.load.model.plan.sessions = 8;
  app.add_option("--sessions", o.load.model.plan.sessions, "texts that are continued together")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  app.add_option("-n,--max-tokens", o.generate.max_tokens,
                 "of each text; 0: until the model or the context ends")
      ->capture_default_str()
      ->check(CLI::Range(0, std::numeric_limits<std::int32_t>::max()));
  app.add_option("--stop", o.generate.stop, "end a text before this; may be repeated")
      ->allow_extra_args(false)
      ->check(common::not_empty);
  app.add_flag("--json,--jsonl", o.json,
               "write a JSON object for each line: line, prompt, text, finish, prompt_tokens, "
               "shared_tokens, generated_tokens; or error");
  common::sampling_group(app, o.sampling);
}

const char* to_text(nibble::finish_reason reason) {
  switch (reason) {
    case nibble::finish_reason::end_of_text:
      return "end_of_text";
    case nibble::finish_reason::stop_string:
      return "stop_string";
    case nibble::finish_reason::max_tokens:
      return "max_tokens";
    case nibble::finish_reason::context_full:
      return "context_full";
    case nibble::finish_reason::cancelled:
      return "cancelled";
    case nibble::finish_reason::none:
      break;
  }
  return "none";
}

// A line and what became of it.
struct answer {
  std::string prompt, text = {}, error = {};
  nibble::finish_reason why = nibble::finish_reason::none;
  std::int64_t prompt_tokens = 0, shared_tokens = 0, generated_tokens = 0;
  bool done = false;
};

std::deque<answer> read_lines(const std::string& path) {
  std::string text;
  if (path == "-") {
    text = common::read_standard_input();
  } else {
    const common::immediate_stop stop("interrupted while '" + path + "' was read.");
    common::text_input in(path);
    text = common::read_all(in);
  }
  std::deque<answer> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back({.prompt = line});
  }
  if (!lines.empty()) return lines;
  throw nibble::error(nibble::errc::invalid_argument,
                      "holds no prompts; one on each line was expected.",
                      {.file = path == "-" ? common::standard_input : path});
}

std::string sentence_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  }
}

class batch_run {
 public:
  batch_run(const options& o, const nibble::model& model, std::deque<answer>& answers)
      : o_(o), model_(model), answers_(answers), scheduler_(model) {}

  // Until all is done, or `stop` says so: what has begun is cancelled then.
  void run(common::graceful_stop& stop) {
    common::progress_line line;
    for (bool more = true; more;) {
      stop.poll();
      // few wait at a time: each holds memory
      while (begun_ < answers_.size() && !stop.token().stop_requested() &&
             scheduler_.running() + scheduler_.waiting() <= model_.plan().sessions) {
        begin(begun_++);
      }
      more = scheduler_.step() || (begun_ < answers_.size() && !stop.token().stop_requested());
      write_done();
      line.show([&] { return state(line); });
    }
  }

  void show_totals(std::ostream& out) const {
    std::int64_t prompt = 0, shared = 0, generated = 0;
    for (const answer& a : answers_) {
      prompt += a.prompt_tokens;
      shared += a.shared_tokens;
      generated += a.generated_tokens;
    }
    std::ostringstream speed;
    speed << std::fixed << std::setprecision(1) << static_cast<double>(generated) / seconds();
    out << common::counted(written_, "text") << ": " << common::counted(prompt, "prompt token")
        << ", " << shared << " of them shared; " << generated << " generated in " << std::fixed
        << std::setprecision(2) << seconds() << " s, " << speed.str() << " tokens/s\n";
  }

 private:
  void begin(std::size_t i) {
    answer& a = answers_[i];
    try {
      auto prompt =
          model_.tokenizer().encode(a.prompt, {.parse_special = o_.generate.parse_special});
      a.prompt_tokens = static_cast<std::int64_t>(prompt.size());
      scheduler_.submit(
          {.session = nibble::session(model_, o_.sampling),
           .prompt = std::move(prompt),
           .options = o_.generate,
           .on_text = [&a](std::string_view piece) { a.text += piece; },
           .on_end = [this, &a](
                         const nibble::session& session, nibble::finish_reason why,
                         const std::exception_ptr& failure) { end(a, session, why, failure); }});
    } catch (const nibble::error& e) {  // the others go on
      a.error = e.what();
      a.done = true;
    }
  }

  static void end(answer& a, const nibble::session& session, nibble::finish_reason why,
                  const std::exception_ptr& failure) {
    a.done = true;
    a.why = why;
    if (failure) a.error = sentence_of(failure);
    a.shared_tokens = session.timings().shared_tokens;
    const auto held = static_cast<std::int64_t>(session.tokens().size());
    if (held < a.prompt_tokens) return;
    // the last one was given out and not appended, or ended the text
    const bool ended = why == nibble::finish_reason::end_of_text;
    a.generated_tokens = held - a.prompt_tokens + (ended ? 0 : 1);
  }

  // In the order of the lines.
  void write_done() {
    const std::size_t before = written_;
    for (; written_ < answers_.size() && answers_[written_].done; ++written_) {
      write(written_ + 1, answers_[written_]);
    }
    if (written_ > before) common::finish(std::cout, "standard output");
  }

  void write(std::size_t number, const answer& a) const {
    if (!o_.json) {
      std::cout << "=== " << number << '\n' << a.text << '\n';
      return;
    }
    nlohmann::ordered_json line{{"line", number}, {"prompt", a.prompt}};
    if (a.error.empty()) {
      line.update({{"text", a.text},
                   {"finish", to_text(a.why)},
                   {"prompt_tokens", a.prompt_tokens},
                   {"shared_tokens", a.shared_tokens},
                   {"generated_tokens", a.generated_tokens}});
    } else {
      line["error"] = a.error;
    }
    std::cout << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  }

  std::string state(const common::progress_line& line) const {
    const std::string left =
        line.remaining(static_cast<double>(written_) / static_cast<double>(answers_.size()));
    return nibble::concat(written_, " of ", answers_.size(), " written, ", scheduler_.running(),
                          " running", left.empty() ? "" : ", " + left + " left");
  }

  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  const options& o_;
  const nibble::model& model_;
  std::deque<answer>& answers_;
  nibble::scheduler scheduler_;
  std::size_t begun_ = 0, written_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void check_failures(const std::deque<answer>& answers) {
  std::size_t failed = 0;
  std::string first;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].error.empty()) continue;
    if (failed++ == 0) first = nibble::concat("line ", i + 1, ": ", answers[i].error);
  }
  if (failed == 0) return;
  throw nibble::error(nibble::errc::invalid_argument,
                      nibble::concat(failed, " of ", common::counted(answers.size(), "prompt"),
                                     " could not be continued; ", first));
}

void generate(options& o) {
  common::as_usage([&] { nibble::validate(o.sampling); });  // before a long loading
  std::deque<answer> answers = read_lines(o.prompts);
  common::graceful_stop stop;
  o.load.model.progress = [&stop](double) {
    stop.check([] { return "interrupted while the model was loaded; nothing was generated."; });
  };
  const nibble::model model(nibble::gguf::file(o.load.path), o.load.model);
  model.tokenizer();                   // said at once if there is none
  nibble::session(model, o.sampling);  // or what the vocabulary does not allow
  o.generate.cancel = stop.token();
  batch_run run(o, model, answers);
  run.run(stop);
  run.show_totals(std::cerr);
  common::finish(std::cout, "standard output");
  if (stop.token().stop_requested()) common::end_by_caught_signal();
  check_failures(answers);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Continues many texts at once: a prompt on each line of a file or of the standard input. "
      "Texts are computed in common batches, and what prompts have in common only once. They are "
      "written in the order of the lines, each after a line '=== NUMBER', or with --json as JSON. "
      "With a seed, each text is what nibble-generate writes with it. An interrupt (Ctrl-C) ends "
      "the texts that have begun."};
  options o;
  add_options(app, o);
  if (const auto status = common::parse(app, argc, argv)) return *status;
  return common::run([&] { generate(o); });
}
