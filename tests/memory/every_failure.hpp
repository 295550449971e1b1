// Every request for memory, for a mapping or for a thread is refused in turn: what then comes is an
// error or a success, everything is given back, and what is left still works.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <nibble/base/error.hpp>
#include <string_view>
#include <utility>

#include "allocations.hpp"

namespace test {

extern std::atomic<std::int64_t> live_mapped_bytes;

// How a request fails: alone, as when another program gives memory back right after; or with all
// that follow it, so that handling the failure gets no memory either.
enum class refusal { one, all_from };

// Requests are tried one by one up to here; from there on steps grow where sanitizers make each
// run long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::size_t dense_requests = 40, step_share = 12;
#else
inline constexpr std::size_t dense_requests = std::numeric_limits<std::size_t>::max(),
                             step_share = 1;
#endif

// One turn of a scenario.
class turn {
 public:
  turn(refusal kind, std::size_t n) : kind_(kind), n_(n) {}

  // Runs work() with this turn's request refused. False if it failed, with an error that says so.
  template <typename Work>
  bool in(const Work& work) {
    requests = 0;
    failures_end = kind_ == refusal::one ? n_ + 1 : std::numeric_limits<std::size_t>::max();
    failures_begin = n_;
    bool done = false;
    std::string_view other;
    try {
      work();
      done = true;
      failures_begin = 0;
    } catch (const nibble::error& e) {
      failures_begin = 0;
      INFO(e.what());
      CHECK(tells_shortage(e));
    } catch (const std::bad_alloc&) {
      failures_begin = 0;  // there was not even memory for a sentence
    } catch (...) {
      failures_begin = 0;
      other = "something else than an error of the library";
    }
    CHECK(other == "");
    reached_ = requests >= n_;
    return done;
  }
  bool reached() const { return reached_; }

 private:
  // A thread that cannot be had is the device's failure, and so is an emulated one's host.
  static bool tells_shortage(const nibble::error& e) {
    if (e.code() == nibble::errc::out_of_memory) return true;
    const std::string_view text = e.what();
    return e.code() == nibble::errc::device &&
           (text.find("threads could be started") != text.npos ||
            text.find("the host has no memory left") != text.npos);
  }

  refusal kind_;
  std::size_t n_;
  bool reached_ = false;
};

// One turn; whether all that it took was given back.
template <typename Scenario>
bool gives_back(const Scenario& scenario, turn& now) {
  const std::int64_t allocated = live_allocations, mapped = live_mapped_bytes;
  scenario(now);
  return live_allocations == allocated && live_mapped_bytes == mapped;
}

// Runs scenario(turn) for the first request, the second, ... until turn.in() needs no more. All
// that the scenario makes must be gone when it returns. Returns how many requests there are.
template <typename Scenario>
std::size_t every_failure(const Scenario& scenario) {
  std::size_t most = 0;
  for (const refusal kind : {refusal::one, refusal::all_from}) {
    for (std::size_t n = 1;; n += n < dense_requests ? 1 : n / step_share) {
      INFO("request " << n << (kind == refusal::one ? "" : " and all from there on"));
      turn now(kind, n);
      // again: there are things that a program makes once and keeps
      const bool clean = gives_back(scenario, now) || gives_back(scenario, now);
      REQUIRE(clean);
      if (!now.reached()) break;
      most = std::max(most, n);
    }
  }
  return most;
}

}  // namespace test
