// Searching the scales of a block of groups: group g's scale is d * level[g], a small integer times
// one number of 16 bits. Minimises the sum of w (x - d level[g] c)^2 over the block:
//   1. each group finds its scale alone;
//   2. d is searched as a scale is, for the groups' scales as values; the weights are the sums of
//      w c c, by which a wrong scale raises the error;
//   3. with d rounded to 16 bits each group takes the level with the least error, of three;
//   4. the codes and levels give a better d, and from there again, while the error falls;
//   5. values that were in the format before get the d that they had (grid.hpp).
#pragma once

#include <nibble/formats/fit/scale.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// How a format searches.
struct scale_search {
  trials groups;        // of a group's scale
  trials levels;        // of d
  integer_codes level;  // the levels that there are
  int moves;            // of d, at most
};

template <int groups>
struct group_scales {
  rounded d{};
  float level[groups] = {};   // integers
  float wanted[groups] = {};  // the scale that would be best for each group's codes
  float better_d = 0;         // what would be best for all codes and levels; 0: any
  float error = 0;
};

// Chooses levels for out.d: the best of those nearest to the wanted scales.
template <int groups, int size, typename Codes>
inline void choose_levels(const block_values<groups * size>& v, const Codes& codes,
                          const integer_codes& levels, const float* wanted, int reach,
                          group_scales<groups>& out) {
  const float inverse = inverse_of(out.d.value);
  code_sums total;
  for (int g = 0; g < groups; ++g) {
    const float nearest = levels.nearest(wanted[g] * inverse);
    code_sums best;
    for (int i = 0; i <= 2 * reach; ++i) {
      const float beside = i == 2 ? -1.0f : static_cast<float>(i);
      const float level = nearest + beside;
      if (!levels.has(level)) continue;
      const auto sums =
          assess_scale<size>(v.x + g * size, v.w + g * size, out.d.value * level, codes);
      if (beside != 0.0f && sums.error >= best.error) continue;
      best = sums;
      out.level[g] = level;
    }
    out.wanted[g] = best.best_scale();
    total.xc += out.level[g] * best.xc;
    total.cc += out.level[g] * out.level[g] * best.cc;
    total.error += best.error;
  }
  out.better_d = total.best_scale();
  out.error = total.error;
}

// If the values were in the format before: the d that makes the block exact.
template <int groups, int size, typename Codes>
inline void recover_scales(const block_values<groups * size>& v, const Codes& codes,
                           const scale_search& how, group_scales<groups>& best) {
  float spacing[groups], narrowest = 0.0f;
  for (int g = 0; g < groups; ++g) {
    grid found;
    if (!find_grid<size>(v.x + g * size, false, codes.most(), found)) return;
    spacing[g] = found.spacing;
    if (narrowest == 0.0f || (spacing[g] > 0.0f && spacing[g] < narrowest)) narrowest = spacing[g];
  }
  const int most_parts = how.level.most() * 4;
  for (int parts = 1; parts <= most_parts && narrowest > 0.0f; ++parts) {
    rounded d;
    if (!is_step(narrowest / static_cast<float>(parts), v.exponent, d)) continue;
    float scale[groups];
    bool all = true;
    for (int g = 0; g < groups && all; ++g) {
      scale[g] = scale_of_spacing(spacing[g], d.value, how.level, codes.most());
      all = scale[g] > 0.0f || spacing[g] == 0.0f;
      const float *x = v.x + g * size, *w = v.w + g * size;
      // where both signs are as good the negative one, of which there is a level more
      const float error = assess_scale<size>(x, w, scale[g], codes).error;
      if (!(error < assess_scale<size>(x, w, -scale[g], codes).error)) scale[g] = -scale[g];
    }
    for (int sign = 0; sign < 2 && all; ++sign) {
      group_scales<groups> next;
      next.d = {{static_cast<std::uint16_t>(d.bits.bits ^ sign << 15)}, sign ? -d.value : d.value};
      choose_levels<groups, size>(v, codes, how.level, scale, 0, next);
      if (next.error < best.error) best = next;
    }
  }
}

template <int groups, int size, typename Codes>
inline group_scales<groups> search_group_scales(const block_values<groups * size>& v,
                                                const Codes& codes, const scale_search& how) {
  float wanted[groups], weight[groups];
  for (int g = 0; g < groups; ++g) {
    const auto sums = search_scale<size>(v.x + g * size, v.w + g * size, codes, how.groups);
    wanted[g] = sums.best_scale();
    weight[g] = wanted[g] != 0.0f ? sums.cc : 0.0f;
  }
  group_scales<groups> best;
  const auto scale = search_scale<groups>(wanted, weight, how.level, how.levels).best_scale();
  best.d = round_step(scale, v.exponent);
  choose_levels<groups, size>(v, codes, how.level, wanted, 1, best);
  for (int i = 0; i < how.moves && best.better_d != 0.0f; ++i) {
    group_scales<groups> next;
    next.d = round_step(best.better_d, v.exponent);
    if (next.d.bits.bits == best.d.bits.bits) break;
    choose_levels<groups, size>(v, codes, how.level, best.wanted, 0, next);
    if (next.error >= best.error) break;
    best = next;
  }
  recover_scales<groups, size>(v, codes, how, best);
  return best;
}

// What a block is packed from.
template <int groups, int size>
struct fitted_scales {
  half d{};
  int level[groups] = {};
  std::uint8_t codes[groups * size];  // less the format's least
};

template <int groups, int size, typename Codes>
inline fitted_scales<groups, size> fit_group_scales(const float* x, const float* importance,
                                                    const Codes& codes, const scale_search& how,
                                                    int least) {
  fitted_scales<groups, size> out;
  block_values<groups * size> v;
  group_scales<groups> found;
  if (load_values<groups * size>(x, importance, v)) {
    found = search_group_scales<groups, size>(v, codes, how);
  }
  out.d = found.d.bits;
  for (int g = 0; g < groups; ++g) {
    out.level[g] = static_cast<int>(found.level[g]);
    write_codes<size>(v.x + g * size, found.d.value * found.level[g], 0.0f, codes, least,
                      out.codes + g * size);
  }
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
