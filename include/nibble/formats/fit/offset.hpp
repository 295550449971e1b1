// Searching a scale and an offset: minimises the sum of w (x - (d c + m))^2. For given codes c the
// best pair solves two linear equations (weighted linear regression of the values on their codes);
// the codes to choose from are those that a number of trial pairs make.
#pragma once

#include <cmath>
#include <nibble/formats/fit/codes.hpp>
#include <nibble/formats/fit/grid.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// Sums over values x with weights w.
struct value_sums {
  float w = 0, x = 0;  // of w and w x
};

template <int n>
inline value_sums sum_values(const float* x, const float* w) {
  lanes total{}, weighted{};
  for (int i = 0; i < n; i += lane_count) {
    const lanes weight = load_lanes(w + i);
    total += weight;
    weighted += weight * load_lanes(x + i);
  }
  return {sum_of(total), sum_of(weighted)};
}

// Sums over codes c, too.
struct offset_sums {
  float c = 0, cc = 0, xc = 0;  // of w c, w c c and w x c
  float error = 0;              // of w (x - scale c - offset)^2
};

struct scale_and_offset {
  float scale = 0, offset = 0;
};

// The codes nearest to x * inverse + shift, without the error.
template <int n>
inline offset_sums sum_offset_codes(const float* x, const float* w, float inverse, float shift,
                                    const integer_codes& codes) {
  lanes c{}, cc{}, xc{};
  for (int i = 0; i < n; i += lane_count) {
    const lanes value = load_lanes(x + i);
    const lanes code = codes.nearest(value * inverse + shift);
    const lanes weighted = load_lanes(w + i) * code;
    c += weighted;
    cc += weighted * code;
    xc += weighted * value;
  }
  return {sum_of(c), sum_of(cc), sum_of(xc), 0.0f};
}

// The codes nearest to (x - offset) / scale, and the error.
template <int n>
inline offset_sums assess_offset(const float* x, const float* w, scale_and_offset map,
                                 const integer_codes& codes) {
  const float inverse = inverse_of(map.scale);
  lanes c{}, cc{}, xc{}, error{};
  for (int i = 0; i < n; i += lane_count) {
    const lanes value = load_lanes(x + i), weight = load_lanes(w + i);
    const lanes above = value - map.offset;
    const lanes code = codes.nearest(above * inverse);
    const lanes weighted = weight * code, rest = above - code * map.scale;
    c += weighted;
    cc += weighted * code;
    xc += weighted * value;
    error += weight * rest * rest;
  }
  return {sum_of(c), sum_of(cc), sum_of(xc), sum_of(error)};
}

// Which offsets a format can express.
enum class offset_sign { any, not_positive };

// The best pair for given codes.
inline scale_and_offset best_map(const offset_sums& s, const value_sums& v, offset_sign sign) {
  const bool bounded = sign == offset_sign::not_positive;
  const float determinant = v.w * s.cc - s.c * s.c;
  if (determinant > 1e-6f * v.w * s.cc) {
    const float scale = (v.w * s.xc - v.x * s.c) / determinant;
    const float offset = (v.x - scale * s.c) / v.w;
    if (!bounded || offset <= 0.0f) return {scale, offset};
  } else if (!bounded || v.x <= 0.0f) {
    return {0.0f, v.x / v.w};  // all codes alike: the mean
  }
  return {s.cc > 0.0f ? s.xc / s.cc : 0.0f, 0.0f};
}

// Trial pairs: the least value becomes code 0 and the greatest first, first + step, ... before
// rounding; where that is not the greatest code, also with the difference at the other end, or half
// of it at each.
struct offset_trials {
  float first, step;
  int count;
};

