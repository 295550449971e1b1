// Allocations of the program that this file's .cpp is linked into (a test folder asks for it in its
// extra.cmake): counted, and made to fail.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <nibble/base/error.hpp>
#include <utility>

#include "catch.hpp"

namespace test {

// Of all threads, since they were last set.
extern std::atomic<std::size_t> greatest_allocation;  // bytes
extern std::atomic<std::size_t> allocations;          // how many
extern std::atomic<std::int64_t> live_allocations;    // that were not given back

// Requests of all threads are counted from `requests` = 0 on if failures_begin is not 0: those from
// the how manieth on, up to but without the other, fail.
extern std::atomic<std::size_t> failures_begin, failures_end, requests;
// Counts one, and whether it is to fail. Allocations ask this, and whatever else a test makes fail.
bool request_fails() noexcept;

// The allocation of this thread that fails, counted from now; none at 0.
extern thread_local std::size_t allocation_that_fails;

// Runs work() with its first allocation failing, then its second, ... until it needs no more.
// Each failure must leave as nibble::error.
template <typename Work>
std::size_t failures_of(const Work& work) {
  for (std::size_t failures = 0;; ++failures) {
    allocation_that_fails = failures + 1;
    try {
      work();
      // what has not failed by now is not reached
      if (std::exchange(allocation_that_fails, 0) != 0) return failures;
    } catch (const nibble::error& e) {
      allocation_that_fails = 0;
      CHECK(e.code() == nibble::errc::out_of_memory);
    } catch (...) {
      allocation_that_fails = 0;
      FAIL("allocation " << failures << ": something else than an error");
    }
  }
}

}  // namespace test
