// The caches of several devices as one: a layer's keys and values lie where its attention runs, and
// a page has the same number everywhere.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

class split_kv_cache final : public kv_cache {
 public:
  // part_of: by layer, the index of its cache; parts were made with layers_of() of the layout.
  split_kv_cache(kv_layout layout, std::span<const std::int32_t> pages,
                 std::vector<std::unique_ptr<kv_cache>> parts, std::vector<std::int32_t> part_of);

  kv_cache* part(std::size_t i) const noexcept { return parts_[i].get(); }  // null: no layers there

  std::size_t bytes() const noexcept override;
  void copy_page(std::size_t group, page_id from, page_id to) override;
  void read_page(std::size_t group, page_id page, std::int32_t tokens,
                 std::byte* to) const override;
  void write_page(std::size_t group, page_id page, std::int32_t tokens,
                  const std::byte* from) override;

 private:
  // Bytes that the first tokens of a page have of one layer.
  std::size_t layer_bytes(std::int32_t layer, std::int32_t tokens) const;
  // Of those layers of a group that lie in this part.
  std::size_t part_bytes(std::size_t group, std::size_t part, std::int32_t tokens) const;

  std::vector<std::unique_ptr<kv_cache>> parts_;
  std::vector<std::int32_t> part_of_;
};

}  // namespace nibble::inline NIBBLE_ABI
