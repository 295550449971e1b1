// Blocks that take turns in a ring of buffers, filled ahead by threads.
#include <atomic>
#include <chrono>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "device/stream_ring.hpp"
#include "errors.hpp"

namespace {

using nibble::stream_ring;

// Buffers in which each piece of a block writes the block's number; plain memory, so that a thread
// sanitizer sees who is not told about whom.
class buffers {
 public:
  buffers(std::vector<std::size_t> pieces, std::size_t slots, std::size_t readers)
      : pieces_(std::move(pieces)), held_(slots, std::vector<std::size_t>(16, ~std::size_t{0})) {
    ring_.emplace(stream_ring::sizes{pieces_, slots, readers},
                  [this](std::size_t b, std::size_t piece, std::size_t) { fill(b, piece); });
  }

  // Whether the block is in its slot, whole, for as long as it is used.
  bool use(std::size_t block) {
    const auto there = ring_->acquire(block);
    bool right = true;
    for (int look = 0; look < 2; ++look) {
      const auto& slot = held_[block % held_.size()];
      for (std::size_t i = 0; i < pieces_[block]; ++i) right = right && slot[i] == block;
      if (look == 0) std::this_thread::yield();
    }
    return right;
  }

  std::atomic<std::size_t> failing{~std::size_t{0}};  // a block that cannot be read
  std::atomic<int> filled{0};
  std::atomic<int> delay{0};  // microseconds

 private:
  void fill(std::size_t block, std::size_t piece) {
    ++filled;
    if (delay > 0) std::this_thread::sleep_for(std::chrono::microseconds(delay));
    if (block == failing && piece == pieces_[block] / 2) throw std::runtime_error("unreadable");
    held_[block % held_.size()][piece] = block;
  }

  const std::vector<std::size_t> pieces_;
  std::vector<std::vector<std::size_t>> held_;
  std::optional<stream_ring> ring_;  // the last: its threads use the others
};

std::vector<std::size_t> some_pieces(std::size_t blocks) {
  std::vector<std::size_t> pieces;
  for (std::size_t b = 0; b < blocks; ++b) pieces.push_back(1 + b * 5 % 7);
  return pieces;
}

// Reading ahead has come to an end when nothing more is filled.
void settle(const buffers& b) {
  for (int before = -1; before != b.filled;) {
    before = b.filled;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace

TEST_CASE("blocks of a ring come whole and in turn, however many they are") {
  for (std::size_t slots = 2; slots <= 4; ++slots) {
    for (std::size_t blocks = 1; blocks <= 9; ++blocks) {
      for (const std::size_t readers : {1, 3}) {
        INFO(slots << " slots, " << blocks << " blocks, " << readers << " readers");
        buffers b(some_pieces(blocks), slots, readers);
        bool right = true;
        for (int pass = 0; pass < 10; ++pass) {
          for (std::size_t block = 0; block < blocks; ++block) right = right && b.use(block);
        }
        CHECK(right);
      }
    }
  }
}

TEST_CASE("blocks may be left out, and used in any order") {
  std::minstd_rand random(5);
  for (std::size_t blocks = 1; blocks <= 8; ++blocks) {
    auto pieces = some_pieces(blocks);
    pieces[blocks / 2] = 0;  // nothing of it is on disk
    buffers b(pieces, 2 + blocks % 3, 3);
    b.delay = 20;
    bool right = true;
    for (int i = 0; i < 150; ++i) right = right && b.use(random() % blocks);
    CHECK(right);
  }
}

TEST_CASE("blocks are read ahead as far as there are slots, and no further") {
  buffers b({3, 3, 3, 3, 3, 3}, 3, 2);
  settle(b);
  CHECK(b.filled == 9);
  CHECK(b.use(0));
  settle(b);
  CHECK(b.filled == 12);
}

TEST_CASE("a block that cannot be read fails whoever needs it, until it can") {
  buffers b({2, 4, 3, 2, 1}, 3, 3);
  const auto fails = [&](std::size_t block) { CHECK_THROWS_AS(b.use(block), std::runtime_error); };
  for (std::size_t block = 0; block < 5; ++block) REQUIRE(b.use(block));
  b.failing = 3;
  // a failure ahead disturbs nobody before it
  for (std::size_t block = 0; block < 3; ++block) CHECK(b.use(block));
  fails(3);
  fails(3);
  CHECK(b.use(0));
  fails(3);
  for (std::size_t block = 0; block < 3; ++block) CHECK(b.use(block));
  settle(b);
  b.failing = ~std::size_t{0};
  // what was read ahead failed, and is read again
  for (int pass = 0; pass < 3; ++pass) {
    for (std::size_t block = pass == 0 ? 3 : 0; block < 5; ++block) CHECK(b.use(block));
  }
}

TEST_CASE("failures that come and go at any time leave the ring as it was") {
  buffers b(some_pieces(7), 3, 4);
  std::minstd_rand random(11);
  bool right = true;
  int failures = 0;
  for (int pass = 0; pass < 200; ++pass) {
    try {
      for (std::size_t block = 0; block < 7; ++block) {
        b.failing = random() % 4 == 0 ? random() % 7 : ~std::size_t{0};
        right = right && b.use(block);
      }
    } catch (const std::runtime_error&) {
      ++failures;
    }
  }
  CHECK(right);
  CHECK(failures > 0);
  b.failing = ~std::size_t{0};
  for (std::size_t block = 0; block < 7; ++block) CHECK(b.use(block));
}

TEST_CASE("a ring ends while it reads") {
  for (int i = 0; i < 100; ++i) {
    buffers b(some_pieces(6), 3, 4);
    b.delay = i % 5 * 30;
    for (std::size_t block = 0; block < static_cast<std::size_t>(i % 4); ++block) b.use(block);
  }
}

TEST_CASE("a ring has only the blocks that it has") {
  buffers b({1, 1}, 2, 1);
  test::check_error(test::thrown([&] { b.use(2); }), nibble::errc::invalid_argument,
                    {"block 2", "2 pass"});
}
