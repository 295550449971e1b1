// Recognising values that were in a format before: those of a group are whole multiples of one
// spacing (from one offset on), and the spacings of a block's groups are whole multiples of one
// number of 16 bits. A search by least squares alone need not come back to them, because a group
// that does not use all its codes can be exact with several scales. Other values are told apart by
// the first few of them, so this costs them next to nothing.
#pragma once

#include <cmath>
#include <nibble/formats/fit/codes.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct grid {
  float spacing = 0;  // the greatest of which all values are multiples; 0: there is only one value
  float least = 0;    // the value that is multiple 0
};

// Euclid's algorithm for numbers with errors below `tolerance`; 0 if that leads below `bound`.
inline float common_spacing(float a, float b, float tolerance, float bound) {
  while (b > tolerance) {
    if (b < bound) return 0.0f;
    const float rest = a - b * static_cast<float>(static_cast<int>(a / b + 0.5f));
    a = b;
    b = rest < 0.0f ? -rest : rest;
  }
  return a;
}

// The grid of a group's values, from the least of them on or from 0; false if it would have more
// than `most` steps.
template <int n>
inline bool find_grid(const float* x, bool has_offset, int most, grid& out) {
  float least = x[0], greatest = x[0];
  for (int i = 1; i < n; ++i) {
    least = x[i] < least ? x[i] : least;
    greatest = x[i] > greatest ? x[i] : greatest;
  }
  if (!has_offset) {
    greatest = -least > greatest ? -least : greatest;
    least = 0.0f;
  }
  out = {0.0f, least};
  const float span = greatest - least;
  if (!(span > 0.0f)) return true;
  const float tolerance = 1e-4f * span, bound = span / (static_cast<float>(most) + 0.5f);
  float spacing = span;
  for (int i = 0; i < n; ++i) {
    spacing = common_spacing(spacing, std::fabs(x[i] - least), tolerance, bound);
    if (spacing == 0.0f) return false;
  }
  out.spacing = span / std::nearbyint(span / spacing);
  return true;
}

// The number of 16 bits that x is but for a few roundings of floats; false if there is none.
inline bool is_step(float x, int exponent, rounded& out) {
  out = round_step(x, exponent);
  return std::fabs(out.value - x) <= 2e-6f * std::fabs(x);
}

// Whether x is a whole multiple of step.
inline bool is_multiple(float x, float step) {
  const float count = x / step;
  return std::fabs(count - std::nearbyint(count)) <= 2e-3f;
}

// The scale of a group that has this spacing, if d is the block's: the spacing, or the greatest
// part of it that is a level times d. 0 if there is none.
inline float scale_of_spacing(float spacing, float d, const integer_codes& levels, int most_parts) {
  const float greatest = static_cast<float>(levels.most());
  for (int parts = 1; parts <= most_parts; ++parts) {
    const float scale = spacing / static_cast<float>(parts);
    if (scale < 0.5f * d) break;
    if (is_multiple(scale, d) && scale < (0.5f + greatest) * d) return scale;
  }
  return 0.0f;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
