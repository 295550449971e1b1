// Tasks of a scheduler that are cancelled: when, by whom, and what their sessions are good for
// afterwards.

#include <atomic>
#include <thread>

#include "scheduler_test.hpp"

namespace {

using namespace test::batches;

// The session after a task goes on to write what it would have written.
void check_goes_on(watched& w, const tokens& prompt, const sampling_options& sampling) {
  REQUIRE(w.ends == 1);
  REQUIRE(w.after);
  CHECK(w.found.why == finish_reason::cancelled);
  CHECK(w.failure == nullptr);
  // longer than what was written, however late the cancelling came
  const auto length = static_cast<std::int32_t>(w.found.held.size()) + 60;
  const outcome whole = alone(loaded(), sampling, prompt, {.max_tokens = length});
  CHECK(whole.text.starts_with(w.found.text));
  CHECK(std::equal(w.found.held.begin(), w.found.held.end(), whole.held.begin()));
  if (w.found.held.size() < prompt.size()) {
    w.after->append(std::span(prompt).subspan(w.found.held.size()));
  }
  const auto rest = static_cast<std::int32_t>(whole.held.size() - w.after->tokens().size());
  // a token that was given out may be pending
  const outcome more = alone(*w.after, {}, {.max_tokens = rest + 1});
  CHECK(whole.held.size() <= more.held.size());
  CHECK(std::equal(whole.held.begin(), whole.held.end(), more.held.begin()));
}

const sampling_options& seeded() {
  static const sampling_options options = endless(loaded(), {.temperature = 1, .seed = 5});
  return options;
}

}  // namespace

TEST_CASE("a waiting task that is cancelled ends at once, and its session is as it was") {
  scheduler s(loaded(), {.max_running = 1});
  watched first, second, third;
  s.submit(first.task(session(loaded(), greedy()), some_tokens(9), {.max_tokens = 10}));
  const auto id = s.submit(second.task(session(loaded(), greedy()), some_tokens(9, 1), {}));
  s.submit(third.task(session(loaded(), greedy()), some_tokens(9, 2), {.max_tokens = 10}));
  s.step();
  CHECK(s.waiting() == 2);
  CHECK(s.cancel(id));
  CHECK(s.waiting() == 1);
  CHECK(second.ends == 1);
  CHECK(second.found.held.empty());
  CHECK_FALSE(s.cancel(id));
  CHECK_FALSE(s.cancel(12345));
  s.run();
  CHECK(first.found.why == finish_reason::max_tokens);
  CHECK(third.found.why == finish_reason::max_tokens);
  check_goes_on(second, some_tokens(9, 1), greedy());
}

TEST_CASE("a running task that is cancelled between batches can go on alone") {
  for (const std::size_t length : {9, 300}) {
    for (const int steps : {0, 1, 3, 20}) {
      INFO(length << " tokens, after " << steps << " steps");
      scheduler s(loaded(), {.prompt_tokens = 64});
      watched w, other;
      // tokens that no test before has left in pages
      const tokens prompt = some_tokens(length, 11 + static_cast<std::size_t>(steps));
      const auto id = s.submit(w.task(session(loaded(), seeded()), prompt, {}));
      s.submit(other.task(session(loaded(), greedy()), some_tokens(5), {.max_tokens = 30}));
      for (int i = 0; i < steps; ++i) s.step();
      CHECK(w.ends == 0);
      CHECK(s.cancel(id));
      check_goes_on(w, prompt, seeded());
      s.run();
      CHECK(other.found == alone(loaded(), greedy(), some_tokens(5), {.max_tokens = 30}));
    }
  }
}

TEST_CASE("a token that was pending before a task is pending again if nothing was computed") {
  const outcome whole = alone(loaded(), greedy(), some_tokens(9), {.max_tokens = 30});
  session s(loaded(), greedy());
  std::string text = s.generate(some_tokens(9), {.max_tokens = 10}).text();
  const tokens before = held(s);
  // prompts get a token of each batch, and the first one takes it
  scheduler one(loaded(), {.prompt_tokens = 1});
  watched first, second;
  one.submit(first.task(session(loaded(), greedy()), some_tokens(100, 3), {.max_tokens = 1}));
  const auto id = one.submit(second.task(std::move(s), some_tokens(20, 4), {}));
  one.step();
  one.step();
  CHECK(one.cancel(id));
  CHECK(second.found.held == before);
  const outcome rest = alone(*second.after, {}, {.max_tokens = 20});
  CHECK(text + rest.text == whole.text);
  CHECK(rest.held == whole.held);
}

TEST_CASE("what a cancelled task held back is given out") {
  scheduler s(loaded());
  watched w;
  const outcome whole = alone(loaded(), greedy(), some_tokens(9), {.max_tokens = 30});
  const std::string stop = whole.text.substr(0, 40) + "\x01";  // all is held back for so long
  const auto id = s.submit(
      w.task(session(loaded(), greedy()), some_tokens(9), {.max_tokens = 30, .stop = {stop}}));
  for (int i = 0; i < 4; ++i) s.step();
  CHECK(w.pieces == 0);
  s.cancel(id);
  CHECK(w.ends == 1);
  CHECK_FALSE(w.found.text.empty());
  CHECK(whole.text.starts_with(w.found.text));
}

