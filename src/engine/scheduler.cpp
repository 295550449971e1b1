#include <nibble/engine/scheduler.hpp>

#include <algorithm>
#include <chrono>
#include <list>
#include <mutex>
#include <nibble/base/concat.hpp>
#include <utility>

#include "base/memory_for.hpp"
#include "engine/generation_state.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// To those who gave a task: a piece of its text, or with a session its end.
struct call {
  std::shared_ptr<std::function<void(std::string_view)>> on_text = {};
  std::string piece = {};
  decltype(scheduler_task::on_end) on_end = {};
  std::optional<nibble::session> session = {};
  finish_reason why = finish_reason::none;
  std::exception_ptr failure = {};

  void make() {
    if (!session) return (*on_text)(piece);
    on_end(std::move(*session), why, failure);
  }
};

struct job {
  scheduler::task_id id = 0;
  scheduler_task task;
  nibble::generation generation;
  std::vector<std::int32_t> promised = {};  // pages, by group
  std::shared_ptr<std::function<void(std::string_view)>> on_text = {};
  std::list<call> end = {};  // one: that a task ends must not need memory
  // The session's tokens before those that queue() added, and what was pending then: what is not
  // computed in the end is taken back.
  std::optional<std::size_t> before = {};
  std::optional<token> had = {};
  bool in_batch = false, cancelled = false;
};

std::int64_t held_pages(const kv_table::group& group) {
  std::int64_t n = 0;
  for (const auto* pages : {&group.head, &group.tail}) {
    n += std::count_if(pages->begin(), pages->end(), [](page_id p) { return p != no_page; });
  }
  return n;
}

// Whole pages that both begin with, in tokens; the last token of `own` is to be computed.
std::size_t common_pages(std::span<const token> own, std::span<const token> other) {
  const std::size_t most = std::min(own.size() - 1, other.size());
  const auto differs =
      std::mismatch(own.begin(), own.begin() + static_cast<std::ptrdiff_t>(most), other.begin());
  const auto same = static_cast<std::size_t>(differs.first - own.begin());
  return same / kv_page_tokens * kv_page_tokens;
}

}  // namespace

struct scheduler::state {
  class caller;
  std::shared_ptr<model::state> loaded;
  scheduler_options options;

  mutable std::mutex mutex;  // guards what follows; a job in a batch is the stepping thread's
  std::list<job> waiting, running;
  // Calls to those who gave the tasks, made without the lock, in order, by one thread at a time.
  std::list<call> calls;
  bool calling = false;  // somebody makes them, or will at the end of a step
  task_id last_id = 0;

  // Of the stepping thread.
  struct part {
    job* of;
    std::size_t count;
    bool whole;  // all tokens that wait: its logits are wanted
  };
  std::vector<part> parts;
  std::vector<job*> prompts;  // that go on
  std::vector<token> tokens;
  std::vector<batch_chunk> chunks;
  std::vector<std::int32_t> outputs;
  std::exception_ptr no_pages;  // why the last part could not be had

  static session::state& of(job& j) { return *j.task.session.state_; }
  static generation::state& text_of(job& j) { return *j.generation.state_; }

  void check(const scheduler_task& task) const;
  task_id take_in(std::list<job>& one);
  std::vector<std::int32_t> pages_wanted(job& j) const;
  bool has_pages_for(job& j);
  void check_possible(job& j) const;
  void end_cancelled();
  void admit();
  bool start(job& j);
  static void queue(job& j, std::span<const token> more);
  void choose_parts();
  bool waits_for_other(job& j);
  bool add_part(job& j, std::size_t count);
  void compute();
  void take(const part& p, std::span<const float> logits, double seconds);
  // What follows a new token: text, and perhaps the end.
  bool take_token(job& j);
  void fail(job& j, std::exception_ptr failure) noexcept;
  void cancel(std::list<job>& from, job& j) noexcept;
  void give_out(job& j);
  void end(std::list<job>& from, job& j, finish_reason why, std::exception_ptr failure) noexcept;
  void make_calls(std::unique_lock<std::mutex>& lock);
};

