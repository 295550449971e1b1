// What the tests of products of many tokens and of experts share: matrices and activations, on the
// host and in a device's memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <nibble/formats/decode.hpp>
#include <optional>
#include <vector>

#include "../kernels/references.hpp"
#include "gpu/matrix_layout.hpp"
#include "gpu_test.hpp"

namespace test {

// Some matrices of one shape (experts) as they would lie in a file.
template <typename F>
struct host_matrices {
  std::int64_t columns, rows, matrices;
  std::vector<typename F::block> blocks;

  const typename F::block* row(std::int64_t matrix, std::int64_t r) const {
    return blocks.data() + (matrix * rows + r) * (columns / F::block_size);
  }
  // The first rows of the first matrix.
  host_matrices first(std::int64_t n) const {
    return {columns, n, 1, {blocks.begin(), blocks.begin() + n * (columns / F::block_size)}};
  }
};

template <typename F>
host_matrices<F> make_matrices(std::int64_t columns, std::int64_t rows, std::int64_t matrices,
                               random_source& random) {
  const auto blocks = static_cast<std::size_t>(matrices * rows * (columns / F::block_size));
  return {columns, rows, matrices, random_blocks<F>(blocks, random)};
}

class device_matrices {
 public:
  template <typename F>
  device_matrices(gpu_device& device, const host_matrices<F>& from)
      : packed_{nullptr, nibble::index_of<F>, from.columns, from.rows, 0, from.matrices} {
    namespace kernels = nibble::kernels;
    const auto layout = kernels::layout_of<F>(from.columns, from.rows);
    const auto n = static_cast<std::size_t>(from.matrices);
    std::vector<std::byte> bytes(layout.bytes * n, std::byte{0xee});
    for (std::size_t m = 0; m < n; ++m) {
      kernels::plane_pointers planes{};
      for (int p = 0; p < kernels::matrix_planes; ++p) {
        planes.at[p] = bytes.data() + m * layout.bytes + layout.offset[p];
      }
      kernels::pack_rows<F>(from.row(static_cast<std::int64_t>(m), 0), from.rows, from.columns,
                            planes);
    }
    memory_.emplace(device, bytes);
    packed_.data = memory_->data();
    packed_.matrix_bytes = layout.bytes;
  }

  const gpu::packed_matrix& packed() const { return packed_; }

 private:
  gpu::packed_matrix packed_;
  std::optional<device_array<std::byte>> memory_;
};

class device_q8 {
 public:
  device_q8(gpu_device& device, const tokens_q8& x)
      : codes_(device, x.q), scales_(device, x.scale), sums_(device, x.sum) {}
  gpu::q8_rows rows() const { return {codes_.data(), scales_.data(), sums_.data()}; }

 private:
  device_array<std::int8_t> codes_;
  device_array<float> scales_;
  device_array<std::int16_t> sums_;
};

inline tokens_q8 random_tokens(std::int64_t tokens, std::int64_t columns, random_source& random) {
  return make_tokens(
      tokens, columns, [&](auto) { return random.in(-127, 127); }, 0.01f);
}

inline bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

// A row's values.
template <typename F>
std::vector<float> decoded(const typename F::block* row, std::int64_t columns) {
  std::vector<float> values(static_cast<std::size_t>(columns));
  nibble::decode_row<F>(row, static_cast<std::uint64_t>(columns), values.data());
  return values;
}

// A row of weights and a row of float activations: any order of additions, each off by half a unit
// of a sum no greater than the sum of all magnitudes, and a rounding of each product.
inline expectation product_f32(const std::vector<float>& weights, const float* x) {
  double value = 0, magnitude = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double product = static_cast<double>(weights[i]) * x[i];
    value += product;
    magnitude += std::fabs(product);
  }
  return {value, unit_roundoff * (static_cast<double>(weights.size()) + 2) * magnitude + 1e-36};
}

// A message for each of many results would take longer than the kernels.
inline void require_close(float got, const expectation& expected, std::int64_t of_out,
                          std::int64_t row) {
  if (std::fabs(got - expected.value) <= expected.tolerance) return;
  INFO("row " << of_out << " of the results, row " << row << " of the matrix: " << got << ", not "
              << expected.value << " to " << expected.tolerance);
  REQUIRE(std::fabs(got - expected.value) <= expected.tolerance);
}

// scale * value + bias: two more roundings.
inline expectation finished(const expectation& e, double scale, double bias) {
  const double value = scale * e.value + bias;
  return {value, std::fabs(scale) * e.tolerance +
                     2 * unit_roundoff * (std::fabs(scale * e.value) + std::fabs(bias)) + 1e-36};
}

}  // namespace test
