#include "allocations.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace test {

std::atomic<std::size_t> greatest_allocation = 0, allocations = 0;
std::atomic<std::int64_t> live_allocations = 0;
thread_local std::size_t allocation_that_fails = 0;
std::atomic<std::size_t> failures_begin = 0, failures_end = 0, requests = 0;

bool request_fails() noexcept {
  if (failures_begin == 0) return false;
  const std::size_t n = ++requests;
  return n >= failures_begin && n < failures_end;
}

}  // namespace test

namespace {

bool fails(std::size_t bytes) noexcept {
  ++test::allocations;
  if (bytes > test::greatest_allocation) test::greatest_allocation = bytes;
  const bool own = test::allocation_that_fails != 0 && --test::allocation_that_fails == 0;
  return test::request_fails() || own;
}

void* counted(void* memory) noexcept {
  if (memory != nullptr) ++test::live_allocations;
  return memory;
}

}  // namespace

// Never inlined: g++ 12 takes malloc() in one and delete in another place for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return fails(bytes) ? nullptr : counted(std::malloc(std::max<std::size_t>(bytes, 1)));
}
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* const memory = operator new(bytes, std::nothrow)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment,
                                     const std::nothrow_t&) noexcept {
  if (fails(bytes)) return nullptr;
  const auto unit = std::max(static_cast<std::size_t>(alignment), sizeof(void*));
  const std::size_t whole = (std::max<std::size_t>(bytes, 1) + unit - 1) / unit * unit;
  return counted(std::aligned_alloc(unit, whole));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  if (void* const memory = operator new(bytes, alignment, std::nothrow)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory != nullptr) --test::live_allocations;
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  operator delete(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  operator delete(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  operator delete(memory);
}
