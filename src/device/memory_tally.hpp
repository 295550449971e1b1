// How much memory of each kind a backend has allocated.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <utility>

namespace nibble::inline NIBBLE_ABI {

// May be used from several threads.
class memory_tally {
 public:
  enum kind { weights, kv, workspace, host, n_kinds };

  void add(kind what, std::uint64_t bytes) noexcept {
    const std::uint64_t now = bytes_[what] += bytes;
    std::uint64_t most = peak_[what];
    while (now > most && !peak_[what].compare_exchange_weak(most, now)) {
    }
  }
  void remove(kind what, std::uint64_t bytes) noexcept { bytes_[what] -= bytes; }
  memory_use use() const noexcept { return as_use(bytes_); }
  memory_use peak() const noexcept { return as_use(peak_); }

 private:
  using counts = std::atomic<std::uint64_t>[n_kinds];

  static memory_use as_use(const counts& of) noexcept {
    return {.weights = of[weights], .kv = of[kv], .workspace = of[workspace], .host = of[host]};
  }

  counts bytes_ = {}, peak_ = {};
};

// Bytes that are in a tally as long as this lives; held beside the memory itself.
class tally_entry {
 public:
  tally_entry() = default;
  tally_entry(std::shared_ptr<memory_tally> tally, memory_tally::kind what, std::uint64_t bytes)
      : tally_(std::move(tally)), what_(what), bytes_(bytes) {
    tally_->add(what_, bytes_);
  }
  ~tally_entry() {
    if (tally_) tally_->remove(what_, bytes_);
  }
  tally_entry(tally_entry&& other) noexcept { swap(other); }
  tally_entry& operator=(tally_entry&& other) noexcept {
    swap(other);
    return *this;
  }

 private:
  void swap(tally_entry& other) noexcept {
    std::swap(tally_, other.tally_);
    std::swap(what_, other.what_);
    std::swap(bytes_, other.bytes_);
  }

  std::shared_ptr<memory_tally> tally_;
  memory_tally::kind what_ = memory_tally::weights;
  std::uint64_t bytes_ = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