template <int n>
inline scale_and_offset search_offset(const float* x, const float* w, const value_sums& v,
                                      const integer_codes& codes, const offset_trials& t,
                                      offset_sign sign) {
  float least = x[0], greatest = x[0];
  for (int i = 1; i < n; ++i) {
    least = x[i] < least ? x[i] : least;
    greatest = x[i] > greatest ? x[i] : greatest;
  }
  scale_and_offset best = best_map({}, v, sign);
  float gain = best.offset * v.x;
  if (sign == offset_sign::not_positive && least > 0.0f) least = 0.0f;
  const float range = greatest - least;
  if (!(range > 0.0f)) return best;
  const auto consider = [&](float inverse, float shift) {
    const offset_sums sums = sum_offset_codes<n>(x, w, inverse, shift, codes);
    const scale_and_offset map = best_map(sums, v, sign);
    const float off_the_error = map.scale * sums.xc + map.offset * v.x;
    if (!(off_the_error > gain)) return false;
    gain = off_the_error;
    best = map;
    return true;
  };
  for (int i = 0; i < t.count; ++i) {
    const float last = t.first + t.step * static_cast<float>(i);
    const float inverse = last / range, difference = codes.greatest - last;
    for (const float part : {0.0f, 0.5f, 1.0f})
      consider(inverse, part * difference - least * inverse);
  }
  // Values that were in the format before may not use all codes. Then whole steps are exact.
  for (int fewer = 1; fewer <= 3; ++fewer) {
    const float last = std::ceil(t.first) - static_cast<float>(fewer);
    if (last >= 1.0f) consider(last / range, -least * (last / range));
  }
  for (int i = 0; i < 2 && best.scale > 0.0f; ++i) {  // the codes nearest to what was found
    const float inverse = 1.0f / best.scale;
    if (!consider(inverse, -best.offset * inverse)) break;
  }
  return best;
}

// A pair in 16 bits, with the sums for the codes that it makes.
struct settled_offset {
  rounded d{}, m{};
  offset_sums sums;
};

template <int n>
inline settled_offset round_map(const block_values<n>& v, scale_and_offset map,
                                const integer_codes& codes) {
  settled_offset out{round_step(map.scale, v.exponent), round_to_half(map.offset, v.exponent), {}};
  out.sums = assess_offset<n>(v.x, v.w, {out.d.value, out.m.value}, codes);
  return out;
}

// Rounds a pair to 16 bits, and moves it to what the codes that it then makes want, while that
// helps.
template <int n>
inline settled_offset settle_offset(const block_values<n>& v, const value_sums& values,
                                    scale_and_offset map, const integer_codes& codes) {
  constexpr int most_moves = 4;
  settled_offset best = round_map(v, map, codes);
  for (int i = 0; i < most_moves && best.sums.cc > 0.0f; ++i) {
    const offset_sums& s = best.sums;
    // the scale makes up for the rounding of the offset
    map.offset = round_to_half(best_map(s, values, offset_sign::any).offset, v.exponent).value;
    map.scale = (s.xc - map.offset * s.c) / s.cc;
    const settled_offset moved = round_map(v, map, codes);
    if (moved.sums.error >= best.sums.error) break;
    best = moved;
  }
  return best;
}

// If the values were in the format before: with what they were.
template <int n>
inline void recover_offset(const block_values<n>& v, const integer_codes& codes,
                           settled_offset& best) {
  grid before;
  if (!find_grid<n>(v.x, true, codes.most(), before)) return;
  for (int parts = 1; parts <= codes.most(); ++parts) {
    rounded d;
    if (!is_step(before.spacing / static_cast<float>(parts), v.exponent, d)) continue;
    for (float code = 0.0f; code <= codes.greatest; ++code) {
      const auto exact = round_map(v, {d.value, before.least - code * d.value}, codes);
      if (exact.sums.error < best.sums.error) best = exact;
    }
  }
}

// A scale and an offset in 16 bits, and the codes, for a format that has one of each in a block.
template <int n>
inline void fit_offset(const float* x, const float* importance, const integer_codes& codes,
                       const offset_trials& t, half& scale, half& offset, std::uint8_t* out) {
  block_values<n> v;
  settled_offset best;
  if (load_values<n>(x, importance, v)) {
    const value_sums values = sum_values<n>(v.x, v.w);
    const auto map = search_offset<n>(v.x, v.w, values, codes, t, offset_sign::any);
    best = settle_offset(v, values, map, codes);
    // Where the ends of the codes are not in use, other offsets make the same steps, and may be
    // nearer to 16 bits.
    for (const float shift : {-1.0f, 1.0f, -2.0f, 2.0f}) {
      const auto other =
          settle_offset(v, values, {map.scale, map.offset + shift * map.scale}, codes);
      if (other.sums.error < best.sums.error) best = other;
    }
    recover_offset(v, codes, best);
  }
  write_codes<n>(v.x, best.d.value, best.m.value, codes, 0, out);
  scale = best.d.bits;
  offset = best.m.bits;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
