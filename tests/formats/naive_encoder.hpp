// The obvious way to quantise, as a witness for the encoders' errors: scales from the least and the
// greatest value of a group, scales of scales from the greatest scale, codes to the nearest. Only
// values are made, no bytes; nothing is searched, and the scales keep all bits of a float.
#pragma once

#include <algorithm>
#include <cmath>
#include <nibble/formats/list.hpp>
#include <vector>

namespace test {

// What a group's scale and minimum can be: multiples of the block's, up to this one; 0: any float.
template <typename F>
constexpr int naive_levels() {
  if (F::block_size == F::group_size || F::name.substr(0, 2) == "tq") return 0;
  return F::name == "q2_k"                          ? 15
         : F::name == "q3_k" || F::name == "iq4_xs" ? 31
         : F::name == "q6_k"                        ? 127
                                                    : 63;
}

template <typename F>
std::vector<int> all_codes() {
  std::vector<int> codes;
  if constexpr (nibble::table_format<F>) {
    codes.assign(F::table.begin(), F::table.end());
  } else {
    const bool ternary = F::name.substr(0, 2) == "tq";
    for (int c = F::min_code; c <= (ternary ? 1 : F::max_code); ++c) codes.push_back(c);
  }
  return codes;
}

// Multiples of the greatest / levels.
inline void round_levels(std::vector<double>& values, int levels) {
  double greatest = 0;
  for (const double v : values) greatest = std::max(greatest, std::fabs(v));
  if (levels == 0 || greatest == 0) return;
  for (double& v : values) v = std::nearbyint(v * levels / greatest) * greatest / levels;
}

// The scale that a group gets from its extremes.
template <typename F>
double naive_scale(const float* x, int count, double& offset) {
  const auto [least, greatest] = std::minmax_element(x, x + count);
  const double extreme = -*least > *greatest ? *least : *greatest;
  if (F::has_offset) {
    offset = F::block_size == F::group_size ? *least : std::min(*least, 0.0f);
    return (std::max<double>(*greatest, offset) - offset) / F::max_code;
  }
  if (F::name == "mxfp4") {  // the specification's rule: 2^floor(log2 max) is code 8
    return extreme == 0 ? 0 : std::exp2(std::floor(std::log2(std::fabs(extreme))) - 3);
  }
  return extreme / std::max(F::min_code, -127);
}

// x: [block_size]. The values that the block would decode to.
template <typename F>
std::vector<double> naive_block(const float* x) {
  constexpr int groups = F::block_size / F::group_size;
  std::vector<double> scale(groups), offset(groups, 0.0), out(F::block_size);
  for (int g = 0; g < groups; ++g) {
    scale[g] = naive_scale<F>(x + g * F::group_size, F::group_size, offset[g]);
  }
  if (F::name.substr(0, 2) == "tq") {  // the mean magnitude, as BitNet b1.58 has it
    double mean = 0;
    for (int i = 0; i < F::block_size; ++i) mean += std::fabs(x[i]) / F::block_size;
    scale.assign(groups, mean);
  }
  round_levels(scale, naive_levels<F>());
  round_levels(offset, naive_levels<F>());
  const auto codes = all_codes<F>();
  for (int i = 0; i < F::block_size; ++i) {
    const double d = scale[i / F::group_size], m = offset[i / F::group_size];
    out[i] = d * codes.front() + m;
    for (const int c : codes) {
      if (std::fabs(d * c + m - x[i]) < std::fabs(out[i] - x[i])) out[i] = d * c + m;
    }
  }
  return out;
}

}  // namespace test
