// Searching the scales and minima of a block of groups: a value of group g is
//   d * scale[g] * c - dmin * minimum[g],
// both factors small integers, d and dmin numbers of 16 bits. Minimises the sum of w (x - that)^2
// over the block:
//   1. each group finds its scale and offset alone;
//   2. d and dmin are searched as scales are, for the groups' scales and minima as values;
//   3. with both rounded to 16 bits each group takes the pair with the least error: three scales,
//      each with the minimum that it wants;
//   4. codes and factors give a better d and dmin (two linear equations over the whole block), and
//      from there again, while the error falls;
//   5. values that were in the format before get the d and dmin that they had (grid.hpp).
#pragma once

#include <limits>
#include <nibble/formats/fit/offset.hpp>
#include <nibble/formats/fit/scale.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// How a format searches.
struct offset_search {
  offset_trials groups;  // of a group's scale and offset
  trials levels;         // of d and dmin
  integer_codes codes;
  integer_codes level;  // what scale[g] and minimum[g] can be
  bool shifts;  // also tries codes that are all greater or less by one, where ends are not in use
};

template <int groups>
struct group_maps {
  rounded d{}, dmin{};
  float scale[groups] = {}, minimum[groups] = {};  // integers
  scale_and_offset wanted[groups];                 // what would be best for each group's codes
  float better_d = 0, better_dmin = 0;             // and for all together; 0: any
  float error = 0;

  scale_and_offset map(int g) const { return {d.value * scale[g], -(dmin.value * minimum[g])}; }
};

// The sums of the two equations: of w over the products of the columns that d and dmin multiply,
// scale[g] * c and -minimum[g], with each other and with the values.
struct block_equations {
  float dd = 0, dm = 0, mm = 0, dx = 0, mx = 0;

  void add(float scale, float minimum, const offset_sums& s, const value_sums& v) {
    dd += scale * scale * s.cc;
    dm -= scale * minimum * s.c;
    mm += minimum * minimum * v.w;
    dx += scale * s.xc;
    mx -= minimum * v.x;
  }

  template <int groups>
  void solve(group_maps<groups>& out) const {
    const float determinant = dd * mm - dm * dm;
    if (determinant > 1e-6f * dd * mm) {
      out.better_d = (dx * mm - mx * dm) / determinant;
      out.better_dmin = (mx * dd - dx * dm) / determinant;
    } else if (dd > 0.0f) {
      out.better_d = dx / dd;
    }
  }
};

template <int groups, int size>
struct offset_recovery;

template <int groups, int size>
struct offset_group_search {
  const block_values<groups * size>& v;
  const offset_search& how;
  value_sums sums[groups] = {};

  const float* x(int g) const { return v.x + g * size; }
  const float* w(int g) const { return v.w + g * size; }

  // The best factors of group g for out's d and dmin near what is wanted; returns their sums.
  offset_sums choose(int g, scale_and_offset wanted, group_maps<groups>& out) const {
    const float inverse_min = inverse_of(out.dmin.value);
    const float nearest = how.level.nearest(wanted.scale * inverse_of(out.d.value));
    offset_sums best;
    best.error = std::numeric_limits<float>::infinity();
    const auto consider = [&](float factor, float offset) {
      if (!how.level.has(factor)) return;
      const float scale = out.d.value * factor;
      float m = how.level.nearest(-offset * inverse_min);
      for (int i = 0; i < 2; ++i) {
        const auto s = assess_offset<size>(x(g), w(g), {scale, -(out.dmin.value * m)}, how.codes);
        if (s.error < best.error) {
          best = s;
          out.scale[g] = factor;
          out.minimum[g] = m;
        }
        const float better = how.level.nearest((scale * s.c - sums[g].x) / sums[g].w * inverse_min);
        if (better == m) break;
        m = better;
      }
    };
    for (const float beside : {0.0f, -1.0f, 1.0f}) consider(nearest + beside, wanted.offset);
    if (how.shifts) {
      consider(nearest, wanted.offset - wanted.scale);
      consider(nearest, wanted.offset + wanted.scale);
    }
    return best;
  }

  void choose_all(const scale_and_offset* wanted, group_maps<groups>& out) const {
    block_equations equations;
    for (int g = 0; g < groups; ++g) {
      const offset_sums best = choose(g, wanted[g], out);
      out.wanted[g] = best_map(best, sums[g], offset_sign::not_positive);
      out.error += best.error;
      equations.add(out.scale[g], out.minimum[g], best, sums[g]);
    }
    equations.solve(out);
  }

  group_maps<groups> run() {
    float scale[groups], minimum[groups], scale_weight[groups], minimum_weight[groups];
    scale_and_offset wanted[groups];
    for (int g = 0; g < groups; ++g) {
      sums[g] = sum_values<size>(x(g), w(g));
      wanted[g] = search_offset<size>(x(g), w(g), sums[g], how.codes, how.groups,
                                      offset_sign::not_positive);
      scale[g] = wanted[g].scale;
      minimum[g] = -wanted[g].offset;
      // by how much a wrong one raises the error
      const auto s = assess_offset<size>(x(g), w(g), wanted[g], how.codes);
      scale_weight[g] = scale[g] != 0.0f ? s.cc : 0.0f;
      minimum_weight[g] = minimum[g] != 0.0f ? sums[g].w : 0.0f;
    }
    const auto step = [&](const float* values, const float* weights) {
      return round_step(search_scale<groups>(values, weights, how.level, how.levels).best_scale(),
                        v.exponent);
    };
    group_maps<groups> best;
    best.d = step(scale, scale_weight);
    best.dmin = step(minimum, minimum_weight);
    choose_all(wanted, best);
    best = refine(best);
    offset_recovery<groups, size>{*this, best}.run();
    return best;
  }

