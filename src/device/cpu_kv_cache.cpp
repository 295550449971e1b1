#include "device/cpu_kv_cache.hpp"

#include <cstring>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

void check_row(kv_type type, std::int32_t length, const char* what, std::size_t layer) {
  if (fits(type, length)) return;
  throw error(errc::unsupported,
              concat(what, " of layer ", layer, " have ", length, " values a head; ",
                     info_of(type).name, " needs a multiple of 8 up to ", longest_coded_row,
                     ". f32, f16 and bf16 take any number."));
}

void check_layout(const kv_layout& layout, std::span<const std::int32_t> pages) {
  for (std::size_t i = 0; i < layout.layers.size(); ++i) {
    const kv_layer& l = layout.layers[i];
    if (l.n_head_kv < 0 || l.key_length < 0 || l.value_length < 0 || l.window < 0) {
      throw error(errc::invalid_argument, concat("layer ", i, " of a cache has a negative size"));
    }
    if (l.kind != kv_kind::rows) {
      throw error(errc::unsupported,
                  concat("layer ", i, " keeps ",
                         l.kind == kv_kind::latent ? "latent rows" : "a recurrent state",
                         ", which the CPU has no steps for"));
    }
    check_row(layout.key, l.key_length, "keys", i);
    check_row(layout.value, l.value_length, "values", i);
  }
  const std::size_t groups = group_layers(layout).size();
  if (pages.size() != groups) {
    throw error(errc::invalid_argument,
                concat("a cache with ", groups, " groups of layers cannot be made with ",
                       pages.size(), " numbers of pages"));
  }
  for (const std::int32_t n : pages) {
    if (n > 0) continue;
    throw error(errc::invalid_argument, concat("a cache of ", n, " pages cannot be made"));
  }
}

// All parts of a page are whole cache lines, since it has 64 tokens: threads that write different
// heads never share one.
static_assert(kv_page_tokens % 64 == 0);

}  // namespace

std::size_t cpu_kv_cache::bytes_for(const kv_layout& layout, std::span<const std::int32_t> pages) {
  check_layout(layout, pages);
  const auto groups = group_layers(layout);
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto more = checked_mul(groups[i].page_bytes(), static_cast<std::uint64_t>(pages[i]));
    const auto sum = more ? checked_add(bytes, *more) : more;
    if (!sum) {
      throw error(errc::out_of_memory,
                  concat("a cache of ", pages[i], " pages has more bytes than can be counted"));
    }
    bytes = *sum;
  }
  return bytes;
}

cpu_kv_cache::cpu_kv_cache(const kv_layout& layout, std::span<const std::int32_t> pages,
                           const void* owner)
    : kv_cache((check_layout(layout, pages), layout), pages),
      memory_(bytes_for(layout, pages), "a key/value cache"),
      owner_(owner) {
  layers_.resize(layout.layers.size());
  std::size_t first = 0;
  for (std::size_t g = 0; g < groups().size(); ++g) {
    std::size_t at = 0;
    for (const std::int32_t i : groups()[g].layers) {
      const kv_layer& l = layout.layers[static_cast<std::size_t>(i)];
      const auto heads = static_cast<std::size_t>(l.n_head_kv);
      layer_place& place = layers_[static_cast<std::size_t>(i)];
      place.group = g;
      place.key = {code_bytes(layout.key, l.key_length), scale_bytes(layout.key, l.key_length)};
      place.value = {code_bytes(layout.value, l.value_length),
                     scale_bytes(layout.value, l.value_length)};
      place.keys = at;
      place.values = at + heads * kv_page_tokens * place.key.bytes();
      at = place.values + heads * kv_page_tokens * place.value.bytes();
    }
    places_.push_back({first, groups()[g].page_bytes()});
    first += places_[g].page_bytes * static_cast<std::size_t>(pages[g]);
  }
}

void cpu_kv_cache::copy_page(std::size_t group, page_id from, page_id to) {
  std::memcpy(page_at(group, to), page_at(group, from), places_[group].page_bytes);
}

template <typename F>
void cpu_kv_cache::each_run(std::size_t group, std::byte* page, std::int32_t tokens, F f) const {
  const auto n = static_cast<std::size_t>(tokens);
  for (const std::int32_t i : groups()[group].layers) {
    const layer_place& l = layer(i);
    const std::int32_t heads = layout().layers[static_cast<std::size_t>(i)].n_head_kv;
    for (std::int32_t head = 0; head < heads; ++head) {
      for (const bool key : {true, false}) {
        const row_size size = key ? l.key : l.value;
        const auto rows =
            rows_at(page + layer_place::of(key ? l.keys : l.values, size, head), size, 0);
        f(rows.codes, n * size.codes);
        if (size.scales > 0) f(rows.scales, n * size.scales);
      }
    }
  }
}

void cpu_kv_cache::read_page(std::size_t group, page_id page, std::int32_t tokens,
                             std::byte* to) const {
  each_run(group, page_at(group, page), tokens, [&](const std::byte* from, std::size_t bytes) {
    std::memcpy(to, from, bytes);
    to += bytes;
  });
}

void cpu_kv_cache::write_page(std::size_t group, page_id page, std::int32_t tokens,
                              const std::byte* from) {
  each_run(group, page_at(group, page), tokens, [&](std::byte* to, std::size_t bytes) {
    std::memcpy(to, from, bytes);
    from += bytes;
  });
}

}  // namespace nibble::inline NIBBLE_ABI
