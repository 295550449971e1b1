// What the kernel tests share: random rows, and references in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <nibble/formats/list.hpp>
#include <random>
#include <vector>

#include "catch.hpp"
#include "cpu/select.hpp"

namespace test {

inline constexpr double unit_roundoff = 0x1p-24;  // of float

class random_source {
 public:
  explicit random_source(unsigned seed) : engine_(seed) {}
  std::uint8_t byte() { return static_cast<std::uint8_t>(engine_() >> 11); }
  int in(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  float normal(float deviation = 1) {
    return std::normal_distribution<float>(0, deviation)(engine_);
  }
  std::vector<float> normals(std::size_t n, float deviation = 1) {
    std::vector<float> x(n);
    for (float& v : x) v = normal(deviation);
    return x;
  }

 private:
  std::mt19937 engine_;
};

// Whether all scales and offsets of a block are finite, and sums of products stay so. (MXFP4's
// scales alone go up to 2^127.)
template <typename F>
bool moderate(const typename F::block& b) {
  for (int g = 0; g < F::block_size / F::group_size; ++g) {
    const nibble::affine map = F::scale(b, g);
    if (!(std::fabs(map.scale) < 1e30f) || !(std::fabs(map.offset) < 1e30f)) return false;
  }
  return true;
}

// Any bytes that make moderate values; scales span nearly all that the format can hold. For element
// formats, normal values.
template <typename F>
std::vector<typename F::block> random_blocks(std::size_t count, random_source& random) {
  std::vector<typename F::block> blocks(count);
  for (auto& b : blocks) {
    if constexpr (nibble::element_format<F>) {
      b = F::from(random.normal());
    } else {
      do {
        std::uint8_t bytes[sizeof b];
        for (auto& byte : bytes) byte = random.byte();
        std::memcpy(&b, bytes, sizeof b);
      } while (!moderate<F>(b));
    }
  }
  return blocks;
}

#if defined(NIBBLE_AVXVNNI_AS_EVEX)
const nibble::cpu::kernel_table& avxvnni_as_evex();
#endif

// The kernels of every instruction set that can be tested here, scalar ones last. They are those
// that the library would choose from; and those for AVX-VNNI on a machine that has their
// instructions in AVX-512's encoding only.
inline std::vector<const nibble::cpu::kernel_table*> tables() {
  auto all = nibble::cpu::available_kernels();
#if defined(NIBBLE_AVXVNNI_AS_EVEX)
  if (nibble::cpu::find_kernels("avx512vnni") && !nibble::cpu::find_kernels("avxvnni")) {
    all.insert(all.begin(), &avxvnni_as_evex());
  }
#endif
  return all;
}

// Calls f(table) for each of them.
template <typename Function>
void for_each_isa(Function f) {
  for (const nibble::cpu::kernel_table* table : tables()) {
    INFO("instruction set " << table->isa);
    f(*table);
  }
}

template <typename Function>
void for_each_block_format(Function f) {
  nibble::for_each_format([&]<typename F>(F) {
    if constexpr (nibble::block_format<F>) {
      INFO("format " << F::name);
      f(F{});
    }
  });
}

}  // namespace test
