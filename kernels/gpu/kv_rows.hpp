// Rows of keys and values on the device: what kv_type.hpp and head_row.hpp say of them, in terms of
// a warp that stores a row and of threads that load eight values of one at a time.
//
// Rows of one head in one page lie together: 64 rows of codes, then 64 rows of scales. All of a
// page's parts, and every eighth row in them, are aligned to 16 bytes, whatever a row's length is.
#pragma once

#include <nibble/device/kv_type.hpp>

#include "gpu/dialect.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr float positive_infinity = std::bit_cast<float>(0x7f800000);

inline constexpr int page_tokens = 64;     // kv_page_tokens
inline constexpr int aligned_rows = 8;     // rows from one that is aligned to the next
inline constexpr int unit_values = 8;      // that a thread loads at a time
inline constexpr int group_of_codes = 32;  // values that share a scale, of q8_0 and q4_0

template <kv_type Type>
struct type_constant {
  static constexpr kv_type type = Type;
  static constexpr int bits = info_of(Type).bits;
  static constexpr bool coded = has_scales(Type);
  static constexpr bool grouped = info_of(Type).values_of_scale == group_of_codes;
};

// f(type_constant) of a type that is known at run time only, the same in a whole warp.
template <typename Function>
NIBBLE_DEVICE void with_type(std::int32_t type, Function f) {
  switch (static_cast<kv_type>(type)) {
    case kv_type::f32:
      return f(type_constant<kv_type::f32>{});
    case kv_type::f16:
      return f(type_constant<kv_type::f16>{});
    case kv_type::bf16:
      return f(type_constant<kv_type::bf16>{});
    case kv_type::q8_0:
      return f(type_constant<kv_type::q8_0>{});
    case kv_type::q4_0:
      return f(type_constant<kv_type::q4_0>{});
    case kv_type::q8:
      return f(type_constant<kv_type::q8>{});
    case kv_type::q4:
      return f(type_constant<kv_type::q4>{});
  }
}

// Bytes of a row of codes and of its scales; made on the host.
struct row_size {
  std::int32_t codes, scales;

  static row_size of(std::int32_t type, std::int32_t length) {
    return {static_cast<std::int32_t>(code_bytes(static_cast<kv_type>(type), length)),
            static_cast<std::int32_t>(scale_bytes(static_cast<kv_type>(type), length))};
  }
  NIBBLE_HD int bytes() const { return codes + scales; }
};

// Consecutive rows: codes, and their scales.
struct head_rows {
  std::byte *codes, *scales;
};

// Rows of a key/value head from row `row` of a page on; part: where the layer's keys or values
// begin in the page.
NIBBLE_DEVICE head_rows rows_of_head(std::byte* part, row_size size, int head, int row) {
  std::byte* const first =
      part + static_cast<std::size_t>(head) * static_cast<std::size_t>(size.bytes()) * page_tokens;
  return {first + row * size.codes, first + page_tokens * size.codes + row * size.scales};
}

// The sequence of a token of the batch, for one group of layers.
NIBBLE_DEVICE const gpu::sequence_pages& sequence_of(const gpu::step_tokens& step,
                                                     const gpu::step_pages& pages, int group,
                                                     std::int64_t token) {
  return pages
      .sequences[static_cast<std::int64_t>(group) * pages.max_sequences + step.chunk[token]];
}
// Page number `page` of a sequence, counted by places.
NIBBLE_DEVICE std::byte* page_at(const gpu::cache_layer& cache, const gpu::step_pages& pages,
                                 const gpu::sequence_pages& sequence, std::int64_t page) {
  const std::int64_t at = page < sequence.head ? page : page - sequence.tail_first + sequence.head;
  const std::int32_t number = pages.numbers[sequence.first + at];
  return cache.pages + static_cast<std::size_t>(number) * cache.page_bytes;
}

// ---------------------------------------------------------------------------------------------
// Loading

template <typename T>
NIBBLE_DEVICE T read_as(const std::byte* from) {
  return *reinterpret_cast<const T*>(from);
}

// The columns of a unit's values: 0 to 3 are adjacent, and so are 4 to 7. Units of four bits take
// four bytes, whose high bits are columns further on; elsewhere a unit is eight adjacent columns.
struct unit_columns {
  int first, second;
  NIBBLE_DEVICE int at(int i) const { return i < 4 ? first + i : second + i - 4; }
};
template <int Bits>
NIBBLE_DEVICE unit_columns columns_of_unit(int length, int unit) {
  if constexpr (Bits != 4) return {unit * unit_values, unit * unit_values + 4};
  const int group = unit / 4 * group_of_codes, at = group + unit % 4 * 4;
  const int rest = length - group;
  return {at, at + (rest < group_of_codes ? rest : group_of_codes) / 2};
}
NIBBLE_DEVICE unit_columns columns_of_unit(std::int32_t type, int length, int unit) {
  const auto t = static_cast<kv_type>(type);
  return t == kv_type::q4_0 || t == kv_type::q4 ? columns_of_unit<4>(length, unit)
                                                : columns_of_unit<8>(length, unit);
}