// Whoever holds it makes the calls.
class scheduler::state::caller {
 public:
  caller(state& of, std::unique_lock<std::mutex>& lock)
      : of_(of), lock_(lock), chosen_(!std::exchange(of.calling, true)) {}
  caller(const caller&) = delete;
  caller& operator=(const caller&) = delete;
  ~caller() {
    if (!chosen_) return;
    if (!lock_.owns_lock()) lock_.lock();  // a call threw
    of_.calling = false;
  }
  void make_calls() {
    // another thread that makes calls now makes these too, or has ended by now
    if (!chosen_) chosen_ = !std::exchange(of_.calling, true);
    if (chosen_) of_.make_calls(lock_);
  }

 private:
  state& of_;
  std::unique_lock<std::mutex>& lock_;
  bool chosen_;
};

scheduler::scheduler(const model& of, const scheduler_options& wanted)
    : state_(std::make_unique<state>()) {
  state_->loaded = of.state_;
  const placement& plan = of.plan();
  scheduler_options& o = state_->options;
  o = wanted;
  const std::int32_t most = std::min(plan.limits.max_outputs, plan.limits.max_tokens);
  if (o.max_running < 0 || o.prompt_tokens < 0 || o.max_pages < 0 || o.max_running > most) {
    throw error(
        errc::invalid_argument,
        concat("a scheduler of ", o.max_running, " generations, ", o.prompt_tokens,
               " prompt tokens and ", o.max_pages,
               " pages cannot be made: none may be negative, and the model was planned for ", most,
               " generations at most (the plan option sessions)."));
  }
  if (o.max_running == 0) o.max_running = std::min(most, std::max(plan.sessions, 1));
  const std::int32_t room = plan.limits.max_tokens;
  o.prompt_tokens = o.prompt_tokens == 0 ? room : std::min(o.prompt_tokens, room);
}

scheduler::~scheduler() = default;

// For all that a task may come to.
std::vector<std::int32_t> scheduler::state::pages_wanted(job& j) const {
  const auto held = static_cast<std::int64_t>(of(j).tokens.size() + j.task.prompt.size()) + 1;
  const std::int32_t context = loaded->plan.context;
  const std::int64_t more = j.task.options.max_tokens > 0 ? j.task.options.max_tokens : context;
  const auto all = static_cast<std::int32_t>(std::min<std::int64_t>(context, held + more));
  const std::int32_t batch = loaded->plan.limits.max_tokens;
  const auto& groups = loaded->cache->groups();
  std::vector<std::int32_t> wanted = pages_of_sessions(groups, all, batch, 1);
  if (of(j).sequence.table.dropped == 0) return wanted;
  // ends of pages on both sides of the gap are unused
  const std::vector<std::int32_t> most = pages_of_sessions(groups, context, batch, 1);
  for (std::size_t g = 0; g < wanted.size(); ++g) wanted[g] = std::min(wanted[g] + 2, most[g]);
  return wanted;
}

void scheduler::state::check_possible(job& j) const {
  const std::vector<std::int32_t>& pages = loaded->plan.kv_pages;
  for (std::size_t g = 0; g < pages.size(); ++g) {
    const std::int32_t most =
        options.max_pages > 0 ? std::min(options.max_pages, pages[g]) : pages[g];
    if (j.promised[g] <= most) continue;
    throw error(errc::out_of_memory,
                concat("a task may come to ", j.promised[g], " pages of ", kv_page_tokens,
                       " tokens; the scheduler may promise ", most,
                       ". Give it fewer tokens to generate, or plan for more sessions."));
  }
}

bool scheduler::state::has_pages_for(job& j) {
  for (std::size_t g = 0; g < j.promised.size(); ++g) {
    const page_pool::usage use = loaded->pages->in_use(g);
    std::int64_t free = use.total - use.used, promised = j.promised[g];
    for (job& other : running) {
      const std::int64_t held = held_pages(of(other).sequence.table.groups[g]);
      free -= std::max<std::int64_t>(other.promised[g] - held, 0);
      promised += other.promised[g];
    }
    if (j.promised[g] - held_pages(of(j).sequence.table.groups[g]) > free) return false;
    if (options.max_pages > 0 && promised > options.max_pages) return false;
  }
  return true;
}

