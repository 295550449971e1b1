// How weights come to a GPU: packed on the way (kernels/gpu/matrix_layout.hpp) into pinned memory,
// from where they are uploaded while the next ones are packed.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/tensor/view.hpp>
#include <vector>

#include "device/gpu_device.hpp"
#include "gpu/matrix_layout.hpp"

namespace nibble::inline NIBBLE_ABI {

// Bytes in the arena, alignment included. Throws error (unsupported, invalid_argument) if kernels
// cannot compute with the tensor.
std::size_t gpu_weight_bytes(const tensor_view& tensor);
// From one matrix (expert) to the next.
std::size_t gpu_matrix_bytes(const tensor_view& tensor);

// A weight as kernels see it.
gpu::packed_matrix packed_matrix_of(const weight& w);

class weight_uploads {
 public:
  explicit weight_uploads(std::shared_ptr<gpu_device> device) : device_(std::move(device)) {}

  // Packs rows, at `from`, of a placed weight, and starts their upload. From any thread.
  void fill(const weight& placed, row_range rows, const std::byte* from);
  // Blocks until everything has arrived.
  void finish();

 private:
  struct staging {
    gpu_memory memory;
    bool taken = false;       // by a thread that packs
    bool on_its_way = false;  // an upload reads it
  };
  // A staging buffer that a thread has.
  class buffer {
   public:
    buffer(weight_uploads& owner, std::size_t bytes);  // waits for one
    ~buffer();
    buffer(const buffer&) = delete;
    buffer& operator=(const buffer&) = delete;

    std::byte* data() const noexcept { return staging_.memory.data(); }
    // Starts the upload of packed rows to their matrix.
    void send(const kernels::packed_rows& rows, std::byte* matrix) const;

   private:
    weight_uploads& owner_;
    staging& staging_;
  };
  staging& take(std::size_t bytes);

  std::shared_ptr<gpu_device> device_;
  std::mutex guard_;  // before the device's
  std::condition_variable freed_;
  std::vector<std::unique_ptr<staging>> buffers_;
};

}  // namespace nibble::inline NIBBLE_ABI
