// Routed experts whose matrices stay on disk: read when a token goes through them, and kept in
// slots until others need the room, the least recently used first.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <optional>
#include <span>
#include <vector>

#include "device/expert_source.hpp"
#include "device/stream_tensor.hpp"

namespace nibble::inline NIBBLE_ABI {

class stream_experts {
 public:
  // Has something done by one of several threads, soon; each has a number and staging of its own.
  using read_soon = std::function<void(std::function<void(std::span<std::byte> staging)>)>;

  // memory: of all slots. The number of blocks counts those without experts, too.
  stream_experts(const expert_cache& size, std::byte* memory, std::size_t blocks, read_soon read);
  stream_experts(const stream_experts&) = delete;
  stream_experts& operator=(const stream_experts&) = delete;
  ~stream_experts();

  // The tensor's matrices are the block's experts, in their order. Fills in where `placed` has them
  // from. Throws error: invalid_argument (no room in a slot, another number of experts),
  // unsupported.
  void add(weight& placed, stream_tensor tensor, std::size_t of_block);
  // A run of the block is over: what it asked for may go.
  void release(std::size_t of_block) noexcept;

 private:
  class block_experts;
  struct slot {
    block_experts* of = nullptr;  // null: nothing is here
    std::size_t expert = 0;
    std::size_t left = 0;  // pieces that are not there yet
    bool used = false;     // by the run of now
    std::exception_ptr failure = {};
    std::list<std::size_t>::iterator at = {};  // in order_
  };
  using lock = std::unique_lock<std::mutex>;

  bool is_here(const block_experts& of, std::size_t expert) const;
  void keep(block_experts& of, std::size_t expert, bool passing);
  void bring(lock& held, block_experts& of, std::size_t expert, bool passing);
  std::size_t take_slot(lock& held);
  void use(std::size_t at);
  void begin(std::size_t at, block_experts& of, std::size_t expert);
  void fill(std::size_t at, std::size_t piece, std::span<std::byte> staging) noexcept;
  void empty(std::size_t at) noexcept;
  std::byte* memory_of(std::size_t at) const { return memory_ + at * slot_bytes_; }

  const std::size_t slot_bytes_;
  std::byte* const memory_;
  const read_soon read_;
  std::vector<std::unique_ptr<block_experts>> blocks_;

  std::mutex mutex_;  // guards what follows, and which slot an expert has
  std::condition_variable changed_;
  std::vector<slot> slots_;
  std::vector<std::size_t> free_;  // slots with nothing in them
  std::vector<std::size_t> used_;  // by the run of now
  std::list<std::size_t> order_;   // of slots: the one used last first
};

}  // namespace nibble::inline NIBBLE_ABI
