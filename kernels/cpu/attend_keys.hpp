// Logits: queries times the keys of a block.
//
// Keys that are floats meet the queries' floats. Integer codes meet queries that have been rounded
// to 16 bits, with one scale each: off by 2^-16 of the greatest value, a hundredth of what eight
// bits lose of the keys. The sum over a row, or over the 32 values of a scale, is exact then:
// codes are in [-128, 127], queries in [-32767, 32767], and 512 products come to no more than
// 128 * 32767 * 512 = 2^31 - 2^16.
#pragma once

#include <bit>
#include <cstdint>

#include "cpu/attend_block.hpp"
#include "cpu/code_words.hpp"
#include "cpu/kv_rows.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Tokens of a tile, whose sums fill half of the registers.
template <typename Floats, int Queries>
inline constexpr int attend_tokens = least(vector_registers<Floats> / 2 / Queries, 8);

// p[q][t] = q[q] . keys[t] for Tokens tokens from t on.
template <typename Floats, int Queries, int Tokens, typename Storage>
inline void query_keys(const float* const (&query)[Queries], const Storage* keys,
                       std::int64_t length, float* p) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  Floats acc[Queries * Tokens];
  NIBBLE_UNROLL for (Floats& a : acc) a = Floats(0.0f);
  std::int64_t j = 0;
  for (; j + width <= length; j += width) {
    Floats k[Tokens];
    NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
      k[t] = load<Floats>(keys + t * length + j);
    }
    NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
      const Floats x = Floats::load_unaligned(query[q] + j);
      NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
        acc[q * Tokens + t] = mul_add(x, k[t], acc[q * Tokens + t]);
      }
    }
  }
  if (j < length) {
    NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
      const Floats x = load_part<Floats>(query[q] + j, length - j);
      NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
        acc[q * Tokens + t] =
            mul_add(x, load_part<Floats>(keys + t * length + j, length - j), acc[q * Tokens + t]);
      }
    }
  }
  float sums[Queries * Tokens];
  lane_sums(acc, sums);
  NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
    std::memcpy(p + q * attend_block, sums + q * Tokens, Tokens * sizeof(float));
  }
}

template <typename Floats, typename Storage>
inline void float_logits(const seen_block& block, const Storage* keys, bool turned) {
  const std::int64_t length = block.args().key_length;
  block.by_fours([&]<int Queries>(std::integral_constant<int, Queries>, int first) {
    constexpr int tokens = attend_tokens<Floats, Queries>;
    const float* query[Queries];
    for (int q = 0; q < Queries; ++q) {
      const cpu::attend_query& from = block.args().queries[first + q];
      query[q] = turned ? from.q_turned : from.q;
    }
    float* const p = block.weights(first);
    const seen_tokens seen = block.seen(first);
    int t = seen.begin;
    for (; t + tokens <= seen.end; t += tokens) {
      query_keys<Floats, Queries, tokens>(query, keys + t * length, length, p + t);
    }
    for (; t < seen.end; ++t) {
      query_keys<Floats, Queries, 1>(query, keys + t * length, length, p + t);
    }
  });
}

// n values to 16 bits in the order of `type`'s codes, and zeros up to a multiple of 32; returns the
// scale.
inline float make_query_codes(const float* __restrict x, std::int64_t n, row_type type,
                              std::int16_t* __restrict words) {
  constexpr float negligible = 0x1p-100f;  // times any key that can be stored
  const std::int32_t bits = extremes_of(x, n).magnitude;
  const float greatest = std::bit_cast<float>(bits);
  const std::int64_t padded = (n + 31) / 32 * 32;
  if (!finite_magnitude(bits) || greatest < negligible) {
    std::memset(words, 0, static_cast<std::size_t>(padded) * sizeof *words);
    return std::bit_cast<float>(finite_magnitude(bits) ? 0 : 0x7fc00000);
  }
  const float inverse = 32767.0f / greatest;
  const auto code = [&](std::int64_t i) {
    const float shifted = x[i] * inverse + round_by;
    return static_cast<std::int16_t>(std::bit_cast<std::int32_t>(shifted) - 0x4b400000);
  };
  const std::int64_t whole = n / 32 * 32, rest = n - whole;
  for (std::int64_t i = 0; i < whole; ++i) words[i] = code(i);
  if (rest > 0) {
    std::memset(words + whole, 0, 32 * sizeof *words);
    const std::int64_t half_rest = four_bits(type) ? rest / 2 : rest;
    for (std::int64_t i = 0; i < rest; ++i) {
      words[whole + (i < half_rest ? i : 16 + i - half_rest)] = code(whole + i);
    }
  }
  return greatest / 32767.0f;
}

// Rows of codes as words, by groups of 32; rest(): what is left of them.
struct byte_keys {
  static constexpr bool filled_up = false;
  const std::int8_t* codes;
  std::int64_t length;

