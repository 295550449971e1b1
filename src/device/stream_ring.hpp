// Whose turn it is in a ring of buffers: blocks are filled ahead by threads, in the order in which
// they are used over and over. What filling means, its owner says.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <nibble/base/config.hpp>
#include <optional>
#include <thread>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Turns count uses of blocks from the start on: turn t is block t modulo their number. Block b is
// always in slot b modulo the number of slots, so that its addresses never change.
class stream_ring {
 public:
  // Brings one piece of a block to its slot; called by several threads at once, each with a number
  // of its own below `readers`. What it throws, acquire() throws.
  using fill_piece = std::function<void(std::size_t block, std::size_t piece, std::size_t reader)>;

  struct sizes {
    std::vector<std::size_t> pieces;  // of each block
    std::size_t slots = 0, readers = 0;
  };

  // Something else for these threads to do, which must not throw.
  using errand = std::function<void(std::size_t reader)>;

  // Starts reading. With fewer threads than asked for if the system gives no more; throws error
  // (out_of_memory) if it gives none.
  stream_ring(sizes of, fill_piece fill);
  stream_ring(const stream_ring&) = delete;
  stream_ring& operator=(const stream_ring&) = delete;
  // Waits for the pieces that are being read.
  ~stream_ring();

  // A block whose weights lie in their slot as long as this lives.
  class lease {
   public:
    lease(stream_ring& ring, std::size_t slot) : ring_(ring), slot_(slot) {}
    lease(const lease&) = delete;
    lease& operator=(const lease&) = delete;
    ~lease() { ring_.release(slot_); }

   private:
    stream_ring& ring_;
    std::size_t slot_;
  };

  // Waits until the block is there. Those between the one used last and this one are left out. A
  // block that failed before it was asked for is read again; if it fails while it is waited for,
  // this throws, and reading goes on with the first block. By one thread at a time.
  lease acquire(std::size_t block);

  // Has this done before any piece of a block, errands in their order. What was not begun when the
  // ring ends is not done.
  void run_soon(errand what);

 private:
  enum class phase {
    free,
    filling,
    ready,
    used,
    failed,
    dropped  // as soon as no piece of it is being read, it is free
  };
  struct slot {
    phase state = phase::free;
    std::uint64_t turn = 0;                         // unless it is free
    std::size_t handed = 0, done = 0, running = 0;  // pieces
    std::exception_ptr failure = {};
  };
  struct work {
    std::size_t slot, block, piece;
  };

  std::size_t block_of(std::uint64_t turn) const { return turn % of_.pieces.size(); }
  std::size_t slot_of(std::size_t block) const { return block % slots_.size(); }
  void start_readers();
  void read(std::size_t reader);
  std::optional<work> next_work();
  void finish(const work& done, std::exception_ptr failure);
  void drop(slot& s);
  void go_to(std::uint64_t turn);
  void release(std::size_t at) noexcept;
  void stop() noexcept;

  const sizes of_;
  const fill_piece fill_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable has_work_, has_block_;
  std::vector<slot> slots_;
  std::deque<errand> errands_;
  std::uint64_t next_ = 0;  // the turn that is asked for next, if none is left out
  bool stopping_ = false;

  std::vector<std::thread> readers_;
};

}  // namespace nibble::inline NIBBLE_ABI
