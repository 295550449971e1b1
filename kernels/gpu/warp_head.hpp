// What happens to a head of a query, a key or a result as a whole.
#pragma once

#include <cmath>

#include "gpu/dialect.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// of nibble::rope_style
inline constexpr std::int32_t rope_style_norm = 1, rope_style_neox = 2;

// A head in shared memory, which a warp works on. When a function ends all lanes are done with it,
// and see what the others did.
struct warp_head {
  float* x;
  int length;

  NIBBLE_DEVICE void load(const float* from) const {
    for (int i = lane(); i < length; i += warp_size) x[i] = from[i];
    sync_warp();
  }
  NIBBLE_DEVICE void store(float* to) const {
    for (int i = lane(); i < length; i += warp_size) to[i] = x[i];
    sync_warp();
  }

  // The sum of squares is taken in double: exact products, and no overflow.
  NIBBLE_DEVICE void norm(const float* gain, float epsilon) const {
    double sum = 0;
    for (int i = lane(); i < length; i += warp_size) {
      sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    for (int mask = warp_size / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    const double mean = sum / length;
    const auto factor = static_cast<float>(1.0 / ::sqrt(mean + static_cast<double>(epsilon)));
    for (int i = lane(); i < length; i += warp_size) x[i] = x[i] * factor * gain[i];
    sync_warp();
  }

  NIBBLE_DEVICE void rope(std::int32_t style, int pairs, const float* cosine,
                          const float* sine) const {
    if (style != rope_style_norm && style != rope_style_neox) return;
    const bool adjacent = style == rope_style_norm;
    for (int i = lane(); i < pairs; i += warp_size) {
      float& first = x[adjacent ? 2 * i : i];
      float& second = x[adjacent ? 2 * i + 1 : i + pairs];
      const float a = first, b = second;
      first = a * cosine[i] - b * sine[i];
      second = a * sine[i] + b * cosine[i];
    }
    sync_warp();
  }

  NIBBLE_DEVICE void scale(float factor) const {
    for (int i = lane(); i < length; i += warp_size) x[i] *= factor;
    sync_warp();
  }

  // The Walsh-Hadamard transform of each block of the greatest power of two that divides the
  // length; orthonormal, so it undoes itself.
  NIBBLE_DEVICE void hadamard() const {
    const int block = length & -length;
    for (int distance = 1; distance < block; distance *= 2) {
      for (int i = lane(); i < length / 2; i += warp_size) {
        const int at = i / distance * 2 * distance + i % distance;
        const float a = x[at], b = x[at + distance];
        x[at] = a + b;
        x[at + distance] = a - b;
      }
      sync_warp();
    }
    if (block > 1) scale(1.0f / ::sqrtf(static_cast<float>(block)));
  }
};

}  // namespace nibble::inline NIBBLE_ABI::kernels
