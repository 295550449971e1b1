#include "emulated/fiber.hpp"

#include <cstring>

#if defined(NIBBLE_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace nibble::inline v0::simt {

namespace {

// At the far end of a stack; gone if the stack was too small.
constexpr std::uint64_t mark = 0x6e69'6262'6c65'2121;

#if defined(NIBBLE_ASAN)
thread_local fiber* came_from = nullptr;
#endif

#if defined(__x86_64__) && !defined(NIBBLE_FIBER_UCONTEXT)
// What a function must keep stands on the old stack while another one is in use.
[[gnu::naked, gnu::noinline]] NIBBLE_NO_ASAN void switch_stacks(void** /*rdi: save*/,
                                                                void* /*rsi: load*/) {
  asm(R"(
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
  )");
}
#endif

}  // namespace

void fiber::prepare(std::byte* stack, std::size_t bytes, void (*entry)()) {
  stack_ = stack;
  bytes_ = bytes;
  sanitizer_state_ = nullptr;
  std::memcpy(stack, &mark, sizeof mark);
#if defined(__x86_64__) && !defined(NIBBLE_FIBER_UCONTEXT)
  // as if `entry` had just been called from nowhere: six registers, where to go, where to return
  void* frame[8] = {
      nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, reinterpret_cast<void*>(entry),
      nullptr};
  std::byte* const start = stack + bytes - sizeof frame;
  std::memcpy(start, frame, sizeof frame);
  stack_pointer_ = start;
#else
  ::getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  ::makecontext(&context_, entry, 0);
#endif
}

bool fiber::intact() const {
  return std::memcmp(stack_, &mark, sizeof mark) == 0;
}

void fiber::switch_to(fiber& from, fiber& to, [[maybe_unused]] bool for_good) {
#if defined(NIBBLE_ASAN)
  came_from = &from;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.sanitizer_state_, to.stack_, to.bytes_);
#endif
#if defined(__x86_64__) && !defined(NIBBLE_FIBER_UCONTEXT)
  switch_stacks(&from.stack_pointer_, to.stack_pointer_);
#else
  ::swapcontext(&from.context_, &to.context_);
#endif
#if defined(NIBBLE_ASAN)
  __sanitizer_finish_switch_fiber(from.sanitizer_state_, nullptr, nullptr);
#endif
}

void fiber::entered() {
#if defined(NIBBLE_ASAN)
  // the one moment at which the sanitizer tells where an OS thread's own stack is
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (came_from->stack_ == nullptr) {
    came_from->stack_ = static_cast<const std::byte*>(stack);
    came_from->bytes_ = bytes;
  }
#endif
}

}  // namespace nibble::inline v0::simt
