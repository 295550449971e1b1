// Packs the values of a recording into one buffer: values that are alive at the same step never
// share bytes. Largest first, each at the lowest offset that is free for its whole life; see
// Pisarchyk and Lee 2020, arXiv:2001.03288, "greedy by size".
#include <algorithm>
#include <cstdint>
#include <nibble/base/checked.hpp>
#include <nibble/device/recording.hpp>
#include <nibble/device/step_values.hpp>
#include <numeric>
#include <vector>

namespace nibble::inline NIBBLE_ABI {
namespace {

// Steps at which a value is alive, both ends included; -1 is the border before the first step.
struct lifetime {
  std::int64_t first = 0, last = -2;

  bool used() const { return last >= first; }
  void touch(std::int64_t step) {
    if (!used()) first = step;
    last = step;
  }
  void keep(std::int64_t until) { last = std::max(last, until); }
  bool meets(const lifetime& other) const { return first <= other.last && other.first <= last; }
};

std::vector<lifetime> find_lifetimes(const recording& r, std::span<const kept_value> kept) {
  std::vector<lifetime> lives(r.values.size());
  const auto at = [&](value v) -> lifetime& { return lives[static_cast<std::size_t>(v.id)]; };
  if (r.input) at(r.input).touch(-1);
  for (std::size_t i = 0; i < r.steps.size(); ++i) {
    for_each_value(r.steps[i],
                   [&](value v, value_access) { at(v).touch(static_cast<std::int64_t>(i)); });
  }
  for (const kept_value& k : kept) at(k.which).keep(static_cast<std::int64_t>(k.until));
  if (r.output) at(r.output).touch(static_cast<std::int64_t>(r.steps.size()));
  return lives;
}

std::size_t bytes_of(const value_info& info, program_limits limits) {
  return align_up(value_bytes(info, limits), workspace_alignment);
}

struct placed_value {
  std::size_t offset, bytes;
  lifetime life;
};

// `neighbours` are ordered by offset.
std::size_t lowest_free(const std::vector<placed_value>& neighbours, const lifetime& life,
                        std::size_t bytes) {
  std::size_t offset = 0;
  for (const placed_value& other : neighbours) {
    if (!other.life.meets(life)) continue;
    if (offset + bytes <= other.offset) break;
    offset = std::max(offset, other.offset + other.bytes);
  }
  return offset;
}

}  // namespace

workspace_layout lay_out_workspace(const recording& r, program_limits limits,
                                   std::span<const kept_value> kept) {
  const std::vector<lifetime> lives = find_lifetimes(r, kept);
  std::vector<std::size_t> order(r.values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return bytes_of(r.values[a], limits) > bytes_of(r.values[b], limits);
  });

  workspace_layout layout;
  layout.offset.assign(r.values.size(), 0);
  std::vector<placed_value> placed;
  for (const std::size_t id : order) {
    const std::size_t bytes = bytes_of(r.values[id], limits);
    if (!lives[id].used()) continue;
    const std::size_t offset = lowest_free(placed, lives[id], bytes);
    const auto above = std::find_if(placed.begin(), placed.end(),
                                    [&](const placed_value& p) { return p.offset > offset; });
    placed.insert(above, {offset, bytes, lives[id]});
    layout.offset[id] = offset;
    layout.bytes = std::max(layout.bytes, offset + bytes);
  }
  return layout;
}

}  // namespace nibble::inline NIBBLE_ABI