// Four bytes as floats, each less `bias`: a byte in the low bits of 2^23 is a float by itself.
NIBBLE_DEVICE void bytes_to_floats(std::uint32_t bytes, float bias, float* out) {
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t bits = 0x4b000000u | (bytes >> 8 * i & 255u);
    out[i] = std::bit_cast<float>(bits) - (0x1p23f + bias);
  }
}

// The scale of a unit. Rows of floats have none.
template <kv_type Type>
NIBBLE_DEVICE float unit_scale(const std::byte* scales, int unit) {
  using type = type_constant<Type>;
  if constexpr (!type::coded) return 1.0f;
  const int i = type::grouped ? unit * unit_values / group_of_codes : 0;
  return to_float(half{read_as<std::uint16_t>(scales + 2 * i)});
}

// The values of a unit without its scale. codes: of a row whose length is a multiple of 8, and
// which is aligned as the unit's bytes are, up to 16.
template <kv_type Type>
NIBBLE_DEVICE void load_codes(const std::byte* codes, int unit, float (&out)[unit_values]) {
  if constexpr (Type == kv_type::f32) {
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < 2; ++i) {
      const words4 part = load16(codes + unit * 32 + i * 16);
      NIBBLE_UNROLL_DEVICE
      for (int j = 0; j < 4; ++j) out[4 * i + j] = std::bit_cast<float>(part.w[j]);
    }
  } else if constexpr (Type == kv_type::f16) {
    const words4 part = load16(codes + unit * 16);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = to_float(half{static_cast<std::uint16_t>(part.w[i] & 0xffffu)});
      out[2 * i + 1] = to_float(half{static_cast<std::uint16_t>(part.w[i] >> 16)});
    }
  } else if constexpr (Type == kv_type::bf16) {
    const words4 part = load16(codes + unit * 16);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = std::bit_cast<float>(part.w[i] << 16);
      out[2 * i + 1] = std::bit_cast<float>(part.w[i] & 0xffff0000u);
    }
  } else if constexpr (type_constant<Type>::bits == 8) {
    const auto both = read_as<std::uint64_t>(codes + unit * 8) ^ 0x8080808080808080u;
    bytes_to_floats(static_cast<std::uint32_t>(both), 128.0f, out);
    bytes_to_floats(static_cast<std::uint32_t>(both >> 32), 128.0f, out + 4);
  } else {
    const auto both = read_as<std::uint32_t>(codes + unit * 4);
    bytes_to_floats(both & 0x0f0f0f0fu, 8.0f, out);
    bytes_to_floats(both >> 4 & 0x0f0f0f0fu, 8.0f, out + 4);
  }
}

// The same of a row of floats of any length, with zeros behind its end.
template <kv_type Type>
NIBBLE_DEVICE void load_part(const std::byte* codes, int length, int unit,
                             float (&out)[unit_values]) {
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < unit_values; ++i) {
    const int column = unit * unit_values + i;
    out[i] = 0;
    if (column >= length) continue;
    if constexpr (Type == kv_type::f32) {
      out[i] = read_as<float>(codes + 4 * column);
    } else if constexpr (Type == kv_type::f16) {
      out[i] = to_float(half{read_as<std::uint16_t>(codes + 2 * column)});
    } else {
      out[i] = to_float(bfloat16{read_as<std::uint16_t>(codes + 2 * column)});
    }
  }
}

template <kv_type Type>
NIBBLE_DEVICE void load_any_codes(const std::byte* codes, int length, int unit,
                                  float (&out)[unit_values]) {
  if constexpr (!type_constant<Type>::coded) {
    if (length % unit_values != 0) return load_part<Type>(codes, length, unit, out);
  }
  load_codes<Type>(codes, unit, out);
}

// The values of a unit. Exact: the products fit a float.
template <kv_type Type>
NIBBLE_DEVICE void load_unit(const std::byte* codes, const std::byte* scales, int length, int unit,
                             float (&out)[unit_values]) {
  load_any_codes<Type>(codes, length, unit, out);
  if constexpr (type_constant<Type>::coded) {
    const float scale = unit_scale<Type>(scales, unit);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < unit_values; ++i) out[i] *= scale;
  }
}

// ---------------------------------------------------------------------------------------------
// Storing: a warp stores a row that lies in shared memory

// a * b and a - b as floats, never as a part of a fused operation: the definition has none.
NIBBLE_DEVICE float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

