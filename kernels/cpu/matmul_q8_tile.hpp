// Packed weights times the int8 activations of many tokens.
//
// Two strips are unpacked over a stretch of columns into a panel that stays in the nearest cache;
// all tokens then pass it, in tiles of two strips and a few tokens whose integer sums stay in
// registers. Where bytes are multiplied in pairs, codes that need eight bits become 16-bit integers
// in the panel, and the activations beside it, too: vpmaddwd then needs no tricks with signs.
#pragma once

#include <cstdint>

#include "cpu/matmul_q8.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int stretch = 512;  // columns of a panel, a multiple of all blocks
inline constexpr int stretch_units = stretch / unit;

template <typename Arch, typename F>
inline constexpr bool widened = products_of<Arch> == product_kind::pairs&& wide_codes<F>;

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

// What is made once of the sums of a unit's activations: where its integer sums start if the codes
// are biased, or what is multiplied by the offsets.
union unit_term {
  std::int32_t start;    // -bias * sum
  std::int16_t sums[2];  // of its halves, with small_scales
  float x_sum[2];        // scale * sum, of each group
};

// The activations of some tokens as a tile takes them; `q` has `q_stride` bytes a token, in the
// order of the panel's words.
struct tile_activations {
  const std::int8_t* q;
  std::int64_t q_stride;
  const float* scale;
  std::int64_t scale_stride;  // from one token's scales to the next
  const unit_term* terms;     // [tokens, stretch_units]
  std::int64_t terms_stride;

  tile_activations from(std::int64_t token) const {
    return {q + token * q_stride,         q_stride,    scale + token * scale_stride, scale_stride,
            terms + token * terms_stride, terms_stride};
  }
};

template <typename F>
inline int group_sum(const std::int16_t* sums, int g) {
  return unit_groups<F> == 2 ? sums[g] : sums[0] + sums[1];
}

template <typename Arch, typename F>
inline constexpr bool needs_terms = F::has_offset || product_bias<Arch, F> != 0;

// One token's terms for `units` units.
template <typename Arch, typename F>
inline void make_terms(const activations& x, int units, unit_term* to) {
  constexpr int bias = product_bias<Arch, F>;
  static_assert(bias == 0 || !F::has_offset);
  for (int u = 0; u < units; ++u) {
    const std::int16_t* const sums = x.sum + 2 * u;
    if constexpr (F::has_offset) {
      for (int g = 0; g < unit_groups<F>; ++g) {
        to[u].x_sum[g] = x.scale[u] * static_cast<float>(group_sum<F>(sums, g));
      }
    } else if constexpr (bias != 0 && small_scales<F>) {
      std::memcpy(to[u].sums, sums, sizeof to[u].sums);
    } else if constexpr (bias != 0) {
      to[u].start = -bias * group_sum<F>(sums, 0);
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
                           const typename strip<Arch>::i16 (&scale)[Strips],
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
        add_pairs<Arch>(sum[s][t], pairs[s][t], scale[s]);
  }
}

// What the integer sums of unit u start with.
template <typename Arch, typename F, int Strips, int Tokens>
inline void start_sums(const panel<Arch, F, Strips>& p, std::int64_t u, const tile_activations& x,
                       typename strip<Arch>::i32 (&sum)[Strips][Tokens]) {
  using i32 = typename strip<Arch>::i32;
  NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
    const unit_term* const term = x.terms + t * x.terms_stride + u;
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
      if constexpr (product_bias<Arch, F> == 0) {
        sum[s][t] = i32{};
      } else if constexpr (small_scales<F>) {
        sum[s][t] = times_sums<Arch>(p.integers[u][s].start, term->sums);
      } else {
        sum[s][t] = broadcast_word<Arch>(&term->start);
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
    typename lanes::i16 scale[Strips];
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
      scale[s] = 1 - typename lanes::i16{};
      if constexpr (small_scales<F>) scale[s] = p.integers[u][s].scale[g];
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

// out[t][s] (+)= panel . x[t] for a tile; out: [Tokens, Strips * rows], `stride` floats apart.
template <typename Arch, typename F, int Strips, int Tokens>
inline void multiply_tile(const panel<Arch, F, Strips>& p, int units, const tile_activations& x,
                          bool accumulate, float* out, std::int64_t stride) {
  using lanes = strip<Arch>;
  constexpr int groups = unit_groups<F>;
  typename lanes::f32 acc[Strips][Tokens];
  NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
      acc[s][t] = accumulate ? read<typename lanes::f32>(out + t * stride + s * lanes::rows)
                             : broadcast<Arch>(0);
    }
  }
  for (std::int64_t u = 0; u < units; ++u) {
    typename lanes::i32 sum[Strips][Tokens];
    start_sums<Arch, F>(p, u, x, sum);
    NIBBLE_UNROLL for (int g = 0; g < groups; ++g) add_unit_group<Arch, F>(p, u, g, x, sum);
    NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
      const auto xs = broadcast<Arch>(x.scale[t * x.scale_stride + u]);
      NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
        add_unit<Arch>(sum[s][t], p.scale[u][s], xs, acc[s][t]);
      }
      if constexpr (F::has_offset) {
        NIBBLE_UNROLL for (int g = 0; g < groups; ++g) {
          const auto x_sum = broadcast<Arch>(x.terms[t * x.terms_stride + u].x_sum[g]);
          NIBBLE_UNROLL for (int s = 0; s < Strips; ++s) {
            add_offset<Arch>(p.offset[u][g][s], x_sum, acc[s][t]);
          }
        }
      }
    }
  }
  NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
    NIBBLE_UNROLL for (int s = 0; s < Strips; ++s)
        write(out + t * stride + s * lanes::rows, acc[s][t]);
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
  alignas(64) unit_term terms[needs_terms<Arch, F> ? token_block<Arch, F> : 1][stretch_units];
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
      tile_activations y{a.q,          x.columns, a.scale, x.columns / unit, scratch.terms[0],
                         stretch_units};
      for (std::int64_t i = 0; i < some && needs_terms<Arch, F>; ++i) {
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
  constexpr std::int64_t few = 8;
  if (tokens <= few) {
    multiply_few<Arch, F>(rows, x, tokens, out);
  } else {
    multiply_many<Arch, F>(rows, x, tokens, out, scratch);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
