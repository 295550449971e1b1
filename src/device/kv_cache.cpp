#include <nibble/device/kv_cache.hpp>

#include <algorithm>

namespace nibble::inline NIBBLE_ABI {

std::vector<kv_group> group_layers(const kv_layout& layout) {
  std::vector<kv_group> groups;
  for (std::size_t i = 0; i < layout.layers.size(); ++i) {
    const kv_layer& layer = layout.layers[i];
    auto group = std::find_if(groups.begin(), groups.end(), [&](const kv_group& g) {
      return g.kind == layer.kind && g.window == layer.window;
    });
    if (group == groups.end()) {
      group = groups.insert(group, kv_group{.kind = layer.kind, .window = layer.window});
    }
    group->layers.push_back(static_cast<std::int32_t>(i));
    group->bytes_per_token += layout.token_bytes(layer);
    group->state_bytes += kv_layout::state_bytes(layer);
  }
  return groups;
}

kv_layout layers_of(const kv_layout& layout, const std::vector<bool>& there) {
  kv_layout some = layout;
  for (std::size_t i = 0; i < some.layers.size(); ++i) {
    if (!there[i]) some.layers[i].n_head_kv = 0;
  }
  return some;
}

}  // namespace nibble::inline NIBBLE_ABI
