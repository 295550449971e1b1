// Attention of one query head over pages of keys and values.
//
// Softmax is computed online (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
// arXiv:2205.14135): blocks of tokens are visited once, and what was summed so far is scaled down
// whenever a greater logit turns up. A sink is a logit that takes part in the softmax but has no
// value.
//
// Blocks end where pages end. Cutting the same tokens into other pages changes the result by
// rounding only (about 1e-7 of the greatest value), and not at all if pages are multiples of
// `attend_block` tokens, save for the last.
#pragma once

#include <cstdint>

#include "cpu/kernel_table.hpp"
#include "cpu/simd.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int attend_block = 64;  // tokens whose logits are held at once

// logits[i] = q . keys[i], i < Tokens; keys: [Tokens, length].
template <typename Floats, int Tokens, typename Storage>
inline void query_keys(const float* q, const Storage* keys, std::int64_t length, float* logits) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  Floats acc[Tokens];
  for (Floats& a : acc) a = Floats(0.0f);
  std::int64_t j = 0;
  for (; j + width <= length; j += width) {
    const Floats x = Floats::load_unaligned(q + j);
    for (int i = 0; i < Tokens; ++i) {
      acc[i] = mul_add(x, load<Floats>(keys + i * length + j), acc[i]);
    }
  }
  if (j < length) {
    const Floats x = load_part<Floats>(q + j, length - j);
    for (int i = 0; i < Tokens; ++i) {
      acc[i] = mul_add(x, load_part<Floats>(keys + i * length + j, length - j), acc[i]);
    }
  }
  for (int i = 0; i < Tokens; ++i) logits[i] = lane_sum(acc[i]);
}

// out[j] = out[j] * keep + sum of p[i] * values[i][j] for `Vectors` vectors of columns.
template <typename Floats, int Vectors, typename Storage>
inline void add_values(const float* p, const Storage* values, std::int64_t length, int tokens,
                       float keep, float* out) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  Floats acc[Vectors];
  for (int v = 0; v < Vectors; ++v) {
    acc[v] = Floats::load_unaligned(out + v * width) * Floats(keep);
  }
  for (int i = 0; i < tokens; ++i) {
    const Floats weight(p[i]);
    for (int v = 0; v < Vectors; ++v) {
      acc[v] = mul_add(weight, load<Floats>(values + i * length + v * width), acc[v]);
    }
  }
  for (int v = 0; v < Vectors; ++v) acc[v].store_unaligned(out + v * width);
}

template <typename Floats, typename Storage>
inline void add_all_values(const float* p, const Storage* values, std::int64_t length, int tokens,
                           float keep, float* out) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  std::int64_t j = 0;
  for (; j + 4 * width <= length; j += 4 * width) {
    add_values<Floats, 4>(p, values + j, length, tokens, keep, out + j);
  }
  for (; j + width <= length; j += width) {
    add_values<Floats, 1>(p, values + j, length, tokens, keep, out + j);
  }
  for (; j < length; ++j) {
    add_values<plain_floats<1>, 1>(p, values + j, length, tokens, keep, out + j);
  }
}

struct softmax_state {
  float greatest;  // logit so far
  float sum;       // of exp(logit - greatest)
};

// Turns n logits into weights relative to the greatest logit so far and counts them in; returns
// what earlier weights are to be multiplied by.
template <typename Floats>
inline float online_softmax(softmax_state& state, float* p, int n) {
  float greatest = state.greatest;
  for (int i = 0; i < n; ++i) greatest = p[i] > greatest ? p[i] : greatest;
  const Floats shift(greatest);
  map<Floats>(
      n, p, [&](const Floats& x) { return exp(x - shift); }, static_cast<const float*>(p));
  float lane[8] = {};
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) lane[j] += p[i + j];
  }
  for (int j = 0; i < n; ++i, ++j) lane[j] += p[i];
  const float keep = ::expf(state.greatest - greatest);
  state = {greatest, state.sum * keep + halving_sum(lane)};
  return keep;
}

// See cpu::attend_args; keys and values are arrays of Storage.
template <typename Arch, typename Storage>
void attend(const cpu::attend_args& args) {
  using floats = typename Arch::floats;
  const std::int64_t key_length = args.key_length, value_length = args.value_length;
  // without a sink the first logit is the first greatest: exp(-infinity) = 0 keeps nothing
  softmax_state state = {args.sink ? *args.sink : -__builtin_inff(), args.sink ? 1.0f : 0.0f};
  for (std::int64_t j = 0; j < value_length; ++j) args.out[j] = 0;

  for (std::int64_t page = 0; page < args.n_pages; ++page) {
    const cpu::kv_page& tokens = args.pages[page];
    const auto* keys = static_cast<const Storage*>(tokens.key);
    const auto* values = static_cast<const Storage*>(tokens.value);
    for (std::int64_t first = 0; first < tokens.count; first += attend_block) {
      const int n = static_cast<int>(least<std::int64_t>(attend_block, tokens.count - first));
      float p[attend_block];
      const Storage* const block_keys = keys + first * key_length;
      int i = 0;
      for (; i + 4 <= n; i += 4) {
        query_keys<floats, 4>(args.q, block_keys + i * key_length, key_length, p + i);
      }
      for (; i < n; ++i) {
        query_keys<floats, 1>(args.q, block_keys + i * key_length, key_length, p + i);
      }
      if (args.softcap != 0) {
        const floats cap(args.softcap);
        map<floats>(
            n, p, [&](const floats& x) { return cap * tanh(x / cap); },
            static_cast<const float*>(p));
      }
      const float keep = online_softmax<floats>(state, p, n);
      add_all_values<floats>(p, values + first * value_length, value_length, n, keep, args.out);
    }
  }
  const floats sum(state.sum);
  map<floats>(
      value_length, args.out, [&](const floats& x) { return x / sum; },
      static_cast<const float*>(args.out));
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
