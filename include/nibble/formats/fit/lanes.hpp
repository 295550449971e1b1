// Four floats at a time, for the searches of encoders (host only). Compilers do not vectorise sums
// of floats by themselves, because that changes the order of additions. 128 bits are what every
// 64-bit CPU has, so that one binary gives the same blocks everywhere.
#pragma once

#include <cstring>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

using lanes = float __attribute__((vector_size(16)));
inline constexpr int lane_count = 4;

inline lanes load_lanes(const float* from) {
  lanes out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

inline lanes all_lanes(float value) {
  return lanes{value, value, value, value};
}

inline float sum_of(lanes v) {
  return (v[0] + v[2]) + (v[1] + v[3]);
}

inline lanes clamp_lanes(lanes v, float least, float greatest) {
  const lanes low = all_lanes(least), high = all_lanes(greatest);
  v = v < low ? low : v;
  return v > high ? high : v;
}

// To the nearest integer, ties to even, for magnitudes below 2^22: floats near 1.5 * 2^23 are 1
// apart. std::nearbyint would be a function call where the CPU is not known to have an instruction.
inline lanes round_lanes(lanes v) {
  return (v + 0x1.8p23f) - 0x1.8p23f;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
