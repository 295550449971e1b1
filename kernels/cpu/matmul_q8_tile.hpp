// Packed weights times the int8 activations of many tokens.
//
// Two strips are unpacked over a stretch of columns into a panel that stays in the nearest cache;
// all tokens then pass it, in tiles of two strips and a few tokens whose integer sums stay in
// registers. Where bytes are multiplied in pairs, codes that need eight bits become 16-bit integers
// in the panel, and the activations beside it, too: vpmaddwd then needs no tricks with signs.
#pragma once

#include <bit>
#include <cstdint>

#include "cpu/matmul_q8.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int stretch_units = stretch / unit;

template <typename Arch, typename F>
inline constexpr bool widened = products_of<Arch> == product_kind::pairs&& wide_codes<F>;

// Whether sums of pairs are multiplied by the scales of the activations as integers, on their way
// to 32 bits.
template <typename Arch, typename F>
inline constexpr bool integer_scales =
    products_of<Arch> == product_kind::pairs && !wide_codes<F> && !small_scales<F>;

// Tokens that pass a panel while it is there; fewer of those that take two bytes.
template <typename Arch, typename F>
inline constexpr std::int64_t token_block = widened<Arch, F> ? 64 : 128;

// The sums of a tile, and what is multiplied, fit the registers.
template <typename Arch>
inline constexpr int strip_registers = strip<Arch>::bytes /
                                       static_cast<int>(sizeof(typename Arch::floats));
template <typename Arch>
inline constexpr int tile_strips = strip_registers<Arch> == 1 ? 2 : 1;
template <typename Arch>
inline constexpr int tile_tokens = vector_registers<typename Arch::floats> == 32 ? 8 : 4;

// Signed bytes, four to a lane -> columns 0 and 2 of each lane, columns 1 and 3, in 16 bits.
template <typename Bytes>
inline void widen(const Bytes& from, Bytes& even, Bytes& odd) {
  using i16 = typename vector_type<std::int16_t, sizeof from>::type;
  even = reinterpret_cast<Bytes>((reinterpret_cast<i16>(from) << 8) >> 8);
  odd = reinterpret_cast<Bytes>(reinterpret_cast<i16>(from) >> 8);
}

// A stretch of `Strips` strips.
template <typename Arch, typename F, int Strips>
struct alignas(64) panel {
  using lanes = strip<Arch>;
  static constexpr int words = widened<Arch, F> ? 2 * unit_words : unit_words;
  static constexpr int groups = unit_groups<F>;

  typename lanes::u8 codes[stretch_units][Strips][words];
  typename lanes::f32 scale[stretch_units][Strips];
  typename lanes::f32 offset[F::has_offset ? stretch_units : 1][groups][Strips];
  // of formats that have them
  struct no_integers {};
  std::conditional_t<small_scales<F>, unit_integers<Arch, F>, no_integers>
      integers[small_scales<F> ? stretch_units : 1][Strips];

  // first: a multiple of the block size; n: columns
  void fill(const unsigned char* packed, std::size_t strip_bytes, std::int64_t first, int n) {
    constexpr std::size_t block_bytes = sizeof(typename F::block) * lanes::rows;
    for (int s = 0; s < Strips; ++s, packed += strip_bytes) {
      const unsigned char* from =
          packed + static_cast<std::size_t>(first / F::block_size) * block_bytes;
      for (int u = 0; u < n / unit; from += block_bytes) {
        const strip_block<Arch, F> block{from};
        const auto scales = read_block_scales(block);
        NIBBLE_UNROLL_UNITS for (int i = 0; i < F::block_size / unit; ++i, ++u)
            fill_unit(block, scales, i, u, s);
      }
    }
  }

 private:
  // Unit `from` of the block becomes unit `to` of the panel.
  void fill_unit(const strip_block<Arch, F>& block, const block_scales<Arch>& scales, int from,
                 int to, int s) {
    typename lanes::u8 c[unit_words];
    unit_codes(block, from, c);
    to_product_codes<Arch, F>(c);
    NIBBLE_UNROLL for (int w = 0; w < unit_words; ++w) {
      if constexpr (widened<Arch, F>) {
        widen(c[w], codes[to][s][w], codes[to][s][unit_words + w]);
      } else {
        codes[to][s][w] = c[w];
      }
    }
    scale[to][s] = unit_scale(block, scales, from);
    if constexpr (small_scales<F>) integers[to][s] = {block, from};
    NIBBLE_UNROLL for (int g = 0; g < groups; ++g) {
      if constexpr (F::has_offset)
        offset[to][g][s] = group_offset(block, scales, groups * from + g);
    }
  }
};

