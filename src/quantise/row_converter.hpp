// Converts the rows of one tensor by all threads, chunk by chunk, in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nibble/base/config.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/imatrix.hpp>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "device/thread_team.hpp"

namespace nibble::inline NIBBLE_ABI {

// A thread takes chunks of whole rows of about this many values at a time.
inline constexpr std::uint64_t chunk_values = 1 << 16;
// Chunks of a wave for each thread: enough that the last one to finish keeps nobody waiting for
// long.
inline constexpr std::uint64_t chunks_per_thread = 4;

struct conversion {
  const gguf::tensor_info* from = nullptr;
  format_id to{};
  const importance* weights = nullptr;  // null: all errors count alike
};

class row_converter {
 public:
  row_converter(thread_team& team, const gguf::file& file, std::stop_token cancel);

  // Sends the tensor's new bytes to `sink`, and tells `done` how many bytes of it were read since
  // the last call.
  // Throws error: cancelled; bad_file for values that are not finite, or too large; what
  // quantise_rows throws.
  void convert(const conversion& what, const gguf::byte_sink& sink,
               const std::function<void(std::uint64_t)>& done);
  // The same without a change.
  void copy(const gguf::tensor_info& tensor, const gguf::byte_sink& sink,
            const std::function<void(std::uint64_t)>& done);

 private:
  // Chunks do not cross from one matrix of a tensor to the next: each has weights of its own.
  struct layout {
    std::uint64_t columns, rows_per_matrix, rows_per_chunk, chunks_per_matrix, chunks;
    std::uint64_t row_bytes_from, row_bytes_to;
  };
  struct rows {
    std::uint64_t first, count, matrix;
  };
  struct scratch {
    std::vector<std::byte> stored;
    std::vector<float> values;
  };
  static layout lay_out(const conversion& what);
  static rows rows_of(const layout& l, std::uint64_t chunk);
  void convert_rows(const conversion& what, const layout& l, const rows& r, scratch& own,
                    std::span<std::byte> out) const;
  void check_cancel() const;

  thread_team& team_;
  const gguf::file& file_;
  std::stop_token cancel_;
  std::vector<scratch> scratch_;     // for each thread
  std::vector<std::byte> waves_[2];  // one is written while the other is made
};

}  // namespace nibble::inline NIBBLE_ABI