scheduler::task_id scheduler::submit(scheduler_task&& task) {
  return with_memory_for("a task of the scheduler", [&] {
    state_->check(task);
    auto made = task.session.make_generation(task.prompt, false, task.options);
    std::list<job> one;
    one.push_back({.task = {.session = session(std::unique_ptr<session::state>()), .prompt = {}},
                   .generation = std::move(made)});
    job& j = one.front();
    j.task = std::move(task);
    try {
      return state_->take_in(one);
    } catch (...) {  // the task stays the caller's
      if (j.on_text) j.task.on_text = std::move(*j.on_text);
      task = std::move(j.task);
      throw;
    }
  });
}

void scheduler::state::check(const scheduler_task& task) const {
  session::state* const s = task.session.state_.get();
  if (s == nullptr || s->loaded != loaded) {
    throw error(errc::invalid_argument,
                "the session of a task belongs to another model than the scheduler.");
  }
  std::vector<token> first = task.prompt;  // what will be queued
  if (s->pending) first.insert(first.begin(), *s->pending);
  if (!first.empty()) {
    s->check(first, false);
  } else if (s->logits.empty()) {
    throw error(errc::invalid_argument,
                "a task has no prompt, and its session holds nothing to go on from.");
  }
}

scheduler::task_id scheduler::state::take_in(std::list<job>& one) {
  job& j = one.front();
  j.end.emplace_back();
  if (j.task.on_text) {
    j.on_text = std::make_shared<decltype(j.task.on_text)>(std::move(j.task.on_text));
  }
  j.promised = pages_wanted(j);
  check_possible(j);
  const session::state& s = of(j);
  for (std::size_t g = 0; g < j.promised.size(); ++g) {
    const auto held = static_cast<std::int64_t>(s.cached);
    j.promised[g] += loaded->pages->copies_before(s.sequence, held, g) ? 1 : 0;
  }
  const std::lock_guard lock(mutex);
  const bool now = waiting.empty() &&
                   static_cast<std::int32_t>(running.size()) < options.max_running &&
                   has_pages_for(j);
  if (!now && j.task.when_full == admission::fail) {
    throw error(errc::out_of_memory,
                concat("the scheduler has no place for another task: ", running.size(),
                       " are running and ", waiting.size(), " are waiting."));
  }
  j.id = ++last_id;
  // tasks that are let in begin with the next step
  std::list<job>& to = now ? running : waiting;
  to.splice(to.end(), one);
  return last_id;
}

bool scheduler::cancel(task_id id) {
  std::unique_lock lock(state_->mutex);
  for (std::list<job>* jobs : {&state_->waiting, &state_->running}) {
    for (job& j : *jobs) {
      if (j.id != id) continue;
      if (j.in_batch) {
        j.cancelled = true;
      } else {
        state_->cancel(*jobs, j);
        state::caller(*state_, lock).make_calls();
      }
      return true;
    }
  }
  return false;
}

// Those whose options say so.
void scheduler::state::end_cancelled() {
  for (std::list<job>* jobs : {&waiting, &running}) {
    for (auto next = jobs->begin(); next != jobs->end();) {
      job& j = *next++;  // it may be gone after this
      j.in_batch = false;
      if (text_of(j).options.cancel.stop_requested()) cancel(*jobs, j);
    }
  }
}

void scheduler::state::admit() {
  while (!waiting.empty() && static_cast<std::int32_t>(running.size()) < options.max_running &&
         has_pages_for(waiting.front())) {
    running.splice(running.end(), waiting, waiting.begin());
  }
}

void scheduler::state::queue(job& j, std::span<const token> more) {
  session::state& s = of(j);
  const std::optional<token> had = s.pending;
  const std::size_t count = more.size() + (had ? 1 : 0);
  s.queue(more);
  j.before = s.tokens.size() - count;
  j.had = had;
}

