// Many generations in common batches write what each writes alone.

#include <atomic>
#include <thread>

#include "../model/tiny_model.hpp"
#include "scheduler_test.hpp"

namespace {

using namespace test::batches;

}  // namespace

TEST_CASE("tasks in common batches write, token for token, what each writes alone") {
  std::vector<request> requests;
  for (const std::size_t length : {1, 2, 300, 5, 64, 17, 65, 130}) {
    const std::size_t i = requests.size();
    sampling_options sampling{.temperature = 0};
    if (i % 2 == 1) sampling = {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = i};
    requests.push_back({some_tokens(length, i), sampling, {.max_tokens = 24}});
  }
  const auto wanted = one_by_one(load_tales(1), requests);
  for (const nibble::scheduler_options& options : {nibble::scheduler_options{},
                                                   {.max_running = 3},
                                                   {.prompt_tokens = 7},
                                                   {.max_running = 1, .prompt_tokens = 100},
                                                   {.max_running = 5, .prompt_tokens = 33}}) {
    INFO(options.max_running << " running, " << options.prompt_tokens << " prompt tokens");
    check_same(together(load_tales(8), requests, options), wanted);  // nothing to share
  }
  check_same(together(load_tales(8, 0, 2), requests, {}), wanted);  // on two threads
  check_same(together(loaded(), requests, {}), wanted);
  check_same(together(loaded(), requests, {.prompt_tokens = 50}), wanted);  // pages are found
}

TEST_CASE("tasks of every architecture write what each writes alone") {
  for (const std::string& architecture : test::architectures()) {
    INFO(architecture);
    test::tiny_model tiny(architecture);
    const auto bytes = tiny.set_vocabulary().make_tensors().bytes();
    nibble::model_options options;
    options.cpu.threads = 1;
    options.plan = {.sessions = 4, .batch = 16};
    const nibble::model model(nibble::gguf::file(bytes, "tiny.gguf"), options);
    std::vector<request> requests;
    for (const int length : {1, 40, 9, 30, 17}) {
      tokens prompt;
      for (int i = 0; i < length; ++i) prompt.push_back(5 + (length + i * 7) % 30);
      requests.push_back({prompt, endless(model, {.seed = 3}), {.max_tokens = 12}});
    }
    const auto wanted = one_by_one(model, requests);
    check_same(together(model, requests, {}), wanted);
    check_same(together(model, requests, {.max_running = 2, .prompt_tokens = 5}), wanted);
    for (request& r : requests) r.options.max_tokens = 100;  // the context holds 64
    for (const auto policy : {nibble::context_policy::shift, nibble::context_policy::slide}) {
      const nibble::session_options of_session{.when_full = policy, .keep = 3};
      check_same(together(model, requests, {}, of_session),
                 one_by_one(model, requests, of_session));
    }
  }
}

TEST_CASE("tasks end for the reasons for which they end alone") {
  const nibble::model model = load_tales(4, 64);
  const tokens prompt = model.tokenizer().encode("Once upon a time");
  const std::string whole = alone(model, greedy(), prompt, {.max_tokens = 40}).text;
  const nibble::logit_bias ends{model.tokenizer().eos().value(), 30.0f};
  const std::vector<request> requests = {
      {prompt, greedy(), {.max_tokens = 40, .stop = {"nowhere", whole.substr(30, 9)}}},
      {prompt, greedy(), {.max_tokens = 20, .stop = {whole.substr(0, 60) + "\x01"}}},
      {prompt, greedy(), {.max_tokens = 1}},
      {prompt, {.temperature = 0, .logit_bias = {ends}}, {.max_tokens = 40}},
      {prompt, greedy(), {}},
      {prompt, greedy(), {.sampling = sampling_options{.temperature = 1, .seed = 4}}},
  };
  const auto found = together(model, requests, {});
  check_same(found, one_by_one(model, requests));
  CHECK(found[0].why == finish_reason::stop_string);
  CHECK(found[0].text == whole.substr(0, whole.find(whole.substr(30, 9))));
  CHECK(found[1].why == finish_reason::max_tokens);
  CHECK(found[2].why == finish_reason::max_tokens);
  CHECK(found[3].why == finish_reason::end_of_text);
  CHECK(found[4].why == finish_reason::context_full);
  CHECK(found[4].held.size() == 64);
}