NIBBLE_DEVICE std::int32_t warp_greatest(std::int32_t x) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    const std::int32_t other = shuffle_xor(x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// Scale `candidate` of the eight that choose_head_scale() in head_row.hpp looks at.
NIBBLE_DEVICE float candidate_scale(float greatest, const code_levels& levels, int candidate) {
  const float step = rounded_product(levels.step, static_cast<float>(candidate));  // exact
  return stored_scale(greatest / (levels.first - step));
}

// The same scale as choose_head_scale(). It sums errors of every eighth value by themselves: each
// of its 64 sums (8 candidates, 8 columns) is one lane's here, or half a lane's.
template <int Bits>
NIBBLE_DEVICE float choose_warp_scale(const float* x, int n, float greatest, bool turned) {
  constexpr code_levels levels = levels_of_code(Bits);
  float least = positive_infinity;
  int best = 8;
  NIBBLE_UNROLL_DEVICE
  for (int part = 0; part < 64 / warp_size; ++part) {
    const int sum_of = part * warp_size + lane(), candidate = sum_of / 8;
    const float scale = candidate_scale(greatest, levels, candidate);
    const float inverse = (turned ? -1.0f : 1.0f) / scale;
    float error = 0;
    for (int i = sum_of % 8; i < n; i += 8) {
      const float scaled = rounded_product(x[i], inverse);
      const float rest = scaled - nearest_code(scaled, levels);
      error += rounded_product(rest, rest);
    }
    for (int mask = 1; mask < 8; mask *= 2) error += shuffle_xor(error, mask);
    error = rounded_product(error, rounded_product(scale, scale));
    if (best == 8 || error < least) {
      best = candidate;
      least = error;
    }
  }
  for (int mask = 8; mask < warp_size; mask *= 2) {
    const float other = shuffle_xor(least, mask);
    const int other_best = shuffle_xor(best, mask);
    if (other < least || (other == least && other_best < best)) {
      least = other;
      best = other_best;
    }
  }
  const float scale = candidate_scale(greatest, levels, best);
  return turned ? -scale : scale;
}

template <int Bits>
NIBBLE_DEVICE std::uint8_t code_byte(float x, float inverse) {
  const float code = nearest_code(rounded_product(x, inverse), levels_of_code(Bits));
  return static_cast<std::uint8_t>(static_cast<int>(code) + (Bits == 4 ? 8 : 0));
}

// The codes of values [first, first + n) of a row; `first` starts a group of 32.
template <int Bits>
NIBBLE_DEVICE void store_code_bytes(const float* x, int length, int first, int n, bool usable,
                                    float inverse, std::byte* codes) {
  auto* const to = reinterpret_cast<std::uint8_t*>(codes);
  if constexpr (Bits == 8) {
    for (int i = first + lane(); i < first + n; i += warp_size) {
      to[i] = usable ? code_byte<8>(x[i], inverse) : std::uint8_t{0};
    }
  } else {
    for (int i = first / 2 + lane(); i < (first + n) / 2; i += warp_size) {
      const int group = i / 16 * group_of_codes, rest = length - group;
      const int low = group + i % 16, half_group = (rest < 32 ? rest : 32) / 2;
      const int codes_of_byte =
          usable ? code_byte<4>(x[low], inverse) | code_byte<4>(x[low + half_group], inverse) << 4
                 : 0x88;
      to[i] = static_cast<std::uint8_t>(codes_of_byte);
    }
  }
}

// The same as quantise_head_row().
template <kv_type Type>
NIBBLE_DEVICE void store_coded_row(const float* x, int length, head_rows to) {
  using type = type_constant<Type>;
  const int span = type::grouped ? group_of_codes : length;
  for (int first = 0; first < length; first += span) {
    const int n = length - first < span ? length - first : span;
    // as bits, which compare as integers: every NaN is above infinity then
    std::int32_t magnitude = 0, positive = 0;
    for (int i = first + lane(); i < first + n; i += warp_size) {
      const auto bits = std::bit_cast<std::int32_t>(x[i]);
      const std::int32_t without_sign = bits & 0x7fffffff;
      magnitude = without_sign > magnitude ? without_sign : magnitude;
      positive = bits > positive ? bits : positive;
    }
    magnitude = warp_greatest(magnitude);
    positive = warp_greatest(positive);
    const bool finite = magnitude < 0x7f800000, usable = finite && magnitude > 0;
    float scale = 0;
    if (usable) {
      scale = choose_warp_scale<type::bits>(x + first, n, std::bit_cast<float>(magnitude),
                                            type::bits == 4 && positive == magnitude);
    }
    if (lane() == 0) {
      const half stored = finite ? to_half(scale) : half{0x7e00};
      reinterpret_cast<std::uint16_t*>(to.scales)[first / span] = stored.bits;
    }
    const float inverse = usable ? 1.0f / scale : 0;
    store_code_bytes<type::bits>(x, length, first, n, usable, inverse, to.codes);
  }
}

// Stores a row. All lanes of a warp together; they see all of x.
NIBBLE_DEVICE void store_row(std::int32_t type, const float* x, int length, head_rows to) {
  with_type(type, [&](auto constant) {
    constexpr kv_type stored = decltype(constant)::type;
    if constexpr (decltype(constant)::coded) {
      store_coded_row<stored>(x, length, to);
    } else {
      for (int i = lane(); i < length; i += warp_size) {
        if constexpr (stored == kv_type::f32) {
          reinterpret_cast<float*>(to.codes)[i] = x[i];
        } else if constexpr (stored == kv_type::f16) {
          reinterpret_cast<std::uint16_t*>(to.codes)[i] = to_half(x[i]).bits;
        } else {
          reinterpret_cast<std::uint16_t*>(to.codes)[i] = to_bfloat16(x[i]).bits;
        }
      }
    }
  });
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