// False if the task has ended with that.
bool scheduler::state::start(job& j) {
  try {
    const std::span<const token> rest = text_of(j).start();
    if (rest.empty() && !of(j).pending) return take_token(j);
    queue(j, rest);
    return true;
  } catch (...) {
    fail(j, std::current_exception());
    return false;
  }
}

// Looks again for pages that hold what waits. True if another task is just computing some.
bool scheduler::state::waits_for_other(job& j) {
  session::state& s = of(j);
  if (s.sequence.table.dropped > 0) return false;
  for (job& other : running) {
    if (&other == &j) break;
    const session::state& o = of(other);
    if (o.sequence.table.dropped > 0) continue;
    const std::size_t common = common_pages(s.tokens, o.tokens);
    if (common <= s.cached) continue;
    const std::int64_t found =
        loaded->pages->adopt(s.sequence, s.tokens, static_cast<std::int64_t>(s.cached),
                             static_cast<std::int64_t>(common));
    if (found > 0) {
      s.timings.shared_tokens += found - static_cast<std::int64_t>(s.cached);
      s.cached = static_cast<std::size_t>(found);
    }
    if (common > s.cached && common > o.cached) return true;
  }
  return false;
}

bool scheduler::state::add_part(job& j, std::size_t count) {
  if (count == 0) return false;
  batch_chunk chunk;
  try {
    chunk = of(j).prepare(count);
  } catch (const error&) {
    // others than the scheduler's tasks have taken pages; some may be free again next time
    no_pages = std::current_exception();
    return false;
  }
  const auto waiting_tokens = std::span(of(j).tokens).subspan(of(j).cached, count);
  chunk.first = static_cast<std::int32_t>(tokens.size());
  tokens.insert(tokens.end(), waiting_tokens.begin(), waiting_tokens.end());
  chunks.push_back(chunk);
  parts.push_back({&j, count, count == of(j).waiting()});
  if (parts.back().whole) outputs.push_back(static_cast<std::int32_t>(tokens.size()) - 1);
  j.in_batch = true;
  return true;
}

// Those that generate get their token; the prompts of the others share the rest alike. A prompt
// that begins like one before it waits for that one's pages.
void scheduler::state::choose_parts() {
  no_pages = nullptr;
  parts.clear();
  prompts.clear();
  tokens.clear();
  chunks.clear();
  outputs.clear();
  for (auto next = running.begin(); next != running.end();) {
    job& j = *next++;  // it may be gone after this
    if (!text_of(j).begun) start(j);
  }
  for (job& j : running) {
    if (of(j).waiting() > 1 && waits_for_other(j)) continue;
    if (of(j).waiting() > 1) {
      prompts.push_back(&j);
    } else {
      add_part(j, 1);
    }
  }
  const auto room = static_cast<std::size_t>(loaded->plan.limits.max_tokens) - tokens.size();
  std::size_t left = std::min(static_cast<std::size_t>(options.prompt_tokens), room);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::size_t rest = prompts.size() - i;
    const std::size_t count = std::min(of(*prompts[i]).waiting(), (left + rest - 1) / rest);
    if (add_part(*prompts[i], count)) left -= count;
  }
  // nobody can go on: the last one gives up its pages
  if (parts.empty() && no_pages && !running.empty()) fail(running.back(), no_pages);
}

