// Who has which bytes of a backend's arena for weights.
#pragma once

#include <atomic>
#include <cstddef>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

class weight_room {
 public:
  // Throws error (invalid_argument) the second time.
  void reserve(std::size_t bytes, const std::string& device);
  // Offset of so many bytes that nobody else has; from any thread. Throws error (invalid_argument)
  // if they do not fit.
  std::size_t take(std::size_t bytes, const std::string& device);

 private:
  bool reserved_ = false;
  std::size_t bytes_ = 0;
  std::atomic<std::size_t> used_{0};
};

// Whether `rows` are parts of a placed weight that may be filled by themselves; see
// backend::fill_weight. Throws error (invalid_argument).
void check_part(const weight& placed, row_range rows, const std::string& device);

}  // namespace nibble::inline NIBBLE_ABI