TEST_CASE("a long prompt does not stop those that generate") {
  const nibble::model model = load_tales(4);
  scheduler s(model, {.prompt_tokens = 16});
  std::deque<watched> writers(3);
  for (std::size_t i = 0; i < 3; ++i) {
    s.submit(writers[i].task(session(model, greedy()), some_tokens(4, i), {.max_tokens = 60}));
  }
  s.step();
  watched reader;
  s.submit(reader.task(session(model, greedy()), some_tokens(300, 5), {.max_tokens = 2}));
  int steps = 0;
  std::vector<int> before(3, 0), waited(3, 0);
  while (reader.pieces == 0) {
    REQUIRE(s.step());
    ++steps;
    for (std::size_t i = 0; i < 3; ++i) {
      // not each token is a whole character
      waited[i] = writers[i].pieces > before[i] ? 0 : waited[i] + 1;
      before[i] = writers[i].pieces;
      CHECK(waited[i] <= 3);
    }
  }
  CHECK(steps >= 300 / 16);
  CHECK(steps <= 300 / 16 + 3);
  s.run();
  for (const watched& w : writers) CHECK(w.found.why == finish_reason::max_tokens);
}

TEST_CASE("tasks of one length end together") {
  for (const std::int32_t limit : {0, 20}) {
    scheduler s(loaded(), {.prompt_tokens = limit});
    std::deque<watched> all(8);
    for (std::size_t i = 0; i < all.size(); ++i) {
      s.submit(all[i].task(session(loaded(), greedy()), some_tokens(20, i), {.max_tokens = 20}));
    }
    std::vector<int> ended;
    for (int step = 0; s.step(); ++step) {
      int now = 0;
      for (const watched& w : all) now += w.ends;
      while (static_cast<int>(ended.size()) < now) ended.push_back(step);
    }
    REQUIRE(ended.size() == all.size());
    CHECK(ended.back() - ended.front() <= (limit == 0 ? 0 : 8));
  }
}

TEST_CASE("tasks wait in a queue until there are pages for all that they may come to") {
  const nibble::model model = load_tales(2, 128);  // four pages
  scheduler s(model, {.max_running = 2});
  std::deque<watched> all(5);
  std::string order;
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].keep = false;
    auto task = all[i].task(session(model, greedy()), some_tokens(60, i), {.max_tokens = 20});
    task.on_text = [&order, i](std::string_view) {
      const char name = static_cast<char>('0' + i);
      if (order.find(name) == order.npos) order += name;
    };
    s.submit(std::move(task));
  }
  CHECK(s.running() == 2);
  CHECK(s.waiting() == 3);
  watched late;
  auto task = late.task(session(model, greedy()), some_tokens(3), {.max_tokens = 1});
  task.when_full = admission::fail;
  test::check_error(test::thrown([&] { s.submit(std::move(task)); }), errc::out_of_memory,
                    {"2 are running", "3 are waiting"});
  CHECK(late.ends == 0);
  int most = 0;
  while (s.step()) most = std::max(most, s.running());
  CHECK(most == 2);
  CHECK(order == "01234");
  for (const watched& w : all) CHECK(w.found.why == finish_reason::max_tokens);
  auto again = late.task(session(model, greedy()), some_tokens(3), {.max_tokens = 1});
  again.when_full = admission::fail;
  s.submit(std::move(again));
  s.run();
  CHECK(late.ends == 1);
}

