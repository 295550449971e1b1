// Tiles of matrix instructions against plain loops.
#include <cmath>
#include <nibble/base/half.hpp>
#include <random>

#include "probe_test.hpp"

namespace {

using nibble::gpu::probe_stride;
using nibble::gpu::probe_threads;
using test::device_array;
using test::gpu_device;

constexpr int size = 16;
constexpr int tile_bytes = size * probe_stride;

// n tiles of 16 rows; bytes beyond a row's are never to be looked at.
template <typename T, typename Make>
std::vector<std::int8_t> rows_of(int n, int columns, Make make) {
  std::vector<std::int8_t> all(static_cast<std::size_t>(n * tile_bytes), 0x7f);
  for (int row = 0; row < n * size; ++row) {
    for (int k = 0; k < columns; ++k) {
      const T value = make(row, k);
      std::memcpy(all.data() + row * probe_stride + k * static_cast<int>(sizeof(T)), &value,
                  sizeof value);
    }
  }
  return all;
}

template <typename T>
T value_at(const std::vector<std::int8_t>& rows, int tile, int row, int k) {
  T value;
  std::memcpy(&value,
              rows.data() + (tile * size + row) * probe_stride + k * static_cast<int>(sizeof(T)),
              sizeof value);
  return value;
}

// The tile that each warp of each device makes: f(value at (row, column), row, column).
template <typename Sum, typename Function>
void for_each_element(const char* probe, int n, const std::vector<std::int8_t>& a,
                      const std::vector<std::int8_t>& b, Function f) {
  for (auto& device : test::gpu_devices()) {
    if (test::probes_of(device).empty()) continue;
    INFO(device.name << ", " << probe << ", " << n);
    const int warps = probe_threads / device.context->facts().warp;
    const device_array<std::int8_t> in_a(device, a), in_b(device, b);
    const device_array<Sum> out(device, static_cast<std::size_t>(warps * size * size));
    test::run_probe(device, probe, {in_a.data(), in_b.data(), out.data(), n});
    const std::vector<Sum> got = out.read();
    for (int i = 0; i < warps * size * size; ++i) {
      const int row = i / size % size, column = i % size;
      INFO("warp " << i / size / size << ", row " << row << ", column " << column);
      f(got[static_cast<std::size_t>(i)], row, column);
    }
  }
}

void check_bytes(int columns, int n, const std::vector<std::int8_t>& a,
                 const std::vector<std::int8_t>& b) {
  const char* const probe = columns == 16 ? "tile_s8<16>" : "tile_s8<32>";
  for_each_element<std::int32_t>(probe, n, a, b, [&](std::int32_t got, int row, int column) {
    std::int32_t expected = 0;
    for (int i = 0; i < n; ++i) {
      for (int k = 0; k < columns; ++k) {
        expected += value_at<std::int8_t>(a, i, row, k) * value_at<std::int8_t>(b, i, column, k);
      }
    }
    REQUIRE(got == expected);
  });
}

}  // namespace

TEST_CASE("tiles of bytes") {
  std::mt19937 random(3);
  const auto any = [&](int, int) { return static_cast<std::int8_t>(random() >> 9); };
  for (const int columns : {16, 32}) {
    for (const int n : {1, 2, 5}) {
      const auto a = rows_of<std::int8_t>(n, columns, any);
      const auto b = rows_of<std::int8_t>(n, columns, any);
      check_bytes(columns, n, a, b);
    }
    // the largest products there are, of each sign
    for (const int x : {-128, 127}) {
      for (const int y : {-128, 127}) {
        const auto a =
            rows_of<std::int8_t>(3, columns, [&](int, int) { return static_cast<std::int8_t>(x); });
        const auto b =
            rows_of<std::int8_t>(3, columns, [&](int, int) { return static_cast<std::int8_t>(y); });
        check_bytes(columns, 3, a, b);
      }
    }
  }
}

TEST_CASE("tiles of bytes, one product at a time") {
  // a single 1 in each operand finds every place that is taken for another one
  for (const int columns : {16, 32}) {
    for (int k = 0; k < columns; k += columns / 8 + 1) {
      const int row = (5 * k + 3) % size, column = (3 * k + 7) % size;
      const auto a = rows_of<std::int8_t>(1, columns, [&](int r, int c) {
        return static_cast<std::int8_t>(r == row && c == k ? -128 : 0);
      });
      const auto b = rows_of<std::int8_t>(1, columns, [&](int r, int c) {
        return static_cast<std::int8_t>(r == column && c == k ? -128 : 1);
      });
      check_bytes(columns, 1, a, b);
    }
  }
}

TEST_CASE("tiles of halves") {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (const int n : {1, 4}) {
    const auto any = [&](int, int) { return nibble::to_half(normal(random)); };
    const auto a = rows_of<nibble::half>(n, size, any), b = rows_of<nibble::half>(n, size, any);
    for_each_element<float>("tile_f16", n, a, b, [&](float got, int row, int column) {
      double expected = 0, magnitudes = 0;
      for (int i = 0; i < n; ++i) {
        for (int k = 0; k < size; ++k) {
          const double product = double{to_float(value_at<nibble::half>(a, i, row, k))} *
                                 double{to_float(value_at<nibble::half>(b, i, column, k))};
          expected += product;
          magnitudes += std::fabs(product);
        }
      }
      // products are exact in float; a sum of m terms is off by (m - 1) roundings of at most the
      // sum of magnitudes, which devices may truncate instead
      const double tolerance = (n * size) * 0x1p-23 * magnitudes;
      REQUIRE(std::fabs(got - expected) <= tolerance);
    });
  }
}

TEST_CASE("tiles of halves, extreme values") {
  struct factors {
    float a, b, sum;
  };
  // the largest half, the smallest normal and subnormal ones: all sums are exact
  const factors all[] = {{65504, 32768, 65504 * 0x1p19f},
                         {-65504, 0x1p-24f, -65504 * 0x1p-20f},
                         {0x1p-24f, 0x1p-24f, 0x1p-44f},
                         {0x1p-14f, -1, -0x1p-10f},
                         {0, -65504, 0}};
  for (const factors& f : all) {
    const auto a = rows_of<nibble::half>(1, size, [&](int, int) { return nibble::to_half(f.a); });
    const auto b = rows_of<nibble::half>(1, size, [&](int, int) { return nibble::to_half(f.b); });
    for_each_element<float>("tile_f16", 1, a, b,
                            [&](float got, int, int) { REQUIRE(got == f.sum); });
  }
}
