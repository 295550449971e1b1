// Rounding to codes, and the sums from which the best scale for given codes follows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nibble/formats/fit/lanes.hpp>
#include <nibble/formats/fit/values.hpp>
#include <utility>

namespace nibble::inline NIBBLE_ABI::formats {

// Rounding rules. nearest() gives the code nearest to a value in units of the scale, most() the
// greatest magnitude of a code.

// All integers from least to greatest.
struct integer_codes {
  float least, greatest;

  lanes nearest(lanes v) const { return round_lanes(clamp_lanes(v, least, greatest)); }
  float nearest(float v) const { return nearest(all_lanes(v))[0]; }
  bool has(float code) const { return code >= least && code <= greatest; }
  int most() const { return static_cast<int>(greatest > -least ? greatest : -least); }
};

// Those of a format's table. F::ascending: its different entries in order.
template <typename F>
struct table_codes {
  static constexpr auto entries = F::ascending;

  int most() const {
    return static_cast<int>(entries.back() > -entries[0] ? entries.back() : -entries[0]);
  }
  lanes nearest(lanes v) const {
    return add_steps(v, std::make_index_sequence<entries.size() - 1>{});
  }

 private:
  using masks = std::int32_t __attribute__((vector_size(16)));

  // The first entry, and the step to the next one for each midpoint that v lies beyond.
  template <std::size_t... i>
  static lanes add_steps(lanes v, std::index_sequence<i...>) {
    lanes code = all_lanes(entries[0]);
    ((code += (lanes)((masks)(v > all_lanes(0.5f * (entries[i] + entries[i + 1]))) &
                      (masks)all_lanes(entries[i + 1] - entries[i]))),
     ...);
    return code;
  }
};

// The different entries of a table of codes, in ascending order.
template <std::size_t count>
constexpr std::array<float, count> ascending_entries(const std::array<std::int8_t, 16>& table) {
  std::array<float, count> out{};
  std::size_t filled = 0;
  for (int code = -128; code < 128 && filled < count; ++code) {
    for (const std::int8_t entry : table) {
      if (entry != code) continue;
      out[filled++] = static_cast<float>(code);
      break;
    }
  }
  return out;
}

// Position in the table of each code that it has, at code + 128.
constexpr std::array<std::uint8_t, 256> table_positions(const std::array<std::int8_t, 16>& table) {
  std::array<std::uint8_t, 256> out{};
  for (std::size_t i = 16; i-- > 0;) {  // the first of several wins
    out[static_cast<std::size_t>(table[i] + 128)] = static_cast<std::uint8_t>(i);
  }
  return out;
}

// Sums over values x with weights w and codes c.
struct code_sums {
  float xc = 0, cc = 0;  // of w x c and w c c
  float error = 0;       // of w (x - scale c)^2

  float best_scale() const { return cc > 0.0f ? xc / cc : 0.0f; }
};

inline float inverse_of(float scale) {
  return scale != 0.0f ? 1.0f / scale : 0.0f;
}

// The codes nearest to x * inverse; the error is left out, as a search over many scales wants it.
template <int n, typename Codes>
inline code_sums sum_codes(const float* x, const float* w, float inverse, const Codes& codes) {
  lanes xc{}, cc{};
  for (int i = 0; i < n; i += lane_count) {
    const lanes value = load_lanes(x + i);
    const lanes code = codes.nearest(value * inverse);
    const lanes weighted = load_lanes(w + i) * code;
    xc += weighted * value;
    cc += weighted * code;
  }
  return {sum_of(xc), sum_of(cc), 0.0f};
}

// The codes nearest to x / scale, and the error.
template <int n, typename Codes>
inline code_sums assess_scale(const float* x, const float* w, float scale, const Codes& codes) {
  const float inverse = inverse_of(scale);
  lanes xc{}, cc{}, error{};
  for (int i = 0; i < n; i += lane_count) {
    const lanes value = load_lanes(x + i), weight = load_lanes(w + i);
    const lanes code = codes.nearest(value * inverse);
    const lanes weighted = weight * code, rest = value - code * scale;
    xc += weighted * value;
    cc += weighted * code;
    error += weight * rest * rest;
  }
  return {sum_of(xc), sum_of(cc), sum_of(error)};
}

// The codes themselves, by the rule by which the sums are made, less `least`.
template <int n, typename Codes>
inline void write_codes(const float* x, float scale, float offset, const Codes& codes, int least,
                        std::uint8_t* out) {
  const float inverse = inverse_of(scale);
  for (int i = 0; i < n; i += lane_count) {
    const lanes code = codes.nearest((load_lanes(x + i) - offset) * inverse);
    for (int lane = 0; lane < lane_count; ++lane) {
      out[i + lane] = static_cast<std::uint8_t>(static_cast<int>(code[lane]) - least);
    }
  }
}

}  // namespace nibble::inline NIBBLE_ABI::formats