TEST_CASE("no more pages are in use than may be promised") {
  const nibble::model model = load_tales(3, 128);  // six pages
  scheduler s(model, {.max_pages = 4});
  std::deque<watched> all(6);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].keep = false;
    all[i].then = [&, i] {
      if (all[i].pieces % 8 > 0) return;
      session other(model, greedy());  // fills all that is not promised
      other.append(some_tokens(127, 9));
    };
    s.submit(all[i].task(session(model, greedy()), some_tokens(10 * i + 1, i)));
  }
  CHECK(s.running() == 2);
  int most = 0;
  while (s.step()) {
    most = std::max(most, s.running());
  }
  CHECK(most == 2);
  for (const watched& w : all) {
    CHECK(w.failure == nullptr);
    CHECK(w.found.why == finish_reason::context_full);
  }
}

TEST_CASE("a task that could never be let in is refused at once") {
  const nibble::model model = load_tales(2, 128);
  scheduler s(model, {.max_pages = 1});
  const auto submit = [&](tokens prompt, generate_options options) {
    watched w;
    auto task = w.task(session(model, greedy()), std::move(prompt), std::move(options));
    return test::thrown([&] { s.submit(std::move(task)); });
  };
  test::check_error(submit(some_tokens(10), {.max_tokens = 100}), errc::out_of_memory,
                    {"2 pages", "may promise 1"});
  test::check_error(submit(some_tokens(129), {}), errc::invalid_argument, {"129 tokens", "128"});
  test::check_error(submit({}, {}), errc::invalid_argument, {"no prompt"});
  test::check_error(submit({1, 99999}, {}), errc::invalid_argument, {"99999"});
  test::check_error(submit({1}, {.max_tokens = -1}), errc::invalid_argument, {"max_tokens"});
  watched w;
  auto task = w.task(session(loaded(), greedy()), {1});
  test::check_error(test::thrown([&] { s.submit(std::move(task)); }), errc::invalid_argument,
                    {"another model"});
  session full(model, greedy());
  full.generate(some_tokens(120), {}).text();  // the next token is known and has no place
  auto more = w.task(std::move(full), {});
  CHECK(test::thrown([&] { s.submit(std::move(more)); }).code() == errc::invalid_argument);
  CHECK(s.running() + s.waiting() == 0);
  for (const nibble::scheduler_options& bad :
       {nibble::scheduler_options{.max_running = 3}, {.prompt_tokens = -1}, {.max_pages = -1}}) {
    CHECK(test::thrown([&] { scheduler(model, bad); }).code() == errc::invalid_argument);
  }
}

TEST_CASE("tasks whose prompts begin alike compute that once") {
  for (const bool at_once : {false, true}) {
    const nibble::model model = load_tales(4);
    std::vector<request> requests;
    for (std::size_t i = 0; i < 3; ++i) {
      tokens prompt = some_tokens(300, 1);
      prompt.resize(prompt.size() - i);
      const tokens own = some_tokens(5, i);
      prompt.insert(prompt.end(), own.begin(), own.end());
      requests.push_back({prompt, greedy(), {.max_tokens = 10}});
    }
    scheduler s(model, {.prompt_tokens = 100});
    std::deque<watched> all(3);
    for (std::size_t i = 0; i < 3; ++i) {
      s.submit(all[i].task(session(model, greedy()), requests[i].prompt, requests[i].options));
      if (!at_once) s.run();
    }
    s.run();
    for (std::size_t i = 0; i < 3; ++i) {
      INFO("task " << i << (at_once ? ", at once" : ", one after another"));
      const auto& t = all[i].after->timings();
      const auto length = static_cast<std::int64_t>(requests[i].prompt.size());
      CHECK(t.shared_tokens == (i == 0 ? 0 : 256));
      CHECK(t.prompt_tokens == length - t.shared_tokens);
      CHECK(t.generated_tokens == 9);
    }
    check_same({all[0].found, all[1].found, all[2].found}, one_by_one(load_tales(1), requests));
  }
}

