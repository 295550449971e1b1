#include "device/thread_team.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <system_error>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace nibble::inline NIBBLE_ABI {
namespace {

// Some tens of microseconds of spinning on x86: longer than threads that share work out are apart
// on a quiet machine, shorter than what a scheduler gives a neighbour. Who yields instead of
// sleeping is not woken: it waits until its neighbour's time is up, though its partner came long
// ago.
constexpr int spin_limit = 1000;

constexpr std::uint32_t one_arrived = 1, one_member = 1u << 16;
constexpr std::uint32_t arrived_mask = one_member - 1;

constexpr std::uint32_t arrived(std::uint32_t present) {
  return present & arrived_mask;
}
constexpr std::uint32_t members(std::uint32_t present) {
  return present >> 16;
}

void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

void wait_while(const std::atomic<std::uint32_t>& counter, std::uint32_t old) noexcept {
  for (int i = 0; i < spin_limit; ++i) {
    if (counter.load(std::memory_order_acquire) != old) return;
    pause();
  }
  counter.wait(old, std::memory_order_acquire);
}

void bind_this_thread(int cpu) noexcept {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  // a refusal costs speed at most
  (void)::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
#else
  (void)cpu;
#endif
}

}  // namespace

thread_team::thread_team(int size, const std::vector<int>& pin_to) : size_(size) {
  workers_.reserve(static_cast<std::size_t>(size - 1));
  try {
    for (int i = 1; i < size; ++i) {
      const std::size_t place = static_cast<std::size_t>(i);
      const int cpu = pin_to.empty() ? -1 : pin_to[place % pin_to.size()];
      workers_.emplace_back([this, i, cpu] {
        if (cpu >= 0) bind_this_thread(cpu);
        work(i);
      });
    }
  } catch (const std::system_error& e) {
    const std::size_t made = workers_.size() + 1;
    stop();
    throw error(errc::device, concat("only ", made, " of ", size, " threads could be started: ",
                                     e.code().message(), ". Ask for fewer threads."));
  } catch (...) {
    stop();
    throw;
  }
}

thread_team::~thread_team() {
  stop();
}

void thread_team::stop() noexcept {
  stopping_ = true;
  job_count_.fetch_add(1);
  job_count_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void thread_team::work(int thread) {
  std::uint32_t seen = 0;
  for (;;) {
    wait_while(job_count_, seen);
    ++seen;
    if (stopping_) return;
    call_job(thread);
    leave();
  }
}

void thread_team::call_job(int thread) noexcept {
  try {
    job_(context_, thread);
  } catch (...) {
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void thread_team::run_job(job what, void* context) {
  job_ = what;
  context_ = context;
  failure_ = nullptr;
  present_.store(static_cast<std::uint32_t>(size_) * one_member, std::memory_order_relaxed);
  const std::uint32_t done = done_count_.load(std::memory_order_relaxed);
  job_count_.fetch_add(1);
  if (size_ > 1) job_count_.notify_all();
  call_job(0);
  leave();
  wait_while(done_count_, done);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void thread_team::next_phase() noexcept {
  phase_.fetch_add(1);
  phase_.notify_all();
}

void thread_team::barrier() noexcept {
  const std::uint32_t phase = phase_.load(std::memory_order_relaxed);
  std::uint32_t old = present_.load(std::memory_order_relaxed);
  for (;;) {
    const bool last = arrived(old) + 1 == members(old);
    const std::uint32_t now = last ? members(old) * one_member : old + one_arrived;
    if (!present_.compare_exchange_weak(old, now, std::memory_order_acq_rel,
                                        std::memory_order_relaxed)) {
      continue;
    }
    if (last) return next_phase();
    return wait_while(phase_, phase);
  }
}

// The thread is done with the job. Those that wait at a barrier do not wait for it any more.
void thread_team::leave() noexcept {
  std::uint32_t old = present_.load(std::memory_order_relaxed);
  for (;;) {
    const std::uint32_t left = old - one_member;
    const bool frees_others = members(left) > 0 && arrived(left) == members(left);
    const std::uint32_t now = frees_others ? members(left) * one_member : left;
    if (!present_.compare_exchange_weak(old, now, std::memory_order_acq_rel,
                                        std::memory_order_relaxed)) {
      continue;
    }
    if (frees_others) next_phase();
    if (members(left) == 0) {
      done_count_.fetch_add(1);
      done_count_.notify_all();
    }
    return;
  }
}

}  // namespace nibble::inline NIBBLE_ABI
