#include "device/gpu_kv_cache.hpp"

#include <algorithm>
#include <cstring>

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr auto queue = gpu::queue_id::compute;

}  // namespace

std::size_t greatest_page(const std::vector<kv_group>& groups) {
  std::size_t bytes = 0;
  for (const kv_group& g : groups) bytes = std::max(bytes, g.page_bytes());
  return bytes;
}

gpu_kv_cache::gpu_kv_cache(std::shared_ptr<gpu_device> device, const kv_layout& layout,
                           std::span<const std::int32_t> pages, const backend* owner)
    : kv_cache(layout, pages, owner),
      places_(layout, pages),
      device_(std::move(device)),
      memory_(device_, gpu_memory::kind::kv, places_.bytes(), "a key/value cache"),
      staging_(device_, gpu_memory::kind::host, greatest_page(groups()), "a page in transfer") {
  const auto lock = device_->lock();
  device_->fill(queue, memory_.data(), 0, memory_.bytes());
}

void gpu_kv_cache::copy_page(std::size_t group, page_id from, page_id to) {
  const auto lock = device_->lock();
  device_->copy(queue, page_at(group, to), page_at(group, from), places_.group(group).page_bytes);
}

void gpu_kv_cache::read_page(std::size_t group, page_id page, std::int32_t tokens,
                             std::byte* to) const {
  const auto lock = device_->lock();
  // one transfer of the whole page costs less than one for each of its runs
  device_->download(queue, staging_.data(), page_at(group, page), places_.group(group).page_bytes);
  device_->finish(queue);
  for (const auto& [offset, bytes] : places_.runs(group, tokens)) {
    std::memcpy(to, staging_.data() + offset, bytes);
    to += bytes;
  }
}

void gpu_kv_cache::write_page(std::size_t group, page_id page, std::int32_t tokens,
                              const std::byte* from) {
  const auto lock = device_->lock();
  for (const auto& [offset, bytes] : places_.runs(group, tokens)) {
    std::memcpy(staging_.data() + offset, from, bytes);
    from += bytes;
  }
  for (const auto& [offset, bytes] : places_.runs(group, tokens)) {
    device_->upload(queue, page_at(group, page) + offset, staging_.data() + offset, bytes);
  }
  device_->finish(queue);  // the staging is used again
}

gpu::cache_layer gpu_kv_cache::layer(std::int32_t i) const {
  const kv_page_layout::layer_place& place = places_.layer(i);
  return {.pages = page_at(place.group, 0),
          .page_bytes = places_.group(place.group).page_bytes,
          .group = static_cast<std::int32_t>(place.group),
          .keys = place.keys,
          .values = place.values,
          .key_type = static_cast<std::int32_t>(layout().key),
          .value_type = static_cast<std::int32_t>(layout().value),
          .rotate_key = layout().rotate_key,
          .rotate_value = layout().rotate_value};
}

}  // namespace nibble::inline NIBBLE_ABI