TEST_CASE("the pages of a cancelled task are another's in the next step") {
  for (const bool keep : {false, true}) {
    const nibble::model model = load_tales(1, 128);
    scheduler s(model, {.max_running = 1});
    watched w, next;
    auto task = w.task(session(model, greedy()), some_tokens(100));
    if (!keep) task.on_end = {};
    const auto id = s.submit(std::move(task));
    s.submit(next.task(session(model, greedy()), some_tokens(100, 1)));
    s.step();
    s.step();
    CHECK(next.pieces == 0);
    CHECK(s.cancel(id));
    w.after.reset();
    for (int i = 0; i < 3; ++i) s.step();
    CHECK(next.pieces > 0);
    s.run();
    CHECK(next.found.why == finish_reason::context_full);
    CHECK(next.found.held.size() == 128);
  }
}

TEST_CASE("a callback may cancel its own task and others") {
  scheduler s(loaded(), {.max_running = 2});
  std::deque<watched> all(3);
  std::vector<scheduler::task_id> ids;
  for (std::size_t i = 0; i < all.size(); ++i) {
    ids.push_back(s.submit(all[i].task(session(loaded(), seeded()), some_tokens(8, i))));
  }
  all[0].then = [&] {
    if (all[0].pieces != 3) return;
    for (const auto id : ids) CHECK(s.cancel(id));
    for (const auto id : ids) CHECK_FALSE(s.cancel(id));
  };
  s.run();
  CHECK(all[0].pieces == 3);
  for (std::size_t i = 0; i < all.size(); ++i) {
    check_goes_on(all[i], some_tokens(8, i), seeded());
  }
}

TEST_CASE("the stop token of a task's options ends it, running or waiting") {
  scheduler s(loaded(), {.max_running = 2});
  std::stop_source early, running, waiting;
  watched none, runs, waits, other;
  early.request_stop();
  s.submit(none.task(session(loaded(), greedy()), some_tokens(8), {.cancel = early.get_token()}));
  s.submit(
      runs.task(session(loaded(), seeded()), some_tokens(8, 1), {.cancel = running.get_token()}));
  s.submit(other.task(session(loaded(), greedy()), some_tokens(8, 2), {.max_tokens = 12}));
  s.submit(
      waits.task(session(loaded(), seeded()), some_tokens(8, 3), {.cancel = waiting.get_token()}));
  for (int i = 0; i < 4; ++i) s.step();
  CHECK(none.ends == 1);
  CHECK(none.found.held.empty());
  CHECK(runs.ends == 0);
  CHECK(s.waiting() == 1);
  waiting.request_stop();
  running.request_stop();
  s.step();
  CHECK(waits.ends == 1);
  CHECK(waits.found.held.empty());
  s.run();
  check_goes_on(none, some_tokens(8), greedy());
  check_goes_on(runs, some_tokens(8, 1), seeded());
  check_goes_on(waits, some_tokens(8, 3), seeded());
  CHECK(other.found.why == finish_reason::max_tokens);
}

TEST_CASE("a task may be cancelled from another thread while a batch is computed") {
  scheduler s(loaded(), {.max_running = 4, .prompt_tokens = 32});
  std::deque<watched> all(12);
  std::vector<scheduler::task_id> ids;
  std::atomic<int> pieces = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].then = [&] { ++pieces; };
    ids.push_back(s.submit(
        all[i].task(session(loaded(), greedy()), some_tokens(8 + i, i), {.max_tokens = 200})));
  }
  std::jthread canceller([&] {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      // after some pieces of others, at any time of a step
      for (const int wanted = pieces + 3; pieces < wanted && s.running() > 0;) {
        std::this_thread::yield();
      }
      CHECK(s.cancel(ids[i]));
    }
  });
  while (s.running() + s.waiting() > 0) s.step();
  canceller.join();
  s.run();
  for (std::size_t i = 0; i < all.size(); ++i) {
    check_goes_on(all[i], some_tokens(8 + i, i), greedy());
  }
}

TEST_CASE("callbacks of one task come in order, also when another thread cancels it") {
  for (int round = 0; round < 8; ++round) {
    scheduler s(loaded());
    watched w;
    std::atomic<bool> written = false, inside = false;
    std::atomic<int> overlaps = 0;
    auto task = w.task(session(loaded(), greedy()), some_tokens(4));
    w.then = [&] {
      inside = true;
      written = true;
      for (int i = 0; i < 100; ++i) std::this_thread::yield();
      inside = false;
    };
    task.on_end = [&, end = task.on_end](session ended, finish_reason why, std::exception_ptr e) {
      if (inside) ++overlaps;
      end(std::move(ended), why, e);
    };
    const auto id = s.submit(std::move(task));
    std::jthread canceller([&] {
      while (!written) std::this_thread::yield();
      s.cancel(id);
    });
    while (s.running() > 0) s.step();
    canceller.join();
    s.run();
    CHECK(overlaps == 0);
    CHECK(w.ends == 1);
    CHECK(w.found.why == finish_reason::cancelled);
  }
}
