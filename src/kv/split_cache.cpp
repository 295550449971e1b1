#include "kv/split_cache.hpp"

#include <cstring>
#include <utility>

namespace nibble::inline NIBBLE_ABI {

split_kv_cache::split_kv_cache(kv_layout layout, std::span<const std::int32_t> pages,
                               std::vector<std::unique_ptr<kv_cache>> parts,
                               std::vector<std::int32_t> part_of)
    : kv_cache(std::move(layout), pages, nullptr),
      parts_(std::move(parts)),
      part_of_(std::move(part_of)) {}

std::size_t split_kv_cache::bytes() const noexcept {
  std::size_t all = 0;
  for (const auto& part : parts_) all += part ? part->bytes() : 0;
  return all;
}

void split_kv_cache::copy_page(std::size_t group, page_id from, page_id to) {
  for (const auto& part : parts_) {
    if (part) part->copy_page(group, from, to);
  }
}

std::size_t split_kv_cache::layer_bytes(std::int32_t layer, std::int32_t tokens) const {
  const kv_layer& l = layout().layers[static_cast<std::size_t>(layer)];
  if (l.kind == kv_kind::state) return kv_layout::state_bytes(l);
  return layout().token_bytes(l) * static_cast<std::size_t>(tokens);
}

std::size_t split_kv_cache::part_bytes(std::size_t group, std::size_t part,
                                       std::int32_t tokens) const {
  std::size_t bytes = 0;
  for (const std::int32_t layer : groups()[group].layers) {
    const auto at = static_cast<std::size_t>(part_of_[static_cast<std::size_t>(layer)]);
    if (at == part) bytes += layer_bytes(layer, tokens);
  }
  return bytes;
}

// Within a page layer follows layer, in each cache: the parts are merged layer by layer.
void split_kv_cache::read_page(std::size_t group, page_id page, std::int32_t tokens,
                               std::byte* to) const {
  std::vector<std::vector<std::byte>> bytes(parts_.size());
  std::vector<std::size_t> at(parts_.size(), 0);
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    bytes[i].resize(part_bytes(group, i, tokens));
    if (!bytes[i].empty()) parts_[i]->read_page(group, page, tokens, bytes[i].data());
  }
  for (const std::int32_t layer : groups()[group].layers) {
    const auto part = static_cast<std::size_t>(part_of_[static_cast<std::size_t>(layer)]);
    const std::size_t n = layer_bytes(layer, tokens);
    std::memcpy(to, bytes[part].data() + at[part], n);
    at[part] += n;
    to += n;
  }
}

void split_kv_cache::write_page(std::size_t group, page_id page, std::int32_t tokens,
                                const std::byte* from) {
  std::vector<std::vector<std::byte>> bytes(parts_.size());
  for (const std::int32_t layer : groups()[group].layers) {
    const auto part = static_cast<std::size_t>(part_of_[static_cast<std::size_t>(layer)]);
    const std::size_t n = layer_bytes(layer, tokens);
    bytes[part].insert(bytes[part].end(), from, from + n);
    from += n;
  }
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    if (!bytes[i].empty()) parts_[i]->write_page(group, page, tokens, bytes[i].data());
  }
}

}  // namespace nibble::inline NIBBLE_ABI
