// Replaces the allocator of a test program, to see what is asked for and to refuse it. For one unit
// of a program: what replaces operator new cannot be inline.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <nibble/base/error.hpp>
#include <utility>

#include "catch.hpp"

namespace test {

// The greatest allocation of this program, since it was set to zero.
inline std::atomic<std::size_t> greatest_allocation = 0;
// The allocation of this thread that fails, counted from now; none at 0.
inline thread_local std::size_t fails_in = 0;

// Runs work() with its first allocation failing, then its second, ... until it needs no more.
// Each failure must leave as nibble::error.
template <typename Work>
std::size_t failures_of(const Work& work) {
  for (std::size_t failures = 0;; ++failures) {
    fails_in = failures + 1;
    try {
      work();
      // what has not failed by now is not reached
      if (std::exchange(fails_in, 0) != 0) return failures;
    } catch (const nibble::error& e) {
      fails_in = 0;
      CHECK(e.code() == nibble::errc::out_of_memory);
    } catch (...) {
      fails_in = 0;
      FAIL("allocation " << failures << ": something else than an error");
    }
  }
}

}  // namespace test

// Never inlined: g++ 12 takes malloc() in one and delete in another place for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  if (bytes > test::greatest_allocation) test::greatest_allocation = bytes;
  const bool fails = test::fails_in != 0 && --test::fails_in == 0;
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