  void group(std::int64_t t, std::int64_t g, word_vector (&out)[group_words]) const {
    widen_group(codes + t * length + g * 32, out);
  }
  void rest(std::int64_t t, word_vector (&out)[group_words]) const {
    const std::int64_t at = length / 32 * 32;
    widen_rest(codes + t * length + at, static_cast<int>(length - at), out);
  }
};
struct nibble_keys {
  static constexpr bool filled_up = false;
  const std::uint8_t* codes;
  std::int64_t length;

  void group(std::int64_t t, std::int64_t g, word_vector (&out)[group_words]) const {
    unpack_group(codes + t * length / 2 + g * 16, out);
  }
  void rest(std::int64_t t, word_vector (&out)[group_words]) const {
    const std::int64_t at = length / 32 * 32;
    unpack_rest(codes + (t * length + at) / 2, static_cast<int>(length - at) / 2, out);
  }
};
// Unpacked already, with what fills them up.
struct word_keys {
  static constexpr bool filled_up = true;
  const std::int16_t* codes;
  std::int64_t length;

  void group(std::int64_t t, std::int64_t g, word_vector (&out)[group_words]) const {
    NIBBLE_UNROLL for (int i = 0; i < group_words; ++i) {
      out[i] = load_words(codes + t * length + g * 32 + i * word_lanes);
    }
  }
};

// Sums of a tile. Of whole rows: integers. By groups: each lane's sum of a group becomes a float
// and is multiplied by the group's scale.
template <typename Floats, int Queries, int Tokens, bool Grouped>
struct tile_sums {
  static constexpr int n = Queries * Tokens;
  word_sums whole[Grouped ? 1 : n];
  Floats scaled[Grouped ? n : 1];

  tile_sums() {
    NIBBLE_UNROLL for (word_sums& s : whole) s = no_sums();
    NIBBLE_UNROLL for (Floats& s : scaled) s = Floats(0.0f);
  }

  // A group of one token's codes; query: the group's words of the first query.
  __attribute__((always_inline)) void add(int t, const word_vector (&key)[group_words],
                                          const std::int16_t* query, std::int64_t stride,
                                          const float* scale) {
    NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
      word_sums sum = no_sums();
      if constexpr (!Grouped) sum = whole[q * Tokens + t];
      NIBBLE_UNROLL for (int i = 0; i < group_words; ++i) {
        sum = add_products(sum, key[i], load_words(query + q * stride + i * word_lanes));
      }
      if constexpr (Grouped) {
        Floats& to = scaled[q * Tokens + t];
        to = mul_add(floats_of_sums<Floats>(sum), Floats(*scale), to);
      } else {
        whole[q * Tokens + t] = sum;
      }
    }
  }

  void finish(float (&sums)[n]) const {
    if constexpr (Grouped) {
      lane_sums(scaled, sums);
    } else {
      word_lane_sums(whole, sums);
    }
  }
};

// p[q][t] for Tokens tokens from t on, without what is multiplied by later; scales: of token t's
// groups.
template <typename Floats, int Queries, int Tokens, bool Grouped, typename Keys>
inline void query_codes(const std::int16_t* query, std::int64_t stride, const Keys& keys,
                        const float* scales, std::int64_t t, float* p) {
  const std::int64_t groups = keys.length / 32, all = (keys.length + 31) / 32;
  tile_sums<Floats, Queries, Tokens, Grouped> tile;
  std::int64_t g = 0;
  for (; g < groups; ++g) {
    NIBBLE_UNROLL for (int i = 0; i < Tokens; ++i) {
      word_vector key[group_words];
      keys.group(t + i, g, key);
      tile.add(i, key, query + g * 32, stride, scales + i * all + g);
    }
  }
  if constexpr (!Keys::filled_up) {
    for (; g < all; ++g) {
      NIBBLE_UNROLL for (int i = 0; i < Tokens; ++i) {
        word_vector key[group_words];
        keys.rest(t + i, key);
        tile.add(i, key, query + g * 32, stride, scales + i * all + g);
      }
    }
  }
  float sums[Queries * Tokens];
  tile.finish(sums);
  NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
    std::memcpy(p + q * attend_block, sums + q * Tokens, Tokens * sizeof(float));
  }
}

template <typename Floats, bool Grouped, typename Keys>
inline void code_products(const seen_block& block, const Keys& keys, const float* scales,
                          const std::int16_t* queries) {
  const std::int64_t stride = block.space().key_words, groups = (keys.length + 31) / 32;
  block.by_fours([&]<int Queries>(std::integral_constant<int, Queries>, int first) {
    constexpr int tokens = attend_tokens<Floats, Queries>;
    const std::int16_t* const query = queries + first * stride;
    float* const p = block.weights(first);
    const seen_tokens seen = block.seen(first);
    int t = seen.begin;
    for (; t + tokens <= seen.end; t += tokens) {
      query_codes<Floats, Queries, tokens, Grouped>(query, stride, keys, scales + t * groups, t,
                                                    p + t);
    }
    for (; t < seen.end; ++t) {
      query_codes<Floats, Queries, 1, Grouped>(query, stride, keys, scales + t * groups, t, p + t);
    }
  });
}

