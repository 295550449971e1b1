#include <atomic>
#include <stdexcept>
#include <vector>

#include "catch.hpp"
#include "device/thread_team.hpp"

TEST_CASE("every thread runs once, and runs follow each other") {
  for (int size = 1; size <= 8; ++size) {
    nibble::thread_team team(size);
    std::vector<int> counts(static_cast<std::size_t>(size), 0);
    for (int round = 0; round < 300; ++round) {
      team.run([&](int thread) { ++counts[static_cast<std::size_t>(thread)]; });
    }
    for (const int c : counts) REQUIRE(c == 300);
  }
}

TEST_CASE("what was written before a barrier is seen after it") {
  constexpr int phases = 200;
  for (int size = 1; size <= 8; ++size) {
    nibble::thread_team team(size);
    std::vector<int> cells(static_cast<std::size_t>(size), 0);
    std::atomic<int> wrong{0};
    team.run([&](int thread) {
      for (int phase = 1; phase <= phases; ++phase) {
        cells[static_cast<std::size_t>(thread)] = phase;
        team.barrier();
        for (const int c : cells) wrong += c != phase;
        team.barrier();
      }
    });
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("an exception reaches the caller and the team works on") {
  for (int size = 1; size <= 6; ++size) {
    nibble::thread_team team(size);
    for (int thrower = 0; thrower < size; ++thrower) {
      for (int rounds = 0; rounds < 20; ++rounds) {
        REQUIRE_THROWS_AS(team.run([&](int thread) {
          team.barrier();
          if (thread == thrower) throw std::runtime_error("on purpose");
          team.barrier();  // the others are let through
          team.barrier();
        }),
                          std::runtime_error);
      }
      std::atomic<int> ran{0};
      team.run([&](int) { ++ran; });
      REQUIRE(ran == size);
    }
  }
}

TEST_CASE("a team of which every thread throws") {
  nibble::thread_team team(4);
  REQUIRE_THROWS_AS(team.run([](int) { throw std::logic_error("all"); }), std::logic_error);
}

TEST_CASE("a team that is never used can be destroyed, and pinned workers run") {
  { nibble::thread_team team(5); }
  nibble::thread_team pinned(3, {0});
  std::atomic<int> ran{0};
  pinned.run([&](int) { ++ran; });
  REQUIRE(ran == 3);
}
