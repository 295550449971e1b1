// Sessions and schedulers without memory: what is left goes on as if nothing had happened.
#include <algorithm>
#include <nibble/engine/scheduler.hpp>

#include "small_models.hpp"

namespace {

using nibble::session;
using nibble::token;
using tokens = std::vector<token>;

struct loaded_model {
  test::stored_model stored;
  nibble::gguf::file file{stored.path};
  nibble::model model;

  explicit loaded_model(const char* architecture)
      : stored(architecture), model(file, test::hardware_with(nullptr), test::small_options()) {}
};

// A prompt that fills more than a page, so that pages are filed and shared.
tokens long_prompt() {
  tokens all;
  for (int i = 0; i < 3; ++i) {
    all.insert(all.end(), test::some_tokens.begin(), test::some_tokens.end());
  }
  return all;
}

// Whatever of it the session does not hold yet.
std::vector<float> append_rest(session& s, const tokens& all) {
  const auto there = s.tokens().size();
  REQUIRE(there < all.size());
  REQUIRE(test::held(s) == tokens(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(there)));
  return test::append(s, std::span(all).subspan(there));
}

// `with_model(f)`: calls f(model). One whose threads read ahead is made anew each time, so that
// nothing of them is counted.
template <typename WithModel>
void check_appends(const WithModel& with_model) {
  const tokens all = long_prompt();
  std::vector<float> expected;
  with_model([&](const nibble::model& model) {
    session reference(model);
    expected = test::append(reference, all);
  });
  const auto turn = [&](test::turn& now, const nibble::model& model) {
    std::optional<session> s;
    std::vector<float> found(expected.size());
    const bool done = now.in([&] {
      s.emplace(model, test::greedy);
      std::ranges::copy(s->append(all), found.begin());
    });
    if (!s) return;
    CHECK((done ? found : append_rest(*s, all)) == expected);
  };
  CHECK(test::every_failure([&](test::turn& now) {
          with_model([&](const nibble::model& model) { turn(now, model); });
        }) > 3);
}

void check_appends_in_memory(const char* architecture) {
  const loaded_model made(architecture);
  check_appends([&](const auto& f) { f(made.model); });
}

void check_appends_from_disk(const char* architecture) {
  const test::stored_model stored(architecture);
  const nibble::gguf::file file(stored.path);
  check_appends([&](const auto& f) { f(test::load_from_disk(file, test::small_options())); });
}

}  // namespace

TEST_CASE("no memory: a session is made, and appends") {
  check_appends_in_memory("llama");
  check_appends_in_memory("gemma3");
}

TEST_CASE("no memory: a session appends to a model on disk") {
  check_appends_from_disk("llama");
  check_appends_from_disk("qwen3moe");
}

TEST_CASE("no memory: a session on a GPU and the CPU appends") {
  const test::stored_model stored(test::one_layer("llama"));
  const nibble::gguf::file file(stored.path);
  auto options = test::small_options();
  options.device = "auto";
  options.plan.gpu_layers = 1;
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}});
  const auto found = test::hardware_with(&module);
  const tokens few(test::some_tokens.begin(), test::some_tokens.begin() + 4);
  std::vector<float> expected;
  CHECK(test::every_failure([&](test::turn& now) {
          const nibble::model model(file, found, options);
          session s(model);
          if (!now.in([&] { s.append(few); })) {
            CHECK(s.tokens().empty());
            return;
          }
          const auto logits = test::append(s, few);
          if (expected.empty()) expected = logits;
          CHECK(logits == expected);
        }) > 20);
}

TEST_CASE("no memory: the logits of all tokens") {
  const loaded_model made("llama");
  const tokens all = long_prompt();
  const auto every = [&](session& s, std::span<const token> more, std::vector<float>& to) {
    s.append(more, [&](std::size_t, std::span<const float> logits) {
      to.insert(to.end(), logits.begin(), logits.end());
    });
  };
  session reference(made.model);
  std::vector<float> expected;
  every(reference, all, expected);
  CHECK(test::every_failure([&](test::turn& now) {
          session s(made.model);
          std::vector<float> found;
          found.reserve(expected.size());
          if (!now.in([&] { every(s, all, found); })) {
            found.resize(s.tokens().size() * 48);
            REQUIRE(s.tokens().size() < all.size());
            every(s, std::span(all).subspan(s.tokens().size()), found);
          }
          CHECK(found == expected);
        }) > 1);
}

TEST_CASE("no memory: text is generated") {
  const loaded_model made("llama");
  const nibble::generate_options options{.max_tokens = 6, .stop = {"zzzzzz"}};
  const std::string prompt = "abcd ab";
  session reference(made.model, test::greedy);
  const std::string text = reference.generate(prompt, options).text();
  REQUIRE(!text.empty());
  const tokens expected = test::held(reference);
  CHECK(test::every_failure([&](test::turn& now) {
          session s(made.model, test::greedy);
          std::string found;
          found.reserve(100);
          const auto go_on = [&](nibble::generation more) {
            for (const std::string_view piece : more) found += piece;
          };
          if (now.in([&] { go_on(s.generate(prompt, options)); })) {
            CHECK(found == text);
          }
          if (s.tokens().empty()) go_on(s.generate(prompt, {.max_tokens = 1}));
          while (s.tokens().size() < expected.size()) {
            go_on(s.generate(tokens{}, {.max_tokens = 1}));
          }
          CHECK(test::held(s) == expected);
        }) > 10);
}

