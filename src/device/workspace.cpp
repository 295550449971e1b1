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
};

// What has its place, by the steps at which it is alive. A value is compared with those it meets
// and no others: most live for a few steps, however many there are.
class placed_values {
 public:
  explicit placed_values(const std::vector<lifetime>& lives) {
    std::int64_t last = -1;
    for (const lifetime& life : lives) last = std::max(last, life.last);
    alive_.resize(static_cast<std::size_t>(last + 2));
  }

  // The lowest offset that is free for the whole life.
  std::size_t lowest_free(const lifetime& life, std::size_t bytes) {
    met_.clear();
    ++query_;
    for (std::int64_t step = life.first; step <= life.last; ++step) {
      for (const std::size_t other : at(step)) {
        if (seen_[other] == query_) continue;
        seen_[other] = query_;
        met_.push_back(placed_[other]);
      }
    }
    std::sort(met_.begin(), met_.end(),
              [](const placed_value& a, const placed_value& b) { return a.offset < b.offset; });
    std::size_t offset = 0;
    for (const placed_value& other : met_) {
      if (offset + bytes <= other.offset) break;
      offset = std::max(offset, other.offset + other.bytes);
    }
    return offset;
  }

  void add(const lifetime& life, placed_value value) {
    for (std::int64_t step = life.first; step <= life.last; ++step) {
      at(step).push_back(placed_.size());
    }
    placed_.push_back(value);
    seen_.push_back(0);
  }

 private:
  std::vector<std::size_t>& at(std::int64_t step) {
    return alive_[static_cast<std::size_t>(step + 1)];  // the first border is -1
  }

  std::vector<std::vector<std::size_t>> alive_;  // by step: indices into placed_
  std::vector<placed_value> placed_, met_;
  std::vector<std::size_t> seen_;  // by placed value: the query that met it last
  std::size_t query_ = 0;
};

}  // namespace

workspace_layout lay_out_workspace(const recording& r, program_limits limits,
                                   std::span<const kept_value> kept) {
  const std::vector<lifetime> lives = find_lifetimes(r, kept);
  std::vector<std::size_t> bytes, order(r.values.size());
  for (const value_info& info : r.values) bytes.push_back(bytes_of(info, limits));
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });

  workspace_layout layout;
  layout.offset.assign(r.values.size(), 0);
  placed_values placed(lives);
  for (const std::size_t id : order) {
    if (!lives[id].used()) continue;
    const std::size_t offset = placed.lowest_free(lives[id], bytes[id]);
    placed.add(lives[id], {offset, bytes[id]});
    layout.offset[id] = offset;
    layout.bytes = std::max(layout.bytes, offset + bytes[id]);
  }
  return layout;
}

}  // namespace nibble::inline NIBBLE_ABI
