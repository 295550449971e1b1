// The CPU as a backend for blocks whose matrices stay on disk.
#pragma once

#include <cstddef>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/stream.hpp>
#include <optional>
#include <vector>

#include "device/cpu_backend.hpp"
#include "device/stream_experts.hpp"
#include "device/stream_pieces.hpp"
#include "device/stream_ring.hpp"
#include "device/stream_sizes.hpp"

namespace nibble::inline NIBBLE_ABI {

// A CPU backend does everything but the ring: it holds small tensors and caches, and its programs
// run once a block's matrices are where they were said to be; for routed experts they wait when
// they know which. Without blocks on disk this is a CPU
// backend by another name.
class stream_backend final : public backend, private weight_stream {
 public:
  stream_backend(const disk_options& options, const cpu::kernel_table& kernels);

  const device_info& info() const noexcept override { return sizes_.info(); }
  std::size_t weight_bytes(const tensor_view& tensor) const override {
    return sizes_.weight_bytes(tensor);
  }
  weight_ring ring() const noexcept override { return sizes_.ring(); }
  weight_stream* stream() noexcept override { return this; }
  void reserve_weights(std::size_t bytes) override;
  weight place_weight(const tensor_view& tensor) override { return cpu_.place_weight(tensor); }
  void fill_weight(const weight& placed, row_range rows, const std::byte* from) override {
    cpu_.fill_weight(placed, rows, from);
  }

  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override {
    return sizes_.cache_bytes(layout, pages);
  }
  std::unique_ptr<kv_cache> make_cache(const kv_layout& layout,
                                       std::span<const std::int32_t> pages) override {
    return cpu_.make_cache(layout, pages);
  }

  workspace_size workspace_of(const recording& steps, program_limits limits) const override {
    return sizes_.workspace_of(steps, limits);
  }
  void reserve_workspace(const workspace_size& size) override { cpu_.reserve_workspace(size); }
  std::unique_ptr<program> make_program(recording steps, program_limits limits) override;

  memory_use allocated() const override;

  // The block's matrices, in memory as long as this lives.
  stream_ring::lease acquire(std::size_t block);
  // After a run of the block.
  void release_experts(std::size_t block) noexcept;

 private:
  // A block's part of its buffer.
  struct room {
    std::uint64_t bytes = 0, used = 0;
  };

  void reserve_blocks(std::span<const std::uint64_t> bytes, const expert_cache& experts) override;
  weight place_stored(const tensor_view& tensor, const stored_tensor& stored,
                      std::size_t block) override;
  void start_ring();
  std::span<std::byte> staging_of(std::size_t reader) const;

  const disk_options options_;
  cpu_backend cpu_;
  stream_sizes sizes_;

  std::vector<room> rooms_;  // by block
  expert_cache experts_size_ = {};
  arena slots_, experts_memory_, staging_;
  std::size_t slot_bytes_ = 0;
  std::size_t programs_ = 0;
  stream_files files_;
  std::optional<stream_pieces> pieces_;
  std::optional<stream_experts> experts_;
  std::optional<stream_ring> ring_;  // the last: its threads write to all of the above
};

}  // namespace nibble::inline NIBBLE_ABI