void scheduler::state::compute() {
  const auto begin = std::chrono::steady_clock::now();
  std::exception_ptr failure;
  std::vector<float> logits;
  const auto n_vocab = static_cast<std::size_t>(loaded->hp.n_vocab);
  try {
    const std::lock_guard lock(loaded->running);
    const auto found = loaded->steps->run({.tokens = tokens, .chunks = chunks, .outputs = outputs});
    logits.assign(found.begin(),
                  found.begin() + static_cast<std::ptrdiff_t>(outputs.size() * n_vocab));
  } catch (...) {
    failure = std::current_exception();
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const std::lock_guard lock(mutex);
  std::size_t output = 0;
  for (const part& p : parts) {
    p.of->in_batch = false;
    if (failure) {
      fail(*p.of, failure);
      continue;
    }
    const auto own = std::span<const float>(logits).subspan(
        std::min(output * n_vocab, logits.size()), p.whole ? n_vocab : 0);
    output += p.whole ? 1 : 0;
    try {
      take(p, own, seconds.count());
    } catch (...) {
      fail(*p.of, std::current_exception());
    }
  }
}

void scheduler::state::take(const part& p, std::span<const float> logits, double seconds) {
  job& j = *p.of;
  session::state& s = of(j);
  const bool one = text_of(j).generated > 0;
  s.complete(p.count);
  (one ? s.timings.generated_seconds : s.timings.prompt_seconds) += seconds;
  (one ? s.timings.generated_tokens : s.timings.prompt_tokens) +=
      static_cast<std::int64_t>(p.count);
  if (p.whole) s.logits.assign(logits.begin(), logits.end());
  if (j.cancelled || text_of(j).options.cancel.stop_requested()) {
    return cancel(running, j);
  }
  if (p.whole) take_token(j);
}

// False if the task has ended with that.
bool scheduler::state::take_token(job& j) {
  generation::state& text = text_of(j);
  text.piece.clear();
  text.take_next();
  if (text.reason == finish_reason::none) text.look_for_end();
  give_out(j);
  if (text.reason != finish_reason::none) {
    end(running, j, text.reason, nullptr);
    return false;
  }
  queue(j, {});
  return true;
}

void scheduler::state::give_out(job& j) {
  if (text_of(j).piece.empty() || !j.on_text) return;
  calls.push_back({.on_text = j.on_text, .piece = text_of(j).piece});
}

void scheduler::state::fail(job& j, std::exception_ptr failure) noexcept {
  end(running, j, finish_reason::none, std::move(failure));
}

void scheduler::state::cancel(std::list<job>& from, job& j) noexcept {
  try {
    text_of(j).piece.clear();
    text_of(j).finish(finish_reason::cancelled);  // gives out what was held back
    give_out(j);
  } catch (...) {  // no memory for its text
    return end(from, j, finish_reason::none, std::current_exception());
  }
  end(from, j, finish_reason::cancelled, nullptr);
}

void scheduler::state::end(std::list<job>& from, job& j, finish_reason why,
                           std::exception_ptr failure) noexcept {
  session::state& s = of(j);
  if (j.before && s.waiting() > 0) {
    if (s.cached > *j.before) s.logits.clear();  // those of a token before
    s.take_back(*j.before, j.had);
  }
  if (j.task.on_end) {
    call& last = j.end.front();
    last.on_end = std::move(j.task.on_end);
    last.session.emplace(std::move(j.task.session));
    last.why = why;
    last.failure = std::move(failure);
    calls.splice(calls.end(), j.end);
  }
  from.remove_if([&](const job& other) { return &other == &j; });
}

void scheduler::state::make_calls(std::unique_lock<std::mutex>& lock) {
  while (!calls.empty()) {
    std::list<call> one;
    one.splice(one.end(), calls, calls.begin());
    lock.unlock();
    one.front().make();
    lock.lock();
  }
}

bool scheduler::step() {
  return with_memory_for("a batch of the scheduler", [&] {
    std::unique_lock lock(state_->mutex);
    state_->end_cancelled();
    state_->admit();
    if (state_->running.empty() && state_->calls.empty()) return false;
    state::caller caller(*state_, lock);
    state_->choose_parts();
    if (!state_->parts.empty()) {
      lock.unlock();
      state_->compute();
      lock.lock();
    }
    caller.make_calls();
    return true;
  });
}

void scheduler::run(std::stop_token stop) {
  while (!stop.stop_requested() && step()) {
  }
}

std::int32_t scheduler::running() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<std::int32_t>(state_->running.size());
}

std::int32_t scheduler::waiting() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<std::int32_t>(state_->waiting.size());
}

}  // namespace nibble::inline NIBBLE_ABI