TEST_CASE("no memory: a conversation") {
  const loaded_model made("llama");
  const std::vector<nibble::chat_message> messages = {{"user", "ab cd"}};
  const nibble::generate_options options{.max_tokens = 3};
  session reference(made.model, test::greedy);
  const std::string expected = reference.reply(messages, options).text();
  CHECK(test::every_failure([&](test::turn& now) {
          session s(made.model, test::greedy);
          std::string found;
          if (!now.in([&] { found = s.reply(messages, options).text(); })) {
            found = s.reply(messages, options).text();
          }
          CHECK(found == expected);
        }) > 10);
}

TEST_CASE("no memory: sessions are forked, cut, shifted and sampled") {
  const loaded_model made("gemma3");
  const tokens all = long_prompt();
  const auto work = [&](session& s) {
    session other = s.fork();
    other.append(test::some_tokens);
    s.set_sampling({.temperature = 0.7f, .seed = 3, .repeat_penalty = 1.1f, .dry_multiplier = 1});
    s.sample();
    s.truncate(80);
    s.shift(2, 30);
    s.append(std::span(test::some_tokens).first(5));
  };
  session reference(made.model);
  test::append(reference, all);
  work(reference);
  CHECK(test::every_failure([&](test::turn& now) {
          session s(made.model);
          test::append(s, all);
          const bool done = now.in([&] { work(s); });
          const auto n = s.tokens().size();
          CHECK((n == 96 || n == 80 || n == 50 || n == 55));
          CHECK((!done || test::held(s) == test::held(reference)));
          s.truncate(0);
          CHECK(test::append(s, all).size() == 48);
        }) > 10);
}

TEST_CASE("no memory: a session is saved and loaded") {
  const loaded_model made("gemma3");
  const tokens all = long_prompt();
  const auto path = made.stored.folder / "session";
  session reference(made.model);
  test::append(reference, std::span(all).first(70));
  const auto saved = made.stored.folder / "saved";
  reference.save(saved);
  const auto expected = append_rest(reference, all);
  CHECK(test::every_failure([&](test::turn& now) {
          session s(made.model);
          test::append(s, std::span(all).first(70));
          const bool done = now.in([&] { s.save(path); });
          CHECK(std::filesystem::exists(path) == done);
          CHECK(test::names_in(made.stored.folder).size() == (done ? 3 : 2));
          std::filesystem::remove(path);
          CHECK(append_rest(s, all) == expected);
        }) > 5);
  CHECK(test::every_failure([&](test::turn& now) {
          std::optional<session> s;
          now.in([&] { s.emplace(session::load(made.model, saved)); });
          if (s) CHECK(append_rest(*s, all) == expected);
        }) > 5);
}

namespace {

struct end_of_task {
  int count = 0;
  bool failed = false;
  tokens held;
  std::string text;
};

std::vector<nibble::scheduler_task> tasks_for(const nibble::model& model,
                                              const std::vector<tokens>& prompts,
                                              std::vector<end_of_task>& ends) {
  std::vector<nibble::scheduler_task> tasks;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    tasks.push_back({.session = session(model, test::greedy),
                     .prompt = prompts[i],
                     .options = {.max_tokens = 4}});
    ends[i].text.reserve(200);
    ends[i].held.reserve(100);
    tasks.back().on_text = [&to = ends[i]](std::string_view text) { to.text += text; };
    tasks.back().on_end = [&to = ends[i]](session s, nibble::finish_reason,
                                          std::exception_ptr failure) {
      ++to.count;
      to.failed = failure != nullptr;
      to.held.assign(s.tokens().begin(), s.tokens().end());  // there is room
    };
  }
  return tasks;
}

// Submits what is not submitted yet, and runs.
void run_rest(nibble::scheduler& by, std::vector<nibble::scheduler_task>& tasks,
              std::size_t& submitted) {
  while (submitted < tasks.size()) {
    by.submit(std::move(tasks[submitted]));
    ++submitted;
  }
  by.run();
}

}  // namespace

TEST_CASE("no memory: a scheduler") {
  const loaded_model made("llama");
  std::vector<tokens> prompts(3, test::some_tokens);
  prompts[1].resize(7);
  prompts[2][0] = 6;
  std::vector<end_of_task> expected(prompts.size());
  {
    nibble::scheduler by(made.model);
    auto tasks = tasks_for(made.model, prompts, expected);
    std::size_t submitted = 0;
    run_rest(by, tasks, submitted);
  }
  CHECK(test::every_failure([&](test::turn& now) {
          std::vector<end_of_task> ends(prompts.size());
          auto tasks = tasks_for(made.model, prompts, ends);
          std::optional<nibble::scheduler> by;
          std::size_t submitted = 0;
          now.in([&] {
            by.emplace(made.model);
            run_rest(*by, tasks, submitted);
          });
          if (!by) by.emplace(made.model);
          run_rest(*by, tasks, submitted);
          for (std::size_t i = 0; i < ends.size(); ++i) {
            INFO("task " << i);
            CHECK(ends[i].count == 1);
            if (ends[i].failed) continue;
            CHECK(ends[i].held == expected[i].held);
            CHECK(ends[i].text == expected[i].text);
          }
        }) > 50);
}
