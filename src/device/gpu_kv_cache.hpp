// Keys and values on a GPU: pages of tokens in one block of its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <span>

#include "device/gpu_device.hpp"
#include "device/kv_page_layout.hpp"

namespace nibble::inline NIBBLE_ABI {

// Bytes through which pages go to the host and back.
std::size_t greatest_page(const std::vector<kv_group>& groups);

class gpu_kv_cache final : public kv_cache {
 public:
  // `owner` is the backend that made it. Throws error as backend::make_cache.
  gpu_kv_cache(std::shared_ptr<gpu_device> device, const kv_layout& layout,
               std::span<const std::int32_t> pages, const backend* owner);

  std::size_t bytes() const noexcept override { return memory_.bytes(); }

  // In order with programs that run; a page that is read has what they wrote.
  void copy_page(std::size_t group, page_id from, page_id to) override;
  void read_page(std::size_t group, page_id page, std::int32_t tokens,
                 std::byte* to) const override;
  void write_page(std::size_t group, page_id page, std::int32_t tokens,
                  const std::byte* from) override;

  // One layer as attention kernels see it.
  gpu::cache_layer layer(std::int32_t i) const;

 private:
  std::byte* page_at(std::size_t group, page_id page) const noexcept {
    return memory_.data() + places_.page_at(group, page);
  }

  kv_page_layout places_;
  std::shared_ptr<gpu_device> device_;
  gpu_memory memory_;
  mutable gpu_memory staging_;  // pinned, of one page
};

}  // namespace nibble::inline NIBBLE_ABI
