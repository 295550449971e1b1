// A stack of its own to run on, and switching between such stacks on one OS thread.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(NIBBLE_FIBER_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define NIBBLE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBBLE_ASAN 1
#endif
#endif
#if defined(NIBBLE_ASAN)
#define NIBBLE_NO_ASAN __attribute__((no_sanitize_address))
#else
#define NIBBLE_NO_ASAN
#endif

namespace nibble::inline v0::simt {

// A place in code and the stack under it. One that was never prepared stands for the OS thread
// itself once it has been switched away from. Fibers stay on their OS thread.
class fiber {
 public:
  // The next switch to this one calls `entry`, which must not return, and calls entered() first.
  void prepare(std::byte* stack, std::size_t bytes, void (*entry)());

  // Goes on with `to`. `from` goes on when it is switched to; with `for_good`, never.
  static void switch_to(fiber& from, fiber& to, bool for_good = false);
  static void entered();

  // Whether nothing was written below the stack's end since prepare().
  bool intact() const;

 private:
#if defined(__x86_64__) && !defined(NIBBLE_FIBER_UCONTEXT)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  const std::byte* stack_ = nullptr;
  std::size_t bytes_ = 0;
  void* sanitizer_state_ = nullptr;
};

}  // namespace nibble::inline v0::simt