// What is made once of the scales and the sums of a token's activations in a stretch.
struct stretch_terms {
  // scales: as numbers, or with integer_scales how many steps, in both halves
  union {
    float scale[stretch_units];
    std::int32_t steps[stretch_units];
  };
  // where integer sums start if the codes are biased, or what is multiplied by the offsets
  union {
    std::int32_t start[stretch_units];  // -bias * sum, times steps with integer_scales
    std::int32_t sums[stretch_units];   // of the halves of a unit, 16 bits each, with small_scales
    float x_sum[2][stretch_units];      // scale (or steps) * sum, of each group
  };
  float step;  // what is multiplied at the end of the stretch
};

// The activations of some tokens as a tile takes them; `q` has `q_stride` bytes a token, in the
// order of the panel's words.
struct tile_activations {
  const std::int8_t* q;
  std::int64_t q_stride;
  const stretch_terms* terms;  // [tokens]

  tile_activations from(std::int64_t token) const {
    return {q + token * q_stride, q_stride, terms + token};
  }
};

// The power of two whose multiples by less than 2^13 the scales are; a NaN if any of them is. Below
// 2^-100, where quantise_q8 has only zeros, they count as none.
inline float common_step(const float* scale, int n) {
  std::int32_t most = 0;  // numbers that are not negative compare as integers
  for (int i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::int32_t>(scale[i]);
    most = bits > most ? bits : most;
  }
  if (most < std::bit_cast<std::int32_t>(0x1p-100f)) return 1;
  const float power = std::bit_cast<float>(most & 0x7f800000);
  return most < 0x7f800000 ? power * 0x1p-12f : std::bit_cast<float>(0x7fc00000);
}

// One token's terms for `units` units.
//
// With integer_scales a sum of 32 products of codes up to 31 is at most 32 * 31 * 127 = 125,984,
// times 8191 steps less than 2^30, and where it starts, with a bias of at most 16, less than 2^30
// as well.
template <typename Arch, typename F>
inline void make_terms(const activations& x, int units, stretch_terms& to) {
  constexpr int bias = product_bias<Arch, F>;
  static_assert(bias == 0 || !F::has_offset);
  static_assert(!integer_scales<Arch, F> || (F::max_code - F::min_code <= 31 && bias <= 16));
  std::int32_t sums[stretch_units];
  std::memcpy(sums, x.sum, sizeof *sums * static_cast<std::size_t>(units));
  if constexpr (integer_scales<Arch, F>) {
    to.step = common_step(x.scale, units);
    const float factor = to.step == to.step ? 1 / to.step : 0;
    for (int u = 0; u < units; ++u) {
      const float scale = to.step == to.step ? x.scale[u] * factor : 0;
      const auto steps = static_cast<std::int32_t>(scale);
      const std::int32_t sum = (sums[u] << 16 >> 16) + (sums[u] >> 16);
      to.steps[u] = steps << 16 | steps;
      if constexpr (F::has_offset) {
        to.x_sum[0][u] = scale * static_cast<float>(sum);
      } else {
        to.start[u] = -bias * sum * steps;
      }
    }
    return;
  }
  for (int u = 0; u < units; ++u) {
    const std::int32_t low = sums[u] << 16 >> 16, high = sums[u] >> 16;
    to.scale[u] = x.scale[u];
    if constexpr (F::has_offset && unit_groups<F> == 2) {
      to.x_sum[0][u] = x.scale[u] * static_cast<float>(low);
      to.x_sum[1][u] = x.scale[u] * static_cast<float>(high);
    } else if constexpr (F::has_offset) {
      to.x_sum[0][u] = x.scale[u] * static_cast<float>(low + high);
    } else if constexpr (small_scales<F>) {
      to.sums[u] = sums[u];
    } else {
      to.start[u] = -bias * (low + high);
    }
  }
}

// Words [first, first + n) of a unit for all strips and tokens: sum[s][t] += codes . x, in 32 bits.
template <typename Arch, typename F, int Strips, int Tokens>
inline void add_words(const typename strip<Arch>::u8* codes, const tile_activations& x,
                      std::int64_t unit_at, int first, int n,
                      typename strip<Arch>::i32 (&sum)[Strips][Tokens]) {
  using dot = byte_products<Arch>;
  using lanes = strip<Arch>;
  constexpr int words = panel<Arch, F, Strips>::words;
  NIBBLE_UNROLL for (int w = 0; w < n; ++w) {
    typename lanes::u8 c[Strips];
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) c[s] = codes[s * words + first + w];
    NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
      const auto y = broadcast_word<Arch>(x.q + t * x.q_stride + 4 * (unit_at * words + first + w));
      NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
        if constexpr (widened<Arch, F>) {
          sum[s][t] += dot::multiply_pairs(reinterpret_cast<typename lanes::i16>(c[s]),
                                           reinterpret_cast<typename lanes::i16>(y));
        } else {
          sum[s][t] = dot::add(sum[s][t], c[s], y);
        }
        pin<Arch>(sum[s][t]);
      }
    }
  }
}

