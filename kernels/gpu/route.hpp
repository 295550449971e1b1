// The router's choice of experts, and the order of pairs by expert.
#pragma once

#include <utility>

#include "gpu/dialect.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr std::int32_t route_softmax_then_top = 0;  // of nibble::route_kind

inline constexpr int route_threads = 128;

// A logit and its index as a number: greater for greater logits, and at a tie for the lower index.
// No two indices have the same, and none has 0 or all bits set. A NaN counts as the greatest, so
// that it is chosen and shows in the weights.
NIBBLE_DEVICE std::uint64_t route_key(float logit, int index) {
  std::uint32_t order = 0xfffffffeu;
  if (logit == logit) {
    // 0 for -0: they tie; then negative numbers below positive ones, in order of magnitude
    const std::uint32_t bits = logit == 0 ? 0 : std::bit_cast<std::uint32_t>(logit);
    order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  }
  return static_cast<std::uint64_t>(order) << 32 | ~static_cast<std::uint32_t>(index);
}

NIBBLE_DEVICE std::uint64_t warp_max(std::uint64_t x) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    const std::uint64_t other = shuffle_xor(x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// The greatest key of a row below `limit`, which every lane gets. A warp together.
NIBBLE_DEVICE std::uint64_t next_key(const float* logits, int n, std::uint64_t limit) {
  std::uint64_t greatest = 0;
  for (int i = lane(); i < n; i += warp_size) {
    const std::uint64_t key = route_key(logits[i], i);
    if (key < limit && key > greatest) greatest = key;
  }
  return warp_max(greatest);
}

// A warp a row: n_used times the greatest logit that is left.
NIBBLE_KERNEL(route_threads) route_rows(gpu::route_args args) {
  const std::int64_t row =
      static_cast<std::int64_t>(block_x()) * (route_threads / warp_size) + warp_index();
  wait_for_previous();
  allow_next();
  if (row >= args.rows) return;
  const float* const logits = args.logits + row * args.n_expert;
  std::int32_t* const selection = args.selection + row * args.n_used;
  float* const weights = args.weights + row * args.n_used;

  // The first chosen is the greatest: it keeps the exponentials in range. Of each weight, the lane
  // that wrote the exponential makes the rest.
  float greatest = 0, chosen = 0;
  std::uint64_t key = ~std::uint64_t{0};
  for (int i = 0; i < args.n_used; ++i) {
    key = next_key(logits, args.n_expert, key);
    const int index = static_cast<int>(~static_cast<std::uint32_t>(key));
    const float logit = logits[index];
    if (i == 0) greatest = logit;
    const float e = fast_exp(logit - greatest);
    chosen += e;
    if (lane() == i % warp_size) {
      selection[i] = index;
      weights[i] = e;
    }
  }
  float total = chosen;
  if (args.kind == route_softmax_then_top) {
    total = 0;
    for (int i = lane(); i < args.n_expert; i += warp_size) total += fast_exp(logits[i] - greatest);
    total = warp_sum(total);
  }
  // Normalised, weights are shares of what is chosen, of which the greatest is 1.
  const float factor = args.scale / (args.normalise ? chosen : total);
  for (int i = lane(); i < args.n_used; i += warp_size) weights[i] *= factor;
}

inline constexpr int group_threads = 256;

// Shared memory of group_pairs: where the next pair of each expert goes, and how many pairs of an
// expert each group of lanes has. Such a group is as many lanes as the narrowest warps have.
inline constexpr int group_lanes = 32;
inline constexpr int groups_of_lanes = group_threads / group_lanes;
inline std::size_t group_pairs_shared(std::int64_t n_expert) {
  return static_cast<std::size_t>(n_expert) * (1 + groups_of_lanes) * sizeof(std::uint32_t);
}

// Counting sort, stable, in one block: pairs are taken as many at a time as there are threads.
NIBBLE_KERNEL(group_threads) group_pairs(gpu::group_pairs_args args) {
  auto* const next = reinterpret_cast<std::uint32_t*>(shared_memory());  // [n_expert]
  std::uint32_t* const counts = next + args.n_expert;  // [groups_of_lanes, n_expert]
  const int thread = thread_index(), n_expert = args.n_expert;
  const int group = thread / group_lanes, first_lane = lane() / group_lanes * group_lanes;
  wait_for_previous();
  allow_next();

  for (int e = thread; e < n_expert; e += group_threads) next[e] = 0;
  sync_block();
  for (std::int64_t i = thread; i < args.pairs; i += group_threads) {
    static_cast<void>(atomic_add(next + args.selection[i], 1));
  }
  sync_block();
  if (thread == 0) {
    std::uint32_t start = 0;
    for (int e = 0; e < n_expert; ++e) {
      args.pair_start[e] = static_cast<std::int32_t>(start);
      start += std::exchange(next[e], start);
    }
    args.pair_start[n_expert] = static_cast<std::int32_t>(start);
  }
  sync_block();

  for (std::int64_t first = 0; first < args.pairs; first += group_threads) {
    const std::int64_t pair = first + thread;
    const std::int32_t expert = pair < args.pairs ? args.selection[pair] : -1;
    for (int i = thread; i < groups_of_lanes * n_expert; i += group_threads) counts[i] = 0;
    sync_block();
    // among the lanes of the group: how many with this expert come before, and whether one after
    std::uint32_t before = 0;
    bool last = true;
    for (int i = 0; i < group_lanes; ++i) {
      if (shuffle(expert, first_lane + i) != expert) continue;
      if (first_lane + i < lane()) ++before;
      if (first_lane + i > lane()) last = false;
    }
    if (expert >= 0 && last) counts[group * n_expert + expert] = before + 1;
    sync_block();
    if (expert >= 0) {
      std::uint32_t place = next[expert] + before;
      for (int g = 0; g < group; ++g) place += counts[g * n_expert + expert];
      args.pair_order[place] = static_cast<std::int32_t>(pair);
    }
    sync_block();
    for (int e = thread; e < n_expert; e += group_threads) {
      for (int g = 0; g < groups_of_lanes; ++g) next[e] += counts[g * n_expert + e];
    }
    sync_block();
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