  group_maps<groups> refine(group_maps<groups> best) const {
    constexpr int most_moves = 2;
    for (int i = 0; i < most_moves && best.better_d > 0.0f; ++i) {
      group_maps<groups> next;
      next.d = round_step(best.better_d, v.exponent);
      next.dmin = best.better_dmin > 0.0f ? round_step(best.better_dmin, v.exponent) : best.dmin;
      const bool same = next.d.bits.bits == best.d.bits.bits;
      if (same && next.dmin.bits.bits == best.dmin.bits.bits) break;
      choose_all(best.wanted, next);
      if (next.error >= best.error) break;
      best = next;
    }
    return best;
  }
};

// If the values were in the format before: the d and dmin that make the block exact.
template <int groups, int size>
struct offset_recovery {
  const offset_group_search<groups, size>& search;
  group_maps<groups>& best;
  grid grids[groups] = {};
  float scale[groups] = {};

  const offset_search& how() const { return search.how; }
  int exponent() const { return search.v.exponent; }

  void run() {
    float narrowest = 0.0f;
    const int most_steps = how().codes.most();
    for (int g = 0; g < groups; ++g) {
      if (!find_grid<size>(search.x(g), true, most_steps, grids[g])) return;
      const float spacing = grids[g].spacing;
      if (narrowest == 0.0f || (spacing > 0.0f && spacing < narrowest)) narrowest = spacing;
    }
    const int most_parts = how().level.most() * 4;
    for (int parts = 1; parts <= most_parts && narrowest > 0.0f; ++parts) {
      rounded d;
      if (!is_step(narrowest / static_cast<float>(parts), exponent(), d)) continue;
      bool all = true;
      for (int g = 0; g < groups && all; ++g) {
        scale[g] = scale_of_spacing(grids[g].spacing, d.value, how().level, most_steps);
        all = scale[g] > 0.0f || grids[g].spacing == 0.0f;
      }
      if (all && find_dmin(d)) return;
    }
  }

  // What group g's minimum would be if its least value had code `code`.
  float minimum(int g, int code) const {
    return static_cast<float>(code) * scale[g] - grids[g].least;
  }

  // A minimum of group 0, or of the first that has one, is a level times dmin.
  bool find_dmin(rounded d) {
    if (try_steps(d, best.dmin)) return true;
    const int most_codes = how().codes.most();
    for (int g = 0; g < groups; ++g) {
      for (int code = 0; code < most_codes; ++code) {
        const float m = minimum(g, code);
        for (float level = 1.0f; m > 0.0f && level <= how().level.greatest; ++level) {
          rounded dmin;
          if (is_step(m / level, exponent(), dmin) && try_steps(d, dmin)) return true;
        }
      }
    }
    return false;
  }

  bool try_steps(rounded d, rounded dmin) {
    group_maps<groups> next;
    next.d = d;
    next.dmin = dmin;
    const int most_codes = how().codes.most();
    for (int g = 0; g < groups; ++g) {
      next.scale[g] = std::nearbyint(scale[g] / d.value);
      bool found = false;
      for (int code = 0; code <= most_codes && !found; ++code) {
        const float m = minimum(g, code);
        next.minimum[g] = how().level.nearest(m / dmin.value);
        const float rest = m - next.minimum[g] * dmin.value;
        found = std::fabs(rest) <= 1e-3f * (scale[g] + dmin.value);
      }
      if (!found) return false;
    }
    for (int g = 0; g < groups; ++g) {
      next.error += assess_offset<size>(search.x(g), search.w(g), next.map(g), how().codes).error;
    }
    if (!(next.error < best.error)) return false;
    best = next;
    return true;
  }
};

// What a block is packed from.
template <int groups, int size>
struct fitted_offsets {
  half d{}, dmin{};
  std::uint8_t scale[groups] = {}, minimum[groups] = {};
  std::uint8_t codes[groups * size];
};

template <int groups, int size>
inline fitted_offsets<groups, size> fit_group_offsets(const float* x, const float* importance,
                                                      const offset_search& how) {
  fitted_offsets<groups, size> out;
  block_values<groups * size> v;
  group_maps<groups> found;
  if (load_values<groups * size>(x, importance, v)) {
    found = offset_group_search<groups, size>{v, how}.run();
  }
  out.d = found.d.bits;
  out.dmin = found.dmin.bits;
  for (int g = 0; g < groups; ++g) {
    out.scale[g] = static_cast<std::uint8_t>(found.scale[g]);
    out.minimum[g] = static_cast<std::uint8_t>(found.minimum[g]);
    const scale_and_offset map = found.map(g);
    write_codes<size>(v.x + g * size, map.scale, map.offset, how.codes, 0, out.codes + g * size);
  }
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