// The same where pairs of products are added in 16 bits; n: pairs_in_16_bits().
template <typename Arch, typename F, int Strips, int Tokens>
inline void add_word_pairs(const typename strip<Arch>::u8* codes, const tile_activations& x,
                           std::int64_t unit_at, int first, int n,
                           const typename strip<Arch>::i16 (&scale)[Strips][Tokens],
                           typename strip<Arch>::i32 (&sum)[Strips][Tokens]) {
  using dot = byte_products<Arch>;
  using lanes = strip<Arch>;
  typename lanes::i16 pairs[Strips][Tokens];
  NIBBLE_UNROLL for (int w = 0; w < n; ++w) {
    typename lanes::u8 c[Strips];
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) c[s] = codes[s * unit_words + first + w];
    NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
      const auto y =
          broadcast_word<Arch>(x.q + t * x.q_stride + 4 * (unit_at * unit_words + first + w));
      NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
        const auto product = dot::multiply(c[s], y);
        pairs[s][t] = w == 0 ? product : pairs[s][t] + product;
        pin<Arch>(pairs[s][t]);
      }
    }
  }
  NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) sum[s][t] =
        add_pairs<Arch>(sum[s][t], pairs[s][t], scale[s][t]);
  }
}

// What the integer sums of unit u start with.
template <typename Arch, typename F, int Strips, int Tokens>
inline void start_sums(const panel<Arch, F, Strips>& p, std::int64_t u, const tile_activations& x,
                       typename strip<Arch>::i32 (&sum)[Strips][Tokens]) {
  using i32 = typename strip<Arch>::i32;
  NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
    const stretch_terms& terms = x.terms[t];
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
      if constexpr (product_bias<Arch, F> == 0) {
        sum[s][t] = i32{};
      } else if constexpr (small_scales<F>) {
        sum[s][t] = times_sums<Arch>(p.integers[u][s].start, &terms.sums[u]);
      } else {
        sum[s][t] = broadcast_word<Arch>(&terms.start[u]);
      }
    }
  }
}

// Group g of unit u: sum[s][t] += scale * codes . x
template <typename Arch, typename F, int Strips, int Tokens>
inline void add_unit_group(const panel<Arch, F, Strips>& p, std::int64_t u, int g,
                           const tile_activations& x,
                           typename strip<Arch>::i32 (&sum)[Strips][Tokens]) {
  using lanes = strip<Arch>;
  constexpr int n = panel<Arch, F, Strips>::words / unit_groups<F>;
  const auto* const codes = &p.codes[u][0][0];
  if constexpr (products_of<Arch> == product_kind::pairs && !widened<Arch, F>) {
    typename lanes::i16 scale[Strips][Tokens];
    NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
      const auto steps =
          reinterpret_cast<typename lanes::i16>(broadcast_word<Arch>(&x.terms[t].steps[u]));
      NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
        scale[s][t] = steps;
        if constexpr (small_scales<F>) scale[s][t] = p.integers[u][s].scale[g];
      }
    }
    constexpr int run = least(pairs_in_16_bits<F>(), n);
    NIBBLE_UNROLL for (int w = 0; w < n; w += run) {
      add_word_pairs<Arch, F>(codes, x, u, g * n + w, run, scale, sum);
    }
  } else if constexpr (small_scales<F>) {
    typename lanes::i32 own[Strips][Tokens] = {};
    add_words<Arch, F>(codes, x, u, g * n, n, own);
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
      NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) sum[s][t] +=
          own[s][t] * p.integers[u][s].scale[g];
    }
  } else {
    add_words<Arch, F>(codes, x, u, g * n, n, sum);
  }
}

// acc[s][t] += scale * sum, and the offsets of unit u.
template <typename Arch, typename F, int Strips, int Tokens>
inline void add_unit_to_tile(const panel<Arch, F, Strips>& p, std::int64_t u,
                             const tile_activations& x,
                             const typename strip<Arch>::i32 (&sum)[Strips][Tokens],
                             typename strip<Arch>::f32 (&acc)[Strips][Tokens]) {
  NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
    const stretch_terms& terms = x.terms[t];
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
      auto product = to_floats<Arch>(sum[s][t]);
      if constexpr (!integer_scales<Arch, F>) product *= broadcast<Arch>(terms.scale[u]);
      add_unit<Arch>(product, p.scale[u][s], acc[s][t]);
    }
    if constexpr (F::has_offset) {
      NIBBLE_UNROLL for (int g = 0; g < unit_groups<F>; ++g) {
        const auto x_sum = broadcast<Arch>(terms.x_sum[g][u]);
        NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
          add_offset<Arch>(p.offset[u][g][s], x_sum, acc[s][t]);
        }
      }
    }
  }
}

