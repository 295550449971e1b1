// Many generations at once, in common batches: weights are read once for all of them.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/engine/session.hpp>
#include <stop_token>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct scheduler_options {
  // Generations in a batch at most; 0: as many as sessions the model was planned for. It cannot be
  // more.
  std::int32_t max_running = 0;
  // Prompt tokens in a batch at most; 0: as many as the model's batches take. Fewer let those that
  // generate wait less for those that begin.
  std::int32_t prompt_tokens = 0;
  // Pages of the KV cache, of each group of layers, that may be promised; 0: all there are.
  std::int32_t max_pages = 0;
};

// What becomes of a task for which there is no place at once.
enum class admission {
  wait,  // its turn comes, first come, first served
  fail   // submit() throws error (out_of_memory)
};

struct scheduler_task {
  nibble::session session;
  std::vector<token> prompt;  // after what the session holds
  generate_options options = {};
  admission when_full = admission::wait;
  // Both are called by whoever runs the scheduler, between batches, or cancels the task; they may
  // submit and cancel. What they throw leaves step(), run() or cancel(), which may be called again.
  // `text` is whole UTF-8.
  std::function<void(std::string_view text)> on_text = {};
  // Once for each task, but for those that are left when the scheduler ends. `failure`: null, or
  // what went wrong, and then `why` is none. The session holds what was computed.
  std::function<void(nibble::session session, finish_reason why, std::exception_ptr failure)>
      on_end = {};
};

// Continuous batching (Yu et al. 2022, Orca): each step computes one token of every generation that
// goes on, beside parts of the prompts of those that begin. A task is let in when there are enough
// pages for all that it may come to, so that none has to be thrown out again, as long as sessions
// outside the scheduler leave it the pages that the model was planned with. Tasks share what
// their prompts have in common, like all sessions.
//
// submit(), cancel() and the counts may be called from any thread at any time; step() and run()
// from one at a time.
class NIBBLE_API scheduler {
 public:
  using task_id = std::uint64_t;

  // Throws error (invalid_argument) for options that the model was not planned for.
  explicit scheduler(const model& of, const scheduler_options& options = {});
  ~scheduler();
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  // Takes the task, unless this throws. Throws error: invalid_argument (tokens that do not fit, a
  // session of another model), out_of_memory (more pages than there can be, or admission::fail and
  // no place).
  task_id submit(scheduler_task&& task);
  // The task ends with finish_reason::cancelled. Its session goes to on_end, or with it, its pages
  // are free: at once, or right after the batch that is computed just now, or the callback that is
  // running. False if there is no such task any more.
  bool cancel(task_id id);

  // Computes one batch; false if nothing can be done: there are no tasks, or those that wait need
  // pages that sessions outside the scheduler hold.
  bool step();
  // Until a step returns false, or a stop is asked for.
  void run(std::stop_token stop = {});

  std::int32_t running() const;
  std::int32_t waiting() const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI
