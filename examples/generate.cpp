// nibble-generate: continues a text, or answers a question with --chat.

#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stop_token>

#include "common.hpp"
#include "disk_reads.hpp"
#include "progress.hpp"
#include "sampling_options.hpp"

namespace {

std::stop_source interrupted;  // Ctrl-C ends the text and then the program, a second one at once

const char* to_text(nibble::finish_reason reason) {
  switch (reason) {
    case nibble::finish_reason::end_of_text:
      return "the model ended its text";
    case nibble::finish_reason::stop_string:
      return "a stop string was met";
    case nibble::finish_reason::max_tokens:
      return "the asked number of tokens was reached";
    case nibble::finish_reason::context_full:
      return "the context is full (see --context and --when-full)";
    case nibble::finish_reason::cancelled:
      return "cancelled";
    case nibble::finish_reason::none:
      break;
  }
  return "not finished";
}

std::string percent(double share) {
  return nibble::concat(static_cast<int>(share * 100), " %");
}

// Of what was read since the model was loaded; a model that lies in memory reads next to nothing.
void show_disk(const nibble::session_timings& t, const nibble::model& model,
               std::optional<std::uint64_t> before) {
  const auto& devices = model.plan().devices;
  const bool streams = std::any_of(devices.begin(), devices.end(), [](const auto& use) {
    return use.device.kind == nibble::device_kind::disk;
  });
  const auto now = common::disk_bytes_read();
  const double seconds = t.prompt_seconds + t.generated_seconds;
  if (!streams || !before || !now || seconds <= 0) return;
  const auto bytes = static_cast<double>(*now - *before);
  std::fprintf(stderr, "%-12s %8.2f GB     %9.3f s %10.2f GB/s\n", "disk", bytes / 1e9, seconds,
               bytes / 1e9 / seconds);
}

void show_timings(const nibble::session& session, const nibble::model& model,
                  std::optional<std::uint64_t> disk_before) {
  const auto& t = session.timings();
  const auto row = [](const char* what, std::int64_t tokens, double seconds) {
    std::fprintf(stderr, "%-12s %8lld tokens %9.3f s %10.1f tokens/s\n", what,
                 static_cast<long long>(tokens), seconds,
                 seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0);
  };
  std::fprintf(stderr, "%-12s %8s        %9.3f s  (%s of weights)\n", "load", "",
               model.loading().seconds, nibble::to_text(model.loading().weight_bytes).c_str());
  if (t.shared_tokens > 0) {
    std::fprintf(stderr, "%-12s %8lld tokens\n", "known", static_cast<long long>(t.shared_tokens));
  }
  row("prompt", t.prompt_tokens, t.prompt_seconds);
  row("generation", t.generated_tokens, t.generated_seconds);
  show_disk(t, model, disk_before);
}

// Whether reading ended at an error instead of the end; std::cin takes the one for the other.
void check_standard_input() {
  if (std::ferror(stdin) == 0) return;
  throw nibble::error(nibble::errc::io, "cannot be read.", {.file = common::standard_input});
}

struct options {
  common::load_options load;
  nibble::sampling_options sampling;
  nibble::generate_options generate;
  nibble::session_options session;
  std::string session_path;
  std::optional<std::string> prompt;
  std::string system;
  bool chat = false, echo = false, verbose = false;
};

void add_options(CLI::App& app, options& o) {
  o.load.add_to(app);
  app.add_option_function<std::string>(
      "prompt", [&o](const std::string& text) { o.prompt = text; },
      "text to continue; - reads it from standard input");
  auto* const chat = app.add_flag("--chat", o.chat,
                                  "answer the prompt by the model's chat template; without a "
                                  "prompt, answer each line of the standard input");
  app.add_flag("--echo", o.echo, "print the text to continue as well, not only what comes after")
      ->excludes(chat);
  app.add_option("--system", o.system, "system message, with --chat")->needs(chat);
  app.add_option("-n,--max-tokens", o.generate.max_tokens, "0: until the model or the context ends")
      ->capture_default_str()
      ->check(CLI::Range(0, std::numeric_limits<std::int32_t>::max()));
  app.add_option("--stop", o.generate.stop, "end before this text; may be repeated")
      ->allow_extra_args(false)  // what follows the text may be the prompt
      ->check(common::not_empty);
  using policy = nibble::context_policy;
  common::add_choice<policy>(
      app, "--when-full",
      {{"stop", policy::stop}, {"shift", policy::shift}, {"slide", policy::slide}},
      [&o](policy chosen) { o.session.when_full = chosen; },
      "what to do when the context is full: end the text, drop half of the oldest tokens, or as "
      "few "
      "as can be (default: stop)");
  app.add_option("--keep", o.session.keep,
                 "tokens at the beginning that stay when others are dropped")
      ->capture_default_str()
      ->check(CLI::Range(0, common::most_context));
  app.add_option("--session", o.session_path,
                 "go on from the session saved in this file, if there is one, and save it there in "
                 "the end")
      ->check(common::is_output)
      ->excludes(chat);
  app.add_flag("-v,--verbose", o.verbose, "show the plan and the timings");
  common::sampling_group(app, o.sampling);
}

// Prints the text as it comes, and returns it.
std::string print(nibble::generation& text) {
  std::string all;
  for (const std::string_view piece : text) {
    std::cout << piece;
    common::finish(std::cout, "standard output");  // shown at once, or no use going on
    all += piece;
  }
  std::cout << std::endl;
  return all;
}

// Whether the text ended by itself, and no interrupt cut it.
bool continue_text(nibble::session& session, const options& o) {
  auto text = session.generate(*o.prompt, o.generate);
  if (o.echo) std::cout << *o.prompt;
  print(text);
  if (o.verbose) std::cerr << "\nfinished: " << to_text(text.finished()) << '\n';
  return text.finished() != nibble::finish_reason::cancelled;
}

// One answer to the prompt; without a prompt, an answer to each line of the standard input,
// whose end is also an interrupt that comes while a line is awaited. The result is as above.
bool chat(nibble::session& session, const options& o) {
  const bool one = o.prompt.has_value(), terminal = isatty(STDIN_FILENO);
  std::vector<nibble::chat_message> messages;
  if (!o.system.empty()) messages.push_back({"system", o.system});
  std::string line = o.prompt.value_or("");
  const auto next_line = [&] {
    if (terminal) std::cerr << "> ";
    if (std::getline(std::cin, line)) return true;
    if (!interrupted.stop_requested()) check_standard_input();
    return false;
  };
  while (one || next_line()) {
    messages.push_back({"user", line});
    auto text = session.reply(messages, o.generate);
    messages.push_back({"assistant", print(text)});
    if (o.verbose) std::cerr << "\nfinished: " << to_text(text.finished()) << '\n';
    if (text.finished() == nibble::finish_reason::cancelled) return false;
    if (one) break;
  }
  return true;
}

nibble::model load(common::load_options& o) {
  common::progress_line line;
  nibble::model_options options = o.model;
  options.progress = [&](double share) {
    line.show([&] { return nibble::concat("loading ", percent(share)); });
  };
  return nibble::model(nibble::gguf::file(o.path), options);
}

// Of prompts that take long: a line, gone before there is text.
std::function<void(double)> prompt_progress() {
  return [line = std::make_shared<std::optional<common::progress_line>>()](double share) {
    if (share <= 0) line->emplace(std::chrono::milliseconds(300));
    if (share >= 1) return line->reset();
    (*line)->show([&] {
      const std::string left = (*line)->remaining(share);
      return nibble::concat("prompt ", percent(share), left.empty() ? "" : ", left: ", left);
    });
  };
}

nibble::session open_session(const nibble::model& model, const options& o) {
  nibble::session_options with = o.session;
  with.progress = prompt_progress();
  if (o.session_path.empty() || !std::filesystem::exists(o.session_path)) {
    return nibble::session(model, o.sampling, with);
  }
  return nibble::session::load(model, o.session_path, o.sampling, with);
}

void show_memory(const nibble::model& model) {
  for (const nibble::device_memory& m : model.memory()) {
    std::cerr << m.device.name << ": " << nibble::to_text(m.now.device()) << " allocated, "
              << nibble::to_text(m.peak.device()) << " at most";
    if (m.peak.host > 0) std::cerr << "; for transfers " << nibble::to_text(m.peak.host);
    std::cerr << '\n';
  }
}

void generate(options& o) {
  common::as_usage([&] { nibble::validate(o.sampling); });  // before a long loading
  if (o.prompt == "-") o.prompt = common::read_standard_input();
  const nibble::model model = load(o.load);
  if (o.verbose) std::cerr << model.plan() << '\n';
  const auto disk_before = common::disk_bytes_read();
  nibble::session session = open_session(model, o);
  o.generate.cancel = interrupted.get_token();
  common::stop_on_interrupt(interrupted);
  const bool whole = o.chat ? chat(session, o) : continue_text(session, o);
  if (!o.session_path.empty()) session.save(o.session_path);
  if (o.verbose) {
    show_memory(model);
    std::cerr << "seed " << session.seed() << "\n";
    show_timings(session, model, disk_before);
  }
  common::finish(std::cout, "standard output");
  if (!whole) common::end_by_caught_signal();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Continues a text with a model, or answers a message with --chat. An interrupt (Ctrl-C) ends "
      "the text and then the program, by that signal; while --chat waits for a line it is the end "
      "of the input."};
  options o;
  add_options(app, o);
  app.final_callback([&] {
    if (!o.prompt && !o.chat) throw CLI::RequiredError("prompt (or --chat)");
    if (o.session.keep > 0 && o.session.when_full == nibble::context_policy::stop) {
      throw CLI::ValidationError("--keep",
                                 "tokens are only dropped with --when-full shift or slide");
    }
  });
  if (const auto status = common::parse(app, argc, argv)) return *status;
  return common::run([&] { generate(o); });
}
