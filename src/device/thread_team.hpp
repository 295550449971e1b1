// Threads that run one function together (single program, multiple data).
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <nibble/base/config.hpp>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// The calling thread and size() - 1 workers. One run at a time; run() from one thread at a time.
//
// Who waits spins for some microseconds, then sleeps. On a quiet machine nobody sleeps inside a
// run; beside a busy neighbour a waiting thread soon leaves the core to whomever it waits for.
class thread_team {
 public:
  // `pin_to`: CPUs that the workers are bound to, one each; empty: not bound. The calling thread is
  // the application's, and never bound. Throws error (device) when there cannot be so many threads.
  explicit thread_team(int size, const std::vector<int>& pin_to = {});
  ~thread_team();
  thread_team(const thread_team&) = delete;
  thread_team& operator=(const thread_team&) = delete;

  int size() const noexcept { return size_; }

  // Calls f(thread) on every thread, thread in [0, size()), and returns when all are done. The
  // first exception is thrown again here. A thread that throws leaves the run: threads that wait
  // for it at a barrier are let through, and must expect that its part was not done.
  template <typename F>
  void run(F&& f) {
    using function = std::remove_reference_t<F>;
    run_job([](void* context, int thread) { (*static_cast<function*>(context))(thread); },
            const_cast<void*>(static_cast<const void*>(&f)));
  }

  // Within run(): returns when every thread has called it. What they wrote before is visible after.
  void barrier() noexcept;

 private:
  using job = void (*)(void* context, int thread);

  void run_job(job what, void* context);
  void work(int thread);
  void call_job(int thread) noexcept;
  void leave() noexcept;
  void next_phase() noexcept;
  void stop() noexcept;

  const int size_;
  // written before job_count_ changes, read after
  job job_ = nullptr;
  void* context_ = nullptr;
  bool stopping_ = false;

  std::mutex failure_mutex_;
  std::exception_ptr failure_;

  // Waiting threads read one of these while others count, so each has a cache line of its own.
  alignas(64) std::atomic<std::uint32_t> job_count_{0};   // jobs begun
  alignas(64) std::atomic<std::uint32_t> done_count_{0};  // jobs ended
  alignas(64) std::atomic<std::uint32_t> phase_{0};       // barriers passed
  // low half: threads at the barrier; high half: threads in the run
  alignas(64) std::atomic<std::uint32_t> present_{0};
  std::vector<std::thread> workers_;
};

}  // namespace nibble::inline NIBBLE_ABI
