// One block of memory for everything of one kind: all weights, all pages of a cache, a workspace.
#pragma once

#include <cstddef>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI {

// Zero-filled, aligned to 2 MiB, in huge pages where the system grants them, as far as they are
// filled. Not touched before use: physical memory is taken page by page.
class arena {
 public:
  static constexpr std::size_t alignment = std::size_t{2} << 20;

  arena() = default;
  // `purpose` is named in the error: "weights". Throws error (out_of_memory).
  arena(std::size_t bytes, const char* purpose);
  ~arena();
  arena(arena&& other) noexcept;
  arena& operator=(arena&& other) noexcept;

  std::byte* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  void release() noexcept;

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;    // as asked for
  void* mapping_ = nullptr;  // what must be given back
  std::size_t mapped_ = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
