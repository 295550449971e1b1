#include "device/kv_page_layout.hpp"

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
                         ", which no device has steps for"));
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

kv_page_layout::kv_page_layout(const kv_layout& layout, std::span<const std::int32_t> pages) {
  check_layout(layout, pages);
  groups_ = group_layers(layout);
  layers_.resize(layout.layers.size());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    std::size_t at = 0;
    for (const std::int32_t i : groups_[g].layers) {
      const kv_layer& l = layout.layers[static_cast<std::size_t>(i)];
      const auto heads = static_cast<std::size_t>(l.n_head_kv);
      layer_place& place = layers_[static_cast<std::size_t>(i)];
      place.group = g;
      place.heads = l.n_head_kv;
      place.key = {code_bytes(layout.key, l.key_length), scale_bytes(layout.key, l.key_length)};
      place.value = {code_bytes(layout.value, l.value_length),
                     scale_bytes(layout.value, l.value_length)};
      place.keys = at;
      place.values = at + heads * kv_page_tokens * place.key.bytes();
      at = place.values + heads * kv_page_tokens * place.value.bytes();
    }
    places_.push_back({bytes_, groups_[g].page_bytes()});
    const auto more = checked_mul(groups_[g].page_bytes(), static_cast<std::uint64_t>(pages[g]));
    const auto sum = more ? checked_add(std::uint64_t{bytes_}, *more) : more;
    if (!sum) {
      throw error(errc::out_of_memory,
                  concat("a cache of ", pages[g], " pages has more bytes than can be counted"));
    }
    bytes_ = *sum;
  }
}

std::vector<kv_page_layout::run> kv_page_layout::runs(std::size_t group,
                                                      std::int32_t tokens) const {
  const auto n = static_cast<std::size_t>(tokens);
  std::vector<run> found;
  for (const std::int32_t i : groups_[group].layers) {
    const layer_place& l = layer(i);
    for (std::int32_t head = 0; head < l.heads; ++head) {
      for (const bool key : {true, false}) {
        const row_size size = key ? l.key : l.value;
        const std::size_t rows = layer_place::of(key ? l.keys : l.values, size, head);
        found.push_back({rows, n * size.codes});
        if (size.scales > 0) found.push_back({rows + kv_page_tokens * size.codes, n * size.scales});
      }
    }
  }
  return found;
}

}  // namespace nibble::inline NIBBLE_ABI
