#include "allocations.hpp"

#include <cstdlib>
#include <new>

namespace test {

std::atomic<std::size_t> greatest_allocation = 0, allocations = 0;
thread_local std::size_t allocation_that_fails = 0;

}  // namespace test

// Never inlined: g++ 12 takes malloc() in one and delete in another place for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++test::allocations;
  if (bytes > test::greatest_allocation) test::greatest_allocation = bytes;
  const bool fails = test::allocation_that_fails != 0 && --test::allocation_that_fails == 0;
  return fails ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* const memory = operator new(bytes, std::nothrow)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