// Rows [seen] as words with what fills them up.
template <typename Keys>
inline word_keys unpack_keys(const Keys& keys, seen_tokens seen, std::int16_t* to) {
  const std::int64_t groups = keys.length / 32, all = (keys.length + 31) / 32;
  for (int t = seen.begin; t < seen.end; ++t) {
    for (std::int64_t g = 0; g < all; ++g) {
      word_vector key[group_words];
      if (g < groups) {
        keys.group(t, g, key);
      } else {
        keys.rest(t, key);
      }
      NIBBLE_UNROLL for (int i = 0; i < group_words; ++i) {
        store_words(to + (t * all + g) * 32 + i * word_lanes, key[i]);
      }
    }
  }
  return {to, all * 32};
}

template <typename Floats, row_type Type>
inline void code_logits(const seen_block& block, const cpu::kv_rows& rows, bool turned) {
  const std::int64_t length = block.args().key_length;
  const attend_scratch& space = block.space();
  float* const scales = block.scratch(space.scales);
  scales_as_floats<Floats>(rows.scales, scales_of_row(Type, length), block.all(), scales);
  const auto* queries = reinterpret_cast<const std::int16_t*>(block.scratch(space.codes));
  if (turned) queries += cpu::attend_queries * space.key_words;
  using stored_keys = std::conditional_t<four_bits(Type), nibble_keys, byte_keys>;
  const stored_keys keys{static_cast<decltype(stored_keys::codes)>(rows.codes), length};
  if (block.few()) {  // who uses a row once need not keep it
    code_products<Floats, grouped(Type)>(block, keys, scales, queries);
  } else {
    auto* const unpacked = reinterpret_cast<std::int16_t*>(block.scratch(space.rows));
    code_products<Floats, grouped(Type)>(block, unpack_keys(keys, block.all(), unpacked), scales,
                                         queries);
  }
  const float* const query_scales =
      block.scratch(space.code_scales) + (turned ? cpu::attend_queries : 0);
  block.each([&](int q, float* p, seen_tokens seen) {
    const Floats scale(query_scales[q]);
    const float* const from = p + seen.begin;
    const int n = seen.end - seen.begin;
    if constexpr (grouped(Type)) {
      map<Floats>(
          n, p + seen.begin, [&](const Floats& x) { return x * scale; }, from);
    } else {
      map<Floats>(
          n, p + seen.begin, [&](const Floats& x, const Floats& s) { return x * (s * scale); },
          from, static_cast<const float*>(scales + seen.begin));
    }
  });
}

// Makes what code_logits() needs of the queries.
inline void round_queries(const cpu::attend_args& args) {
  const auto type = static_cast<row_type>(args.key_type);
  if (!has_codes(type)) return;
  const attend_scratch space(args.key_length, args.value_length);
  auto* codes = reinterpret_cast<std::int16_t*>(args.scratch + space.codes);
  float* scales = args.scratch + space.code_scales;
  for (const bool turned : {false, true}) {
    for (int i = 0; i < args.n_queries; ++i) {
      const float* const q = turned ? args.queries[i].q_turned : args.queries[i].q;
      if (q) scales[i] = make_query_codes(q, args.key_length, type, codes + i * space.key_words);
    }
    codes += cpu::attend_queries * space.key_words;
    scales += cpu::attend_queries;
  }
}

// The logits of all queries for what they see of a block, whose keys are `rows`.
template <typename Floats>
inline void make_logits(const seen_block& block, const cpu::kv_rows& rows, bool turned) {
  const auto floats = [&]<typename Storage>(const Storage* keys) {
    if (block.few()) return float_logits<Floats>(block, keys, turned);
    float* const to = block.scratch(block.space().rows);
    float_logits<Floats>(
        block, rows_as_floats<Floats>(keys, block.args().key_length, block.all(), to), turned);
  };
  switch (static_cast<row_type>(block.args().key_type)) {
    case row_type::f32:
      return floats(static_cast<const float*>(rows.codes));
    case row_type::f16:
      return floats(static_cast<const half*>(rows.codes));
    case row_type::bf16:
      return floats(static_cast<const bfloat16*>(rows.codes));
    case row_type::q8_0:
      return code_logits<Floats, row_type::q8_0>(block, rows, turned);
    case row_type::q4_0:
      return code_logits<Floats, row_type::q4_0>(block, rows, turned);
    case row_type::q8:
      return code_logits<Floats, row_type::q8>(block, rows, turned);
    case row_type::q4:
      return code_logits<Floats, row_type::q4>(block, rows, turned);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