// out[t][s] (+)= panel . x[t] for a tile; out: [Tokens, Strips * rows], `stride` floats apart.
template <typename Arch, typename F, int Strips, int Tokens>
inline void multiply_tile(const panel<Arch, F, Strips>& p, int units, const tile_activations& x,
                          bool accumulate, float* out, std::int64_t stride) {
  using lanes = strip<Arch>;
  typename lanes::f32 acc[Strips][Tokens] = {};
  for (std::int64_t u = 0; u < units; ++u) {
    typename lanes::i32 sum[Strips][Tokens];
    start_sums<Arch, F>(p, u, x, sum);
    NIBBLE_UNROLL for (int g = 0; g < unit_groups<F>; ++g) {
      add_unit_group<Arch, F>(p, u, g, x, sum);
    }
    add_unit_to_tile<Arch, F>(p, u, x, sum, acc);
  }
  NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
      float* const to = out + t * stride + s * lanes::rows;
      if constexpr (integer_scales<Arch, F>) acc[s][t] *= broadcast<Arch>(x.terms[t].step);
      if (accumulate) acc[s][t] += read<typename lanes::f32>(to);
      write(to, acc[s][t]);
    }
  }
}

// Packed bytes that are wanted next, brought near bit by bit while tiles are computed: of `strips`
// runs of `bytes`, `stride` apart, all within `times` calls of go_on().
class fetch_plan {
 public:
  fetch_plan(const unsigned char* from, std::size_t bytes, std::size_t stride, int strips,
             std::int64_t times)
      : from_(from), bytes_(bytes), stride_(stride), strips_(strips) {
    const auto lines = static_cast<std::int64_t>(bytes / 64 + 1) * strips;
    lines_ = static_cast<int>(lines / times + 1);
  }
  void go_on() {
    for (int i = 0; i < lines_ && strips_ > 0; ++i) {
      __builtin_prefetch(from_ + at_, 0, 2);
      at_ += 64;
      if (at_ < bytes_) continue;
      at_ = 0;
      from_ += stride_;
      --strips_;
    }
  }

 private:
  const unsigned char* from_;
  std::size_t bytes_, stride_, at_ = 0;
  int strips_, lines_;
};

// All tokens of a block, in tiles of `Tokens` and of fewer at the end.
template <typename Arch, typename F, int Strips, int Tokens>
inline void multiply_tiles(const panel<Arch, F, Strips>& p, int units, const tile_activations& x,
                           std::int64_t first, std::int64_t tokens, bool accumulate, float* out,
                           std::int64_t stride, fetch_plan& next) {
  for (; first + Tokens <= tokens; first += Tokens) {
    next.go_on();
    multiply_tile<Arch, F, Strips, Tokens>(p, units, x.from(first), accumulate,
                                           out + first * stride, stride);
  }
  if constexpr (Tokens > 1) {
    multiply_tiles<Arch, F, Strips, Tokens / 2>(p, units, x, first, tokens, accumulate, out, stride,
                                                next);
  }
}

// What many tokens need of memory.
template <typename Arch, typename F>
struct tile_scratch {
  alignas(64) unsigned char panels[sizeof(panel<Arch, F, tile_strips<Arch>>)];
  // results of a strip with fewer rows
  alignas(64) float edge[token_block<Arch, F>][tile_strips<Arch> * strip_rows<Arch>];
  alignas(64) stretch_terms terms[token_block<Arch, F>];
  // activations in 16 bits
  alignas(64) std::int8_t wide[widened<Arch, F> ? token_block<Arch, F> * 2 * stretch : 1];
};

// Activations as the panel has widened codes: of a unit the even columns, then the odd ones.
inline void widen_activations(const std::int8_t* from, std::int64_t stride, std::int64_t tokens,
                              int n, std::int8_t* to) {
  using bytes = vector_type<std::uint8_t, unit>::type;
  for (std::int64_t t = 0; t < tokens; ++t, from += stride, to += 2 * stretch) {
    for (int i = 0; i < n; i += unit) {
      bytes even, odd;
      widen(read<bytes>(from + i), even, odd);
      write(to + 2 * i, even);
      write(to + 2 * i + unit, odd);
    }
  }
}