TEST_CASE("callbacks that throw leave the scheduler usable") {
  const generate_options options{.max_tokens = 12};
  std::vector<request> requests;
  for (std::size_t i = 0; i < 4; ++i) requests.push_back({some_tokens(7, i), greedy(), options});
  scheduler s(loaded());
  std::deque<watched> all(4);
  for (std::size_t i = 0; i < 4; ++i) {
    auto task = all[i].task(session(loaded(), greedy()), requests[i].prompt, options);
    if (i == 1) {
      all[i].then = [&] {
        if (all[1].pieces % 3 == 0) throw std::runtime_error("text");
      };
    } else if (i == 2) {
      task.on_end = [end = task.on_end](session ended, finish_reason why, std::exception_ptr e) {
        end(std::move(ended), why, e);
        throw std::logic_error("end");
      };
    }
    s.submit(std::move(task));
  }
  int texts = 0, ends = 0;
  for (bool more = true; more;) {
    try {
      more = s.step();
    } catch (const std::runtime_error&) {
      ++texts;
    } catch (const std::logic_error&) {
      ++ends;
    }
  }
  CHECK(texts >= 3);
  CHECK(ends == 1);
  check_same({all[0].found, all[1].found, all[2].found, all[3].found},
             one_by_one(loaded(), requests));
}

TEST_CASE("a callback keeps its state, and may submit what follows") {
  scheduler s(loaded());
  std::vector<int> counts;
  watched next;
  s.submit({.session = session(loaded(), greedy()),
            .prompt = some_tokens(5),
            .options = {.max_tokens = 8},
            .on_text = [&counts, n = 0](std::string_view) mutable { counts.push_back(++n); },
            .on_end =
                [&](session ended, finish_reason, std::exception_ptr) {
                  s.submit(next.task(std::move(ended), {}, {.max_tokens = 8}));
                }});
  s.run();
  REQUIRE(counts.size() > 4);
  CHECK(counts.back() == static_cast<int>(counts.size()));
  const outcome whole = alone(loaded(), greedy(), some_tokens(5), {.max_tokens = 16});
  CHECK(next.found.held == whole.held);
  CHECK(whole.text.ends_with(next.found.text));
}

TEST_CASE("a task without a prompt goes on from what its session holds") {
  const outcome whole = alone(loaded(), greedy(), some_tokens(9), {.max_tokens = 10});
  for (const std::int32_t max_tokens : {1, 10}) {  // with 1 it ends before any batch
    session begun(loaded(), greedy());
    begun.append(some_tokens(9));
    scheduler s(loaded());
    watched w;
    s.submit(w.task(std::move(begun), {}, {.max_tokens = max_tokens}));
    s.run();
    CHECK(w.ends == 1);
    CHECK(whole.text.starts_with(w.found.text));
    CHECK((w.found == whole) == (max_tokens == 10));
  }
}

TEST_CASE("tasks may be submitted from several threads while another runs them") {
  const nibble::model model = load_tales(4);
  std::vector<request> requests;
  for (std::size_t i = 0; i < 12; ++i) {
    requests.push_back({some_tokens(1 + 7 * i, i), greedy(), {.max_tokens = 8}});
  }
  const auto wanted = one_by_one(load_tales(1), requests);
  scheduler s(model, {.max_running = 3, .prompt_tokens = 32});
  std::deque<watched> all(requests.size());
  std::atomic<int> submitted = 0;
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < all.size(); i += 3) {
        s.submit(all[i].task(session(model, greedy()), requests[i].prompt, requests[i].options));
        ++submitted;
        static_cast<void>(s.running() + s.waiting());
      }
    });
  }
  while (submitted < 12 || s.running() + s.waiting() > 0) {
    if (!s.step()) std::this_thread::yield();
  }
  threads.clear();
  std::vector<outcome> found;
  for (const watched& w : all) {
    CHECK(w.ends == 1);
    found.push_back(w.found);
  }
  check_same(found, wanted);
}
