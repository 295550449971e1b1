// Runs one block of threads after another on one OS thread.
#pragma once

#include <memory>
#include <vector>

#include "emulated/fiber.hpp"
#include "emulated/simt.hpp"

namespace nibble::inline v0::simt {

// As much as fits in a block of any device, with room to spare.
inline constexpr std::size_t max_shared = 256 * 1024;

class block_runner : public running_block {
 public:
  explicit block_runner(const machine_options& options);
  ~block_runner();
  block_runner(const block_runner&) = delete;
  block_runner& operator=(const block_runner&) = delete;

  // False if the block ended with a fault.
  bool run(const launch_request& request, std::span<const memory_range> memory,
           std::uint64_t index);
  const char* fault() const { return fault_; }

  // For the fibers; see simt.hpp.
  void reach_barrier(call_site site);
  void reach_collective(const char* name, operation what, const void* in, void* out,
                        call_site site);
  bool may_access(const void* address, std::size_t bytes);
  bool is_shared(const void* address, std::size_t bytes) const;
  void copy_async(void* to, const void* from);
  void commit_async();
  void wait_async(int open);
  // Ends the block with a fault that is told by text().
  [[noreturn]] void abandon();
  char* text() { return fault_; }
  static constexpr std::size_t text_bytes = 400;

 private:
  enum class doing : std::uint8_t { runs, waits_for_block, waits_for_warp, ended };
  struct async_copy {
    void* to;
    const void* from;
  };
  struct thread_state {
    fiber place;
    doing now = doing::runs;
    call_site site = {};
    std::vector<async_copy> copies;    // that have not arrived
    std::vector<std::size_t> commits;  // how many copies were there at each
  };
  // What the lanes of a warp have brought so far.
  struct warp_state {
    int arrived = 0;
    const char* name = nullptr;
    operation run = nullptr;
    call_site site = {};
    const void* in[64];
    void* out[64];
  };

  static void thread_entry();
  [[noreturn]] void end_thread();
  void start(const launch_request& request, std::uint64_t index);
  void wake(int first, int count);
  void next();
  template <typename T>
  static void keep(std::vector<T>& all, T one);
  [[noreturn]] void fail_stuck();
  void make_order(int first, int count, std::uint16_t* order);
  std::uint32_t random();
  std::byte* stack(int of) const;

  machine_options options_;
  std::byte* stacks_ = nullptr;
  std::unique_ptr<std::byte[]> shared_memory_;
  std::vector<thread_state> state_;
  std::vector<warp_state> warps_;
  fiber host_;
  const std::function<void()>* thread_code_ = nullptr;

  std::vector<std::uint16_t> ready_;  // a ring
  std::size_t ready_first_ = 0, ready_end_ = 0;
  int at_barrier_ = 0, ended_ = 0;
  call_site barrier_site_ = {};
  std::uint32_t random_state_ = 1;

  std::span<const memory_range> memory_;
  memory_range last_range_ = {};
  bool abandoned_ = false;
  char fault_[text_bytes] = {};
};

}  // namespace nibble::inline v0::simt