// One or two strips over one stretch, for a block of tokens.
template <typename Arch, typename F, int Strips>
inline void multiply_strips(const unsigned char* packed, std::size_t strip_bytes,
                            std::int64_t n_rows, std::int64_t first, int n,
                            const tile_activations& x, std::int64_t tokens, bool accumulate,
                            float* out, std::int64_t stride, tile_scratch<Arch, F>& scratch) {
  constexpr std::int64_t all = Strips * strip_rows<Arch>;
  auto& p = *reinterpret_cast<panel<Arch, F, Strips>*>(scratch.panels);
  p.fill(packed, strip_bytes, first, n);
  const bool whole = n_rows >= all;
  float* const to = whole ? out : scratch.edge[0];
  const std::int64_t to_stride = whole ? stride : tile_strips<Arch> * strip_rows<Arch>;
  const auto bytes = static_cast<std::size_t>(n_rows) * sizeof(float);
  for (std::int64_t t = 0; t < tokens && !whole && accumulate; ++t) {
    std::memcpy(scratch.edge[t], out + t * stride, bytes);
  }
  // the strips after these, most likely
  constexpr std::size_t block_bytes = sizeof(typename F::block) * strip_rows<Arch>;
  fetch_plan next(
      packed + Strips * strip_bytes + static_cast<std::size_t>(first / F::block_size) * block_bytes,
      static_cast<std::size_t>(n / F::block_size) * block_bytes, strip_bytes, Strips,
      tokens / tile_tokens<Arch> + 1);
  multiply_tiles<Arch, F, Strips, tile_tokens<Arch>>(p, n / unit, x, 0, tokens, accumulate, to,
                                                     to_stride, next);
  for (std::int64_t t = 0; t < tokens && !whole; ++t) {
    std::memcpy(out + t * stride, scratch.edge[t], bytes);
  }
}

template <typename Arch, typename F>
inline void multiply_many(const cpu::packed_rows& rows, const cpu::q8_matrix& x,
                          std::int64_t tokens, const cpu::product_output& out, void* memory) {
  static_assert(sizeof(tile_scratch<Arch, F>) <= cpu::product_scratch_bytes);
  auto& scratch = *static_cast<tile_scratch<Arch, F>*>(memory);
  constexpr std::int64_t all = strip_rows<Arch>;
  const auto* const packed = static_cast<const unsigned char*>(rows.data);
  const auto strip_bytes =
      static_cast<std::size_t>(x.columns / F::block_size * all) * sizeof(typename F::block);
  constexpr std::int64_t block = token_block<Arch, F>;
  for (std::int64_t t = 0; t < tokens; t += block) {
    const std::int64_t some = least(block, tokens - t);
    for (std::int64_t first = 0; first < x.columns; first += stretch) {
      const int n = static_cast<int>(least<std::int64_t>(stretch, x.columns - first));
      const activations a = token_of(x, t, first);
      tile_activations y{a.q, x.columns, scratch.terms};
      for (std::int64_t i = 0; i < some; ++i) {
        make_terms<Arch, F>(token_of(x, t + i, first), n / unit, scratch.terms[i]);
      }
      if constexpr (widened<Arch, F>) {
        widen_activations(a.q, x.columns, some, n, scratch.wide);
        y.q = scratch.wide;
        y.q_stride = 2 * stretch;
      }
      const bool accumulate = out.accumulate || first > 0;
      for (std::int64_t r = 0; r < rows.count;) {
        const auto* const from = packed + static_cast<std::size_t>(r / all) * strip_bytes;
        float* const to = out.data + t * out.stride + r;
        const std::int64_t left = rows.count - r;
        if (tile_strips<Arch> == 1 || left <= all) {
          multiply_strips<Arch, F, 1>(from, strip_bytes, left, first, n, y, some, accumulate, to,
                                      out.stride, scratch);
          r += all;
        } else {
          multiply_strips<Arch, F, tile_strips<Arch>>(from, strip_bytes, left, first, n, y, some,
                                                      accumulate, to, out.stride, scratch);
          r += tile_strips<Arch> * all;
        }
      }
    }
  }
}

// See cpu::matmul_q8_fn.
template <typename Arch, typename F>
void matmul_q8(const cpu::packed_rows& rows, const cpu::q8_matrix& x, std::int64_t tokens,
               const cpu::product_output& out, void* scratch) {
  if (tokens <= cpu::few_tokens) {
    multiply_few<Arch, F>(rows, x, tokens, out);
  } else {
    multiply_many<Arch, F>(rows, x, tokens, out, scratch);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
